package conveyor_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
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
		work    driverFunc
		change  func(*conveyor.PipelineSpec)
		cancel  bool
		outcome conveyor.State
		reason  string
		steps   []string
	}{
		{"a success", always(conveyor.Done(), nil), nil, false, conveyor.StateSucceeded, "",
			[]string{"succeeded", "succeeded", "succeeded", "succeeded"}},
		{"a halt", always(conveyor.Halt("enough"), nil), nil, false, conveyor.StateSucceeded, "enough",
			[]string{"succeeded", "skipped", "succeeded", "succeeded"}},
		{"a failure", always(conveyor.Done(), conveyor.Permanent(errBoom)), nil, false, conveyor.StateFailed, "boom",
			[]string{"failed", "skipped", "succeeded", "succeeded"}},
		{"a timeout", taking(time.Hour), func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(time.Minute) }, false,
			conveyor.StateFailed, "longer than 1m0s", []string{"failed", "skipped", "succeeded", "succeeded"}},
		{"a cancel", taking(time.Hour), nil, true, conveyor.StateCanceled, "not wanted",
			[]string{"canceled", "skipped", "succeeded", "succeeded"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("work", driverOf(c.work))
				e.driver("more", new(recorder))
				saw := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					require.Equal(t, c.outcome, req.Outcome)
					require.Contains(t, req.OutcomeReason, c.reason)
					require.NoError(t, ctx.Err(), "the cleanup has a context of its own")
					return taking(30*time.Second)(ctx, req)
				}
				e.driver("undo", driverOf(saw))
				e.driver("tell", driverOf(saw))
				e.save(withCleanup(c.change))
				run := e.apply(object("x", nil))
				if c.cancel {
					time.Sleep(time.Second)
					require.NoError(t, e.Cancel(t.Context(), run.ID, "not wanted"))
				}
				run = e.ended(run.ID)
				require.Equal(t, c.outcome, run.State)
				require.Contains(t, run.Reason, c.reason)
				require.Equal(t, c.steps, statesOf(run))
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
		{"after a failure", conveyor.Permanent(errBoom), false, conveyor.StateFailed, "work"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("work", driverOf(always(conveyor.Done(), c.work)))
				e.driver("more", new(recorder))
				undo := recording(always(conveyor.Done(), errBoom))
				tell := new(recorder)
				e.driver("undo", undo)
				e.driver("tell", tell)
				e.save(withCleanup(func(p *conveyor.PipelineSpec) { p.Finally[0].ContinueOnError = c.tolerant }))
				run := e.finish(object("x", nil))
				require.Equal(t, c.state, run.State)
				require.Len(t, undo.all(), 3, "with its retries")
				require.Len(t, tell.all(), 1)
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
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("work", driverOf(taking(time.Hour)))
				e.driver("more", new(recorder))
				var cause error
				e.driver("undo", driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					res, err := taking(time.Hour)(ctx, req)
					cause = context.Cause(ctx)
					return res, err
				}))
				tell := new(recorder)
				e.driver("tell", tell)
				e.save(withCleanup(func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(time.Minute) }))
				run := e.apply(object("x", nil))
				time.Sleep(time.Second)
				require.NoError(t, e.Cancel(t.Context(), run.ID, "once"))
				synctest.Wait()
				began := time.Now()
				if c.cancel {
					time.Sleep(10 * time.Second)
					require.NoError(t, e.Cancel(t.Context(), run.ID, "twice"))
				}
				run = e.ended(run.ID)
				require.Equal(t, conveyor.StateCanceled, run.State)
				require.ErrorIs(t, cause, c.cause)
				require.Equal(t, c.lasts, time.Since(began))
				require.Empty(t, tell.all())
			})
		})
	}
}

func TestRule15FinallyGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		work := recording(always(conveyor.Done(), conveyor.Permanent(errBoom)))
		e.driver("work", work)
		e.driver("more", new(recorder))
		e.driver("undo", driverOf(taking(time.Hour)))
		e.save(withCleanup(nil))
		run := e.apply(object("x", nil))
		synctest.Wait()
		e = e.crashed(conveyor.Options{})
		undo, tell := new(recorder), new(recorder)
		e.driver("work", work)
		e.driver("undo", undo)
		e.driver("tell", tell)
		e.start()
		run = e.ended(run.ID)
		require.Equal(t, conveyor.StateFailed, run.State)
		require.Len(t, work.all(), 1)
		require.True(t, undo.last().Resumed)
		require.Len(t, tell.all(), 1)
		require.Equal(t, "work", stepError(t, run).Step)
	})
}
