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

func ExampleGiven_signal() {
	deployer := conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var by string
		switch ok, err := req.Signal(&by); {
		case errors.Is(err, conveyor.ErrTimeout):
			return conveyor.Skip("nobody approved it in time"), nil
		case err != nil:
			return conveyor.Result{}, conveyor.Permanent(err)
		case !ok:
			return conveyor.Await("approved", 24*time.Hour), nil
		}
		return conveyor.DoneWith("approved by " + by), nil
	})
	test(func(t testing.TB) {
		first := conveyortest.Attempt(t, deployer, conveyortest.Given{})
		fmt.Println(first.State, first.Reason)
		approved := conveyortest.Attempt(t, deployer, conveyortest.Given{Signal: &conveyortest.Signal{Name: "approved", Payload: "ann"}})
		fmt.Println(approved.State, string(approved.Output))
		late := conveyortest.Attempt(t, deployer, conveyortest.Given{Signal: &conveyortest.Signal{Name: "approved", TimedOut: true}})
		fmt.Println(late.State, late.Reason)
	})
	// Output:
	// waiting waits for signal approved
	// succeeded "approved by ann"
	// skipped nobody approved it in time
}

func ExampleGiven_checkpoint() {
	copier := conveyor.DriverFunc(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		copied := 0
		if _, err := req.Restore(&copied); err != nil {
			return conveyor.Result{}, err
		}
		for file := copied + 1; file <= 3; file++ {
			fmt.Println("copy file", file)
			if err := req.Checkpoint(ctx, file); err != nil {
				return conveyor.Result{}, err
			}
		}
		return conveyor.Done(), nil
	})
	test(func(t testing.TB) {
		conveyortest.Attempt(t, copier, conveyortest.Given{Checkpoint: 2})
	})
	// Output:
	// copy file 3
}

func ExampleGiven_resumed() {
	payer := conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if req.Resumed {
			return conveyor.Await("bank-statement", time.Hour), nil // the payment may have been made
		}
		return conveyor.Done(), nil
	})
	test(func(t testing.TB) {
		again := conveyortest.Attempt(t, payer, conveyortest.Given{Resumed: true})
		fmt.Println(again.State, again.Reason)
	})
	// Output:
	// waiting waits for signal bank-statement
}

func ExampleGiven_outcome() {
	cleaner := conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		fmt.Printf("the steps are %s: %q\n", req.Outcome, req.OutcomeReason)
		return conveyor.Done(), nil
	})
	test(func(t testing.TB) {
		conveyortest.Attempt(t, cleaner, conveyortest.Given{Outcome: conveyor.StateSucceeded})
		conveyortest.Attempt(t, cleaner, conveyortest.Given{Outcome: conveyor.StateFailed, OutcomeReason: "2 tests failed"})
		conveyortest.Attempt(t, cleaner, conveyortest.Given{Outcome: conveyor.StateCanceled, OutcomeReason: "no longer wanted"})
	})
	// Output:
	// the steps are succeeded: ""
	// the steps are failed: "step last (driver given-outcome): 2 tests failed"
	// the steps are canceled: "no longer wanted"
}

// All that is given goes together: this call repeats one that was cut short, after a signal and a checkpoint.
func ExampleGiven() {
	deployer := conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var by, image string
		var hosts int
		approved, err := req.Signal(&by)
		_, err2 := req.Restore(&hosts)
		if err := errors.Join(err, err2, req.Output("build", &image)); err != nil {
			return conveyor.Result{}, err
		}
		fmt.Println("approved:", approved, "by", by)
		fmt.Println("resumed:", req.Resumed, "after", hosts, "hosts with", image)
		return conveyor.Done(), nil
	})
	test(func(t testing.TB) {
		conveyortest.Attempt(t, deployer, conveyortest.Given{
			Outputs:    map[string]any{"build": "sha256:c0ffee"},
			Signal:     &conveyortest.Signal{Name: "approved", Payload: "ann"},
			Checkpoint: 7,
			Resumed:    true,
		})
	})
	// Output:
	// approved: true by ann
	// resumed: true after 7 hosts with sha256:c0ffee
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
