package conveyortest_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/conveyortest"
)

// approver awaits the signal "approved" for ever.
var approver = awaiting(0)

// awaiting returns a driver that awaits the signal "approved".
func awaiting(timeout time.Duration) conveyor.Driver {
	return conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		switch ok, err := req.Signal(nil); {
		case err != nil:
			return conveyor.Skip("nobody approved it"), nil
		case !ok:
			return conveyor.Await("approved", timeout), nil
		}
		return conveyor.Done(), nil
	})
}

// apply applies a resource and returns its run.
func apply(t testing.TB, e *conveyortest.Engine, r conveyor.Resource) *conveyor.Run {
	t.Helper()
	run, err := e.Apply(context.Background(), r)
	require.NoError(t, err)
	return run
}

// sleep returns after an hour, or when ctx ends.
func sleep(ctx context.Context) error {
	select {
	case <-time.After(time.Hour):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// dashed returns a phrase as the name of a driver.
func dashed(phrase string) string { return strings.ReplaceAll(phrase, " ", "-") }

const (
	nobodySends       = `awaits the signal "approved", and nothing is left to happen that could send it; call Apply, Signal and Wait instead of Finish$`
	finishOfApp       = `^conveyortest: finish: run \S+ of build/app: `
	finishOfAppQueued = `^conveyortest: finish: run \S+ of build/app `
)

func TestFinishFailsTheTestWhenNobodySendsTheSignal(t *testing.T) {
	for _, c := range []struct {
		name string
		spec conveyor.PipelineSpec
		want string
	}{
		{"in a list", conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "quick"}, {Driver: "approver"}, {Driver: "quick"}}},
			"step 2 (driver approver) "},
		{"in a graph", conveyor.PipelineSpec{Steps: []conveyor.Step{
			{ID: "build", Driver: "flaky"}, {ID: "approval", Driver: "approver", After: conveyor.AtOnce()}, {ID: "push", Driver: "quick"},
		}}, "step approval (driver approver) "},
		{"twice in a graph", conveyor.PipelineSpec{Steps: []conveyor.Step{
			{ID: "a", Driver: "approver", After: conveyor.AtOnce()}, {ID: "b", Driver: "approver", After: conveyor.AtOnce()},
		}}, "step a (driver approver) "},
		{"beside a wait with a timeout", conveyor.PipelineSpec{Steps: []conveyor.Step{
			{ID: "a", Driver: "approver", After: conveyor.AtOnce()}, {ID: "b", Driver: "day", After: conveyor.AtOnce()},
		}}, "step a (driver approver) "},
		{"beside a driver that is missing", conveyor.PipelineSpec{
			Steps: []conveyor.Step{{ID: "a", Driver: "approver"}}, Finally: []conveyor.Step{{Driver: "missing"}},
		}, "step a (driver approver) "},
		{"in a cleanup", conveyor.PipelineSpec{
			Steps: []conveyor.Step{{Driver: "quick"}, {Driver: "fail"}, {Driver: "approver"}}, Finally: []conveyor.Step{{ID: "tidy", Driver: "approver"}},
		}, "step tidy (driver approver) "},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said := during(func(t testing.TB) {
					e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{
						"quick": nil, "approver": approver, "day": awaiting(24 * time.Hour),
						"fail":  conveyortest.Return(conveyor.Done(), conveyor.Permanent(errBoom)),
						"flaky": conveyortest.InTurn(conveyortest.Return(conveyor.Done(), errBoom), Cloner{}),
					})
					c.spec.Name, c.spec.Resource = "ci", "build"
					require.NoError(t, e.SavePipeline(t.Context(), c.spec))
					e.Finish(app())
				})
				require.Len(t, said, 1)
				require.Regexp(t, finishOfApp+regexp.QuoteMeta(c.want)+nobodySends, said[0])
			})
		})
	}
}

func TestFinishFailsTheTestWithoutABubbleToo(t *testing.T) {
	said := during(func(t testing.TB) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"approver": approver})
		save(t, e, "approver")
		e.Finish(app())
	})
	require.Len(t, said, 1)
	require.Regexp(t, finishOfApp+regexp.QuoteMeta("step 1 (driver approver) ")+nobodySends, said[0])
}

