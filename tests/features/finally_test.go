package features_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// withCleanup makes a pipeline of one step "work" and two of Finally, "undo" and "tell".
func withCleanup(change func(*conveyor.PipelineSpec)) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{
		Name: "p", Resource: "r",
		Steps:   []conveyor.Step{{ID: "work", Driver: "work"}, {ID: "more", Driver: "more"}},
		Finally: []conveyor.Step{{ID: "undo", Driver: "undo"}, {ID: "tell", Driver: "tell"}},
	}
	if change != nil {
		change(&p)
	}
	return p
}

func TestRule15FinallyRunsWhateverHappenedAndSeesTheOutcome(t *testing.T) {
	for _, c := range []struct {
		name    string
		work    rig.Func
		change  func(*conveyor.PipelineSpec)
		cancel  bool
		outcome conveyor.State
		reason  string
		steps   []string
	}{
		{"a success", rig.Always(conveyor.Done(), nil), nil, false, conveyor.StateSucceeded, "",
			[]string{"succeeded", "succeeded", "succeeded", "succeeded"}},
		{"a halt", rig.Always(conveyor.Halt("enough"), nil), nil, false, conveyor.StateSucceeded, "enough",
			[]string{"succeeded", "skipped", "succeeded", "succeeded"}},
		{"a failure", rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), nil, false, conveyor.StateFailed, "boom",
			[]string{"failed", "skipped", "succeeded", "succeeded"}},
		{"a timeout", rig.Taking(time.Hour), func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(time.Minute) }, false,
			conveyor.StateFailed, "longer than 1m0s", []string{"failed", "skipped", "succeeded", "succeeded"}},
		{"a cancel", rig.Taking(time.Hour), nil, true, conveyor.StateCanceled, "not wanted",
			[]string{"canceled", "skipped", "succeeded", "succeeded"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("work", rig.DriverOf(c.work))
				e.Driver("more", new(rig.Recorder))
				saw := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					require.Equal(t, c.outcome, req.Outcome)
					require.Contains(t, req.OutcomeReason, c.reason)
					require.NoError(t, ctx.Err(), "the cleanup has a context of its own")
					return rig.Taking(30*time.Second)(ctx, req)
				}
				e.Driver("undo", rig.DriverOf(saw))
				e.Driver("tell", rig.DriverOf(saw))
				e.Save(withCleanup(c.change))
				run := e.MustApply(rig.Object("x", nil))
				if c.cancel {
					time.Sleep(time.Second)
					require.NoError(t, e.Cancel(t.Context(), run.ID, "not wanted"))
				}
				run = e.Ended(run.ID)
				require.Equal(t, c.outcome, run.State)
				require.Contains(t, run.Reason, c.reason)
				require.Equal(t, c.steps, rig.StatesOf(run))
				require.True(t, run.Steps[2].Finally)
			})
		})
	}
}

func TestRule15FinallyStepsAllRunAndTheirFailureIsTheRuns(t *testing.T) {
	for _, c := range []struct {
		name     string
		work     error
		tolerant bool
		state    conveyor.State
		failed   string
	}{
		{"after a success", nil, false, conveyor.StateFailed, "undo"},
		{"after a success, tolerated", nil, true, conveyor.StateSucceeded, ""},
		{"after a failure", conveyor.Permanent(rig.ErrBoom), false, conveyor.StateFailed, "work"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("work", rig.DriverOf(rig.Always(conveyor.Done(), c.work)))
				e.Driver("more", new(rig.Recorder))
				undo := rig.Recording(rig.Always(conveyor.Done(), rig.ErrBoom))
				tell := new(rig.Recorder)
				e.Driver("undo", undo)
				e.Driver("tell", tell)
				e.Save(withCleanup(func(p *conveyor.PipelineSpec) { p.Finally[0].ContinueOnError = c.tolerant }))
				run := e.Finish(rig.Object("x", nil))
				require.Equal(t, c.state, run.State)
				require.Len(t, undo.All(), 3, "with its retries")
				require.Len(t, tell.All(), 1)
				if c.failed != "" {
					require.Equal(t, c.failed, stepError(t, run).Step)
				}
			})
		})
	}
}

func TestRule15FinallyHasATimeBudgetOfItsOwnAndCanBeCanceled(t *testing.T) {
	for _, c := range []struct {
		name   string
		cancel bool
		lasts  time.Duration
		cause  error
	}{
		{"the pipeline's timeout once more", false, time.Minute, conveyor.ErrTimeout},
		{"a second cancel", true, 10 * time.Second, conveyor.ErrCanceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("work", rig.DriverOf(rig.Taking(time.Hour)))
				e.Driver("more", new(rig.Recorder))
				var cause error
				e.Driver("undo", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					res, err := rig.Taking(time.Hour)(ctx, req)
					cause = context.Cause(ctx)
					return res, err
				}))
				tell := new(rig.Recorder)
				e.Driver("tell", tell)
				e.Save(withCleanup(func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(time.Minute) }))
				run := e.MustApply(rig.Object("x", nil))
				time.Sleep(time.Second)
				require.NoError(t, e.Cancel(t.Context(), run.ID, "once"))
				synctest.Wait()
				began := time.Now()
				if c.cancel {
					time.Sleep(10 * time.Second)
					require.NoError(t, e.Cancel(t.Context(), run.ID, "twice"))
				}
				run = e.Ended(run.ID)
				require.Equal(t, conveyor.StateCanceled, run.State)
				require.ErrorIs(t, cause, c.cause)
				require.Equal(t, c.lasts, time.Since(began))
				require.Empty(t, tell.All())
			})
		})
	}
}

