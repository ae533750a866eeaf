package conveyortest_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/conveyortest"
)

func TestFlakyTestsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the second between the attempts takes no time
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{
			"cloner": Cloner{}, // the driver under test
			"tester": conveyortest.InTurn(
				conveyortest.Return(conveyor.Done(), errors.New("flaky")),
				conveyortest.Return(conveyor.DoneWith("42 passed"), nil)),
			"builder": nil, "scanner": nil, "pusher": nil, // done at once
		})
		err := e.SavePipeline(t.Context(), conveyor.PipelineSpec{Name: "ci", Resource: "build", Steps: []conveyor.Step{
			{Driver: "cloner"}, {Driver: "tester"}, {Driver: "builder"}, {Driver: "scanner"}, {Driver: "pusher"}}})
		if err != nil {
			t.Fatal(err)
		}
		run := e.Finish(&Build{Meta: conveyor.Meta{Name: "app", Type: "build", Pipeline: "ci"}})
		conveyortest.AssertRun(t, run, conveyor.StateSucceeded)
		conveyortest.AssertOutput(t, run, "2", "42 passed")
		conveyortest.AssertCalls(t, e.Calls(), "cloner", "tester", "tester/2", "builder", "scanner", "pusher")
	})
}