func TestFinishWaitsForWhatEndsByItself(t *testing.T) {
	// sending returns a driver that sends the signal to the run of a resource after an hour, or to its own run.
	sending := func(e **conveyortest.Engine, to string) conveyor.Driver {
		return conveyor.DriverFunc(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if err := sleep(ctx); err != nil {
				return conveyor.Result{}, err
			}
			run := req.Run
			if to != "" {
				o, err := (*e).Get(ctx, conveyor.Key{Type: "build", Name: to})
				if err != nil {
					return conveyor.Result{}, err
				}
				run = o.Status.Run
			}
			return conveyor.Done(), (*e).Signal(ctx, run, "approved", nil)
		})
	}
	atOnce := conveyor.AtOnce()
	for _, c := range []struct {
		name   string
		spec   conveyor.PipelineSpec
		before string // a pipeline of one step with this driver, along which other resources go
		others int    // how many; 0 means 1
		want   []conveyor.State
		takes  time.Duration
	}{
		{name: "a wait with a timeout", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "day"}}},
			want: []conveyor.State{conveyor.StateSkipped}, takes: 24 * time.Hour},
		{name: "a wait beside one with a timeout", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{
			{Driver: "approver", After: atOnce}, {Driver: "day", After: atOnce}, {Driver: "sender"},
		}, Timeout: conveyor.Duration(25 * time.Hour)},
			want: []conveyor.State{conveyor.StateFailed, conveyor.StateSkipped, conveyor.StateSkipped}, takes: 25 * time.Hour},
		{name: "a pipeline with a timeout", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "approver"}}, Timeout: conveyor.Duration(time.Hour)},
			want: []conveyor.State{conveyor.StateFailed}, takes: time.Hour},
		{name: "a signal of an earlier step", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "sender"}, {Driver: "approver"}}},
			want: []conveyor.State{conveyor.StateSucceeded, conveyor.StateSucceeded}, takes: time.Hour},
		{name: "a signal of a step beside it", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{
			{Driver: "approver", After: atOnce}, {Driver: "sender", After: atOnce},
		}}, want: []conveyor.State{conveyor.StateSucceeded, conveyor.StateSucceeded}, takes: time.Hour},
		{name: "a signal of a step that is called an hour later", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{
			{Driver: "approver", After: atOnce}, {Driver: "late sender", After: atOnce},
		}}, want: []conveyor.State{conveyor.StateSucceeded, conveyor.StateSucceeded}, takes: 2 * time.Hour},
		{name: "a signal of another run", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "approver"}}},
			before: "sender to app", want: []conveyor.State{conveyor.StateSucceeded}, takes: time.Hour},
		{name: "a signal of another run that is retried", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "approver"}}},
			before: "flaky sender to app", want: []conveyor.State{conveyor.StateSucceeded}, takes: 2 * time.Hour},
		{name: "a driver that takes an hour", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "slow"}}},
			want: []conveyor.State{conveyor.StateSucceeded}, takes: time.Hour},
		{name: "a requeue", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "late"}}},
			want: []conveyor.State{conveyor.StateSucceeded}, takes: time.Hour},
		{name: "a worker", spec: conveyor.PipelineSpec{Steps: []conveyor.Step{{Driver: "quick"}}},
			before: "slow", others: 2, want: []conveyor.State{conveyor.StateSucceeded}, takes: time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var e *conveyortest.Engine
				slow := conveyor.DriverFunc(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
					return conveyor.Done(), sleep(ctx)
				})
				later := conveyortest.Return(conveyor.RequeueAfter(time.Hour), nil)
				e = conveyortest.New(t, conveyor.Options{Workers: 2}, conveyortest.Drivers{
					"quick": nil, "approver": approver, "day": awaiting(24 * time.Hour), "slow": slow,
					"late": conveyortest.InTurn(later, Cloner{}),
				})
				for name, d := range map[string]conveyor.Driver{
					"sender": sending(&e, ""), "late-sender": conveyortest.InTurn(later, sending(&e, "")), "sender-to-app": sending(&e, "app"),
					"flaky-sender-to-app": conveyortest.InTurn(
						conveyortest.Return(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom)), sending(&e, "app")),
				} {
					require.NoError(t, e.Register(name, d))
				}
				c.spec.Name, c.spec.Resource = "ci", "build"
				for i := range c.spec.Steps {
					c.spec.Steps[i].Driver = dashed(c.spec.Steps[i].Driver)
				}
				require.NoError(t, e.SavePipeline(t.Context(), c.spec))
				began := time.Now()
				if c.before != "" {
					require.NoError(t, e.SavePipeline(t.Context(), conveyor.PipelineSpec{
						Name: "before", Resource: "build", Steps: []conveyor.Step{{Driver: dashed(c.before)}},
					}))
					for i := range max(c.others, 1) {
						_, err := e.Apply(t.Context(), &conveyor.Object{Meta: conveyor.Meta{Name: fmt.Sprint("before-", i), Type: "build", Pipeline: "before"}})
						require.NoError(t, err)
					}
				}
				conveyortest.AssertRun(t, e.Finish(app()), stateOf(c.want), c.want...)
				require.Equal(t, c.takes, time.Since(began).Truncate(time.Hour))
			})
		})
	}
}

// stateOf returns the state of a run whose steps have these states.
func stateOf(steps []conveyor.State) conveyor.State {
	if steps[0] == conveyor.StateFailed {
		return conveyor.StateFailed
	}
	return conveyor.StateSucceeded
}