func TestRule15FinallyGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		work := rig.Recording(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)))
		e.Driver("work", work)
		e.Driver("more", new(rig.Recorder))
		e.Driver("undo", rig.DriverOf(rig.Taking(time.Hour)))
		e.Save(withCleanup(nil))
		run := e.MustApply(rig.Object("x", nil))
		synctest.Wait()
		e = e.Crashed(conveyor.Options{})
		undo, tell := new(rig.Recorder), new(rig.Recorder)
		e.Driver("work", work)
		e.Driver("undo", undo)
		e.Driver("tell", tell)
		e.MustStart()
		run = e.Ended(run.ID)
		require.Equal(t, conveyor.StateFailed, run.State)
		require.Len(t, work.All(), 1)
		require.True(t, undo.Last().Resumed)
		require.Len(t, tell.All(), 1)
		require.Equal(t, "work", stepError(t, run).Step)
	})
}

// TestEveryCleanupIsCalledHoweverLongItWaits cancels twelve runs at once, whose cleanups must take turns and take longer
// together than the timeout of the pipeline.
func TestEveryCleanupIsCalledHoweverLongItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 20}).MustStart()
		e.Driver("work", rig.DriverOf(rig.Taking(time.Hour)))
		e.Driver("more", new(rig.Recorder))
		undo := rig.Recording(rig.Taking(time.Minute))
		e.Driver("undo", undo, conveyor.Concurrency(1))
		e.Driver("tell", new(rig.Recorder))
		e.Save(withCleanup(func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(5 * time.Minute) }))
		var runs []string
		for i := range 12 {
			runs = append(runs, e.MustApply(rig.Object(fmt.Sprint("x", i), 1)).ID)
		}
		time.Sleep(time.Second)
		for _, id := range runs {
			require.NoError(t, e.Cancel(t.Context(), id, "not wanted"))
		}
		for _, id := range runs {
			run := e.Ended(id)
			require.Equal(t, conveyor.StateCanceled, run.State)
			require.Equal(t, "not wanted", run.Reason)
			require.Equal(t, []string{"canceled", "skipped", "succeeded", "succeeded"}, rig.StatesOf(run))
		}
		require.Len(t, undo.All(), 12)
	})
}

// TestACleanupThatACrashInterruptsIsCalledAgain has the process be away for longer than the timeout of the pipeline.
func TestACleanupThatACrashInterruptsIsCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := func(e *rig.Engine, undo rig.Func) {
			e.Driver("work", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom))))
			for _, d := range []string{"more", "tell"} {
				e.Driver(d, new(rig.Recorder))
			}
			e.Driver("undo", rig.DriverOf(undo))
			e.MustStart()
		}
		e := rig.New(t, conveyor.Options{})
		begin(e, rig.Taking(time.Hour))
		e.Save(withCleanup(func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(5 * time.Minute) }))
		run := e.MustApply(rig.Object("x", 1))
		time.Sleep(2 * time.Minute)
		e = e.Crashed(conveyor.Options{})
		time.Sleep(time.Hour)
		begin(e, rig.Taking(4*time.Minute))
		run = e.Ended(run.ID)
		require.Equal(t, []string{"failed", "skipped", "succeeded", "succeeded"}, rig.StatesOf(run))
		require.NotContains(t, run.Reason, "cleanup")
	})
}

// TestAWaitEndsWithItsSteps cancels a run while a step awaits a signal, and looks at the run during its cleanup and after.
func TestAWaitEndsWithItsSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("work", rig.DriverOf(rig.Always(conveyor.Await("go", time.Hour), nil)))
		for _, d := range []string{"more", "tell"} {
			e.Driver(d, new(rig.Recorder))
		}
		e.Driver("undo", rig.DriverOf(rig.Taking(time.Minute)))
		e.Save(withCleanup(nil))
		run := e.MustApply(rig.Object("x", 1))
		time.Sleep(time.Second)
		require.Equal(t, "go", e.MustGetRun(run.ID).Steps[0].Awaiting)
		require.NoError(t, e.Cancel(t.Context(), run.ID, "not wanted"))
		canceled := time.Now()
		for _, look := range []func() *conveyor.Run{
			func() *conveyor.Run { synctest.Wait(); return e.MustGetRun(run.ID) },
			func() *conveyor.Run { return e.Ended(run.ID) },
		} {
			step := look().Steps[0]
			require.Equal(t, conveyor.StateCanceled, step.State)
			require.Empty(t, step.Awaiting)
			require.Zero(t, step.Due)
			require.Len(t, step.Waits, 1)
			require.True(t, step.Waits[0].To.Equal(canceled), "%s", step.Waits[0].To)
		}
	})
}
