package features_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

func TestRule08RunEndsOnceWhateverWakesItAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("a line")
			return conveyor.Done(), nil
		}))
		e.Pipeline("d")
		e.Finish(rig.Object("x", nil))
		before := rig.Dump(t, e.Store)
		time.Sleep(time.Minute)
		require.Equal(t, before, rig.Dump(t, e.Store))
	})
}

func TestRule10AwaitWithoutTimeoutHidesNoOtherDueTime(t *testing.T) {
	t.Run("the time of the run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{}).MustStart()
			e.Driver("ask", rig.DriverOf(rig.Approval(0)))
			p := rig.PipelineOf("ask")
			p.Timeout = conveyor.Duration(time.Minute)
			e.Save(p)
			run := e.MustApply(rig.Object("x", nil))
			time.Sleep(2 * time.Minute)
			require.ErrorIs(t, e.MustGetRun(run.ID).Err(), conveyor.ErrTimeout)
		})
	})
	t.Run("a retry beside it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{}).MustStart()
			flaky := rig.Recording(rig.InTurn(rig.Always(conveyor.Done(), rig.ErrBoom), rig.Always(conveyor.Done(), nil)))
			e.Driver("flaky", flaky)
			e.Driver("ask", rig.DriverOf(rig.Approval(0)))
			e.Driver("d", new(rig.Recorder))
			e.Save(conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{
				{ID: "flaky", Driver: "flaky"}, {ID: "ask", Driver: "ask"}, {ID: "end", Driver: "d", After: []string{"flaky", "ask"}},
			}})
			e.MustApply(rig.Object("x", nil))
			time.Sleep(time.Minute)
			require.Equal(t, []string{"flaky", "flaky/2"}, flaky.Steps())
		})
	})
}

func TestRule09RunThatNeverCameToBeLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		free := make(chan struct{})
		e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			<-free
			return conveyor.Done(), nil
		}), conveyor.Concurrency(1))
		e.Pipeline("d")
		first := e.MustApply(rig.Object("x", nil))
		synctest.Wait()
		e.Store.Refusing(func([]string) error {
			e.Store.Refusing(nil)
			close(free) // so that the run that is about to come gets the slot it wants
			synctest.Wait()
			return rig.ErrBoom
		})
		_, err := e.Apply(t.Context(), rig.Object("y", nil))
		require.ErrorIs(t, err, rig.ErrBoom)
		synctest.Wait()
		require.Equal(t, first.ID, rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{}))[0].ID)
		require.Len(t, rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{})), 1)
		stats, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, stats.Unfinished)
		require.Zero(t, stats.Busy)
		require.Zero(t, stats.Slots["d"].Busy)
		require.NoError(t, e.Finish(rig.Object("y", nil)).Err())
	})
}

func TestRule10SignalTakenByNobodyBeforeACrashIsDeliveredAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
		e.Driver("ask", rig.DriverOf(rig.Approval(time.Hour)))
		e.Driver("busy", rig.DriverOf(rig.Taking(2*time.Hour)), conveyor.Listen("s"))
		e.Pipeline("ask")
		run := e.MustApply(rig.Object("x", nil))
		time.Sleep(time.Second)
		e.MustApply(rig.Loose("s", "y", nil)) // takes the only worker
		synctest.Wait()
		require.NoError(t, e.Signal(t.Context(), run.ID, "go", "ann"))
		e = e.Crashed(conveyor.Options{})
		e.Driver("ask", rig.DriverOf(rig.Approval(time.Hour)))
		e.MustStart()
		time.Sleep(time.Minute)
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State)
	})
}

func TestRule12AttemptsOfARunThatEndsWhileItRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom))))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("x", nil))
		time.AfterFunc(time.Minute, func() { require.NoError(t, e.Cancel(context.Background(), run.ID, "")) })
		run = e.Ended(run.ID)
		require.Len(t, run.Steps[0].Attempts, 1)
		require.Equal(t, e.MustGetRun(run.ID), run)
	})
}

func TestRule15CleanupThatRunsOutOfTimeIsAFailure(t *testing.T) {
	for _, c := range []struct {
		name string
		undo rig.Func
	}{
		{"under way", rig.Taking(time.Hour)},
		{"waiting for its next attempt", rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom))},
		{"waiting for a signal", rig.Approval(0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					e := rig.New(t, conveyor.Options{}).MustStart()
					e.Driver("work", new(rig.Recorder))
					e.Driver("more", new(rig.Recorder))
					e.Driver("undo", rig.DriverOf(c.undo))
					e.Driver("tell", new(rig.Recorder))
					e.Save(withCleanup(func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(time.Minute) }))
					run := e.MustApply(rig.Object("x", nil))
					time.Sleep(2 * time.Minute)
					run = e.MustGetRun(run.ID)
					require.Equal(t, conveyor.StateFailed, run.State, "%s", run.Reason)
					require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				})
			}
		})
	}
}

func TestRule11StepIsBlockedNoLongerThanItsDriverIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Pipeline("late")
		first, second := e.MustApply(rig.Object("x", nil)), e.MustApply(rig.Object("y", nil))
		synctest.Wait()
		require.Equal(t, conveyor.StateBlocked, e.MustGetRun(first.ID).State)
		require.Equal(t, conveyor.StateBlocked, e.MustGetRun(second.ID).State)
		e.Driver("late", rig.DriverOf(rig.Taking(time.Hour)), conveyor.Concurrency(1))
		time.Sleep(time.Minute)
		states := []conveyor.State{e.MustGetRun(first.ID).Steps[0].State, e.MustGetRun(second.ID).Steps[0].State}
		require.ElementsMatch(t, []conveyor.State{conveyor.StateRunning, conveyor.StateQueued}, states)
		require.NoError(t, e.Ended(first.ID).Err())
		require.NoError(t, e.Ended(second.ID).Err())
	})
}

func TestRule16ShutdownWaitsForACallThatWasGivenUpAndNamesIt(t *testing.T) {
	for _, c := range []struct {
		name  string
		lasts time.Duration // of a call that is given up after six seconds
		takes time.Duration // the shutdown, begun after ten
		named bool
	}{
		{"one that returns in time", 12 * time.Second, 2 * time.Second, false},
		{"one that does not", time.Hour, 5 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{StepTimeout: time.Second}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Deaf(c.lasts, conveyor.Done(), nil)))
				e.Pipeline("d")
				run := e.MustApply(rig.Object("x", nil))
				time.Sleep(10 * time.Second)
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err := e.Shutdown(ctx)
				require.LessOrEqual(t, time.Since(began), c.takes)
				if c.named {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorContains(t, err, "run "+run.ID+" step 1 (driver d, resource r/x)")
				} else {
					require.NoError(t, err)
					require.Equal(t, c.takes, time.Since(began))
				}
				time.Sleep(time.Hour) // until it has returned
			})
		})
	}
}