func TestASignalFromAnotherGoroutineIsInTime(t *testing.T) {
	test := func(t *testing.T) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"approver": approver})
		save(t, e, "approver")
		for i := range 100 {
			build := app()
			build.Name = fmt.Sprint("app-", i)
			sent := make(chan error, 1)
			events := e.Watch(t.Context(), conveyor.WatchOptions{Resource: build.Key()})
			go func() {
				for event, err := range events {
					if err != nil || event.Kind == conveyor.EventStep && event.State == conveyor.StateWaiting {
						sent <- e.Signal(t.Context(), event.Run, "approved", nil)
						return
					}
				}
			}()
			conveyortest.AssertRun(t, e.Finish(build), conveyor.StateSucceeded)
			require.NoError(t, <-sent)
		}
	}
	synctest.Test(t, test)
	test(t)
}

func TestFinishSaysWhatHoldsTheRunUp(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name    string
		maxRuns int
		steps   []conveyor.Step
		before  func(t testing.TB, e *conveyortest.Engine)
		want    string
	}{
		{"a step that has been blocked", 0, []conveyor.Step{{Driver: "tetser"}}, func(t testing.TB, e *conveyortest.Engine) {
			apply(t, e, app())
		}, `^conveyortest: finish: run \S+ of build/app is blocked: step 1: driver "tetser" is not registered$`},
		{"a step that has been awaiting", 0, []conveyor.Step{{Driver: "approver"}}, func(t testing.TB, e *conveyortest.Engine) {
			apply(t, e, app())
		}, finishOfApp + regexp.QuoteMeta("step 1 (driver approver) ") + nobodySends},
		{"a step that awaits its second signal", 0, []conveyor.Step{{Driver: "again"}}, func(t testing.TB, e *conveyortest.Engine) {
			require.NoError(t, e.Signal(ctx, apply(t, e, app()).ID, "approved", nil))
		}, finishOfApp + regexp.QuoteMeta("step 1 (driver again) ") + nobodySends},
		{"an earlier run of the resource", 0, []conveyor.Step{{Driver: "approver"}}, func(t testing.TB, e *conveyortest.Engine) {
			build := app()
			build.Spec.Repository = "https://example.com/earlier.git"
			apply(t, e, build)
		}, finishOfAppQueued + regexp.QuoteMeta(`is queued, and what it waits for cannot go on:
run `) + `\S+` + regexp.QuoteMeta(` of build/app: waiting: step 1: waits for signal approved
  step 1 (approver): waiting: waits for signal approved`) + "$"},
		{"a run that takes all room in the pipeline", 1, []conveyor.Step{{Driver: "approver"}}, func(t testing.TB, e *conveyortest.Engine) {
			build := app()
			build.Name = "other"
			apply(t, e, build)
		}, finishOfAppQueued + regexp.QuoteMeta(`is queued, and what it waits for cannot go on:
run `) + `\S+` + regexp.QuoteMeta(` of build/other: waiting: step 1: waits for signal approved
  step 1 (approver): waiting: waits for signal approved`) + "$"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said := during(func(t testing.TB) {
					e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{
						"approver": approver, "again": conveyortest.Return(conveyor.Await("approved", 0), nil),
					})
					require.NoError(t, e.SavePipeline(ctx, conveyor.PipelineSpec{Name: "ci", Resource: "build", MaxRuns: c.maxRuns, Steps: c.steps}))
					c.before(t, e)
					synctest.Wait()
					e.Finish(app())
				})
				require.Len(t, said, 1)
				require.Regexp(t, c.want, said[0])
			})
		})
	}
}

func TestAnEngineFromOutsideTheBubbleIsRefused(t *testing.T) {
	for name, use := range map[string]func(e *conveyortest.Engine){
		"finish": func(e *conveyortest.Engine) { e.Finish(app()) },
		"reopen": func(e *conveyortest.Engine) { e.Reopen(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			said := during(func(tb testing.TB) {
				e := conveyortest.New(tb, conveyor.Options{}, conveyortest.Drivers{"cloner": Cloner{}})
				save(t, e, "cloner")
				synctest.Test(t, func(*testing.T) {
					defer func() { _ = recover() }() // of what ends the test
					use(e)
				})
				conveyortest.AssertRun(t, e.Finish(app()), conveyor.StateSucceeded)
			})
			require.Equal(t, []string{"conveyortest: the engine was made outside of the bubble of testing/synctest; call New inside it"}, said)
		})
	}
}

func TestANilAnswerIsDone(t *testing.T) {
	require.Equal(t, conveyortest.Outcome{State: conveyor.StateSucceeded}, conveyortest.Attempt(t, conveyortest.InTurn(nil), conveyortest.Given{}))
}
