package conveyortest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/conveyortest"
	"github.com/conveyor-go/conveyor/store/memory"
)

// test stands for a test in these examples, which have no *testing.T. It prints what the test says as it fails.
func test(fn func(t testing.TB)) {
	for _, said := range during(fn) {
		fmt.Println(said)
	}
}

// pipeline has a step for each of these drivers, in order.
func pipeline(drivers ...string) conveyor.PipelineSpec {
	ci := conveyor.PipelineSpec{Name: "ci", Resource: "build"}
	for _, d := range drivers {
		ci.Steps = append(ci.Steps, conveyor.Step{Driver: d})
	}
	return ci
}

func ExampleNew() {
	test(func(t testing.TB) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{
			"cloner": Cloner{}, // the driver under test
			"tester": conveyortest.Return(conveyor.Done(), conveyor.Permanent(errors.New("2 tests failed"))),
			"pusher": nil, // done at once
		})
		check(e.SavePipeline(t.Context(), pipeline("cloner", "tester", "pusher")))
		run := e.Finish(app())
		conveyortest.AssertRun(t, run, conveyor.StateFailed, conveyor.StateSucceeded, conveyor.StateFailed, conveyor.StateSkipped)
		conveyortest.AssertOutput(t, run, "1", "/src/app")
		conveyortest.AssertCalls(t, e.Calls(), "cloner", "tester", "pusher") // wrong, to show what it says
	})
	// Output:
	// calls of drivers:
	//   want cloner, tester, pusher
	//   got  cloner, tester
}

func ExampleAttempt() {
	tester := conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var folder string
		if err := req.Output("1", &folder); err != nil {
			return conveyor.Result{}, conveyor.Permanent(err)
		}
		return conveyor.DoneWith("tested " + folder), nil
	})
	test(func(t testing.TB) {
		good := conveyortest.Attempt(t, tester, conveyortest.Given{Outputs: map[string]any{"1": "/src/app"}})
		fmt.Println(good.State, string(good.Output))
		bad := conveyortest.Attempt(t, tester, conveyortest.Given{})
		fmt.Println(bad.State, bad.Permanent(), errors.Is(bad.Err, conveyor.ErrNotFound))
	})
	// Output:
	// succeeded "tested /src/app"
	// failed true true
}

func ExampleEngine_CrashAt() {
	test(func(t testing.TB) {
		drivers := conveyortest.Drivers{"cloner": nil, "pusher": nil}
		e := conveyortest.New(t, conveyor.Options{}, drivers)
		check(e.SavePipeline(t.Context(), pipeline("cloner", "pusher")))

		e.CrashAt(2) // the outcome of the cloner is lost
		fmt.Println(e.Finish(app()), e.Calls())

		e = e.Reopen(drivers)
		fmt.Println(e.Finish(app()).State, e.Calls())
	})
	// Output:
	// <nil> [cloner]
	// succeeded [cloner resumed pusher]
}

func ExampleRecorder() {
	// A recorder of its own is for an engine that is made in another way: on another store, say.
	retry := conveyor.RetryPolicy{Initial: conveyor.Duration(time.Millisecond)}
	engine, err := conveyor.New(memory.New(), conveyor.Options{Retry: retry})
	check(err)
	var rec conveyortest.Recorder
	flaky := conveyortest.InTurn(conveyortest.Return(conveyor.Done(), errors.New("no network")), Cloner{})
	check(engine.Register("cloner", rec.Record(flaky)))

	ctx := context.Background()
	check(engine.SavePipeline(ctx, pipeline("cloner")))
	check(engine.Start(ctx))
	run, err := engine.Apply(ctx, app())
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)
	check(engine.Shutdown(ctx))
	for _, call := range rec.Calls() {
		fmt.Println(call, call.Step, call.Err)
	}
	// Output:
	// cloner 1 no network
	// cloner/2 1 <nil>
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
