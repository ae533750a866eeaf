package conveyor_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

func TestRule08RunEndsOnceWhateverWakesItAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("a line")
			return conveyor.Done(), nil
		}))
		e.pipeline("d")
		e.finish(object("x", nil))
		before := dump(t, e.store)
		time.Sleep(time.Minute)
		require.Equal(t, before, dump(t, e.store))
	})
}

func TestRule10AwaitWithoutTimeoutHidesNoOtherDueTime(t *testing.T) {
	t.Run("the time of the run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, conveyor.Options{}).start()
			e.driver("ask", driverOf(approval(0)))
			p := pipelineOf("ask")
			p.Timeout = conveyor.Duration(time.Minute)
			e.save(p)
			run := e.apply(object("x", nil))
			time.Sleep(2 * time.Minute)
			require.ErrorIs(t, e.run(run.ID).Err(), conveyor.ErrTimeout)
		})
	})
	t.Run("a retry beside it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, conveyor.Options{}).start()
			flaky := recording(inTurn(always(conveyor.Done(), errBoom), always(conveyor.Done(), nil)))
			e.driver("flaky", flaky)
			e.driver("ask", driverOf(approval(0)))
			e.driver("d", new(recorder))
			e.save(conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{
				{ID: "flaky", Driver: "flaky"}, {ID: "ask", Driver: "ask"}, {ID: "end", Driver: "d", After: []string{"flaky", "ask"}},
			}})
			e.apply(object("x", nil))
			time.Sleep(time.Minute)
			require.Equal(t, []string{"flaky", "flaky/2"}, flaky.steps())
		})
	})
}

func TestRule09RunThatNeverCameToBeLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		free := make(chan struct{})
		e.driver("d", driverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			<-free
			return conveyor.Done(), nil
		}), conveyor.Concurrency(1))
		e.pipeline("d")
		first := e.apply(object("x", nil))
		synctest.Wait()
		e.store.refusing(func([]string) error {
			e.store.refusing(nil)
			close(free) // so that the run that is about to come gets the slot it wants
			synctest.Wait()
			return errBoom
		})
		_, err := e.Apply(t.Context(), object("y", nil))
		require.ErrorIs(t, err, errBoom)
		synctest.Wait()
		require.Equal(t, first.ID, drain(t, e.Runs(t.Context(), conveyor.RunFilter{}))[0].ID)
		require.Len(t, drain(t, e.Runs(t.Context(), conveyor.RunFilter{})), 1)
		stats, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, stats.Unfinished)
		require.Zero(t, stats.Busy)
		require.Zero(t, stats.Slots["d"].Busy)
		require.NoError(t, e.finish(object("y", nil)).Err())
	})
}

func TestRule10SignalTakenByNobodyBeforeACrashIsDeliveredAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Workers: 1}).start()
		e.driver("ask", driverOf(approval(time.Hour)))
		e.driver("busy", driverOf(taking(2*time.Hour)), conveyor.Listen("s"))
		e.pipeline("ask")
		run := e.apply(object("x", nil))
		time.Sleep(time.Second)
		e.apply(loose("s", "y", nil)) // takes the only worker
		synctest.Wait()
		require.NoError(t, e.Signal(t.Context(), run.ID, "go", "ann"))
		e = e.crashed(conveyor.Options{})
		e.driver("ask", driverOf(approval(time.Hour)))
		e.start()
		time.Sleep(time.Minute)
		require.Equal(t, conveyor.StateSucceeded, e.run(run.ID).State)
	})
}

func TestRule12AttemptsOfARunThatEndsWhileItRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom))))
		e.pipeline("d")
		run := e.apply(object("x", nil))
		time.AfterFunc(time.Minute, func() { require.NoError(t, e.Cancel(context.Background(), run.ID, "")) })
		run = e.ended(run.ID)
		require.Len(t, run.Steps[0].Attempts, 1)
		require.Equal(t, e.run(run.ID), run)
	})
}

func TestRule15CleanupThatRunsOutOfTimeIsAFailure(t *testing.T) {
	for _, c := range []struct {
		name string
		undo driverFunc
	}{
		{"under way", taking(time.Hour)},
		{"waiting for its next attempt", always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom))},
		{"waiting for a signal", approval(0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					e := newEngine(t, conveyor.Options{}).start()
					e.driver("work", new(recorder))
					e.driver("more", new(recorder))
					e.driver("undo", driverOf(c.undo))
					e.driver("tell", new(recorder))
					e.save(withCleanup(func(p *conveyor.PipelineSpec) { p.Timeout = conveyor.Duration(time.Minute) }))
					run := e.apply(object("x", nil))
					time.Sleep(2 * time.Minute)
					run = e.run(run.ID)
					require.Equal(t, conveyor.StateFailed, run.State, "%s", run.Reason)
					require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				})
			}
		})
	}
}

func TestRule11StepIsBlockedNoLongerThanItsDriverIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.pipeline("late")
		first, second := e.apply(object("x", nil)), e.apply(object("y", nil))
		synctest.Wait()
		require.Equal(t, conveyor.StateBlocked, e.run(first.ID).State)
		require.Equal(t, conveyor.StateBlocked, e.run(second.ID).State)
		e.driver("late", driverOf(taking(time.Hour)), conveyor.Concurrency(1))
		time.Sleep(time.Minute)
		states := []conveyor.State{e.run(first.ID).Steps[0].State, e.run(second.ID).Steps[0].State}
		require.ElementsMatch(t, []conveyor.State{conveyor.StateRunning, conveyor.StateQueued}, states)
		require.NoError(t, e.ended(first.ID).Err())
		require.NoError(t, e.ended(second.ID).Err())
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
				e := newEngine(t, conveyor.Options{StepTimeout: time.Second}).start()
				e.driver("d", driverOf(deaf(c.lasts, conveyor.Done(), nil)))
				e.pipeline("d")
				run := e.apply(object("x", nil))
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
