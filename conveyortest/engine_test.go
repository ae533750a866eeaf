package conveyortest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/conveyortest"
	"github.com/conveyor-go/conveyor/store"
)

// stuck takes until its context ends.
var stuck = conveyor.DriverFunc(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
	<-ctx.Done()
	return conveyor.Done(), context.Cause(ctx)
})

func TestNewEngineIsStartedAndShutDownWithTheTest(t *testing.T) {
	var kept *conveyortest.Engine
	t.Run("without a bubble", func(t *testing.T) {
		kept = conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"cloner": Cloner{}})
		save(t, kept, "cloner")
		conveyortest.AssertRun(t, kept.Finish(app()), conveyor.StateSucceeded)
	})
	_, err := kept.Apply(t.Context(), app())
	require.ErrorIs(t, err, conveyor.ErrClosed)
}

func TestNewFailsTheTestWithWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name    string
		opts    conveyor.Options
		drivers conveyortest.Drivers
		want    string
	}{
		{"a bad option", conveyor.Options{Workers: -1}, nil, "Workers: -1 is not between"},
		{"a bad name", conveyor.Options{}, conveyortest.Drivers{"a b": nil}, `register a b: conveyor: invalid: driver: "a b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			said := during(func(t testing.TB) { conveyortest.New(t, c.opts, c.drivers) })
			require.Len(t, said, 1)
			require.Contains(t, said[0], c.want)
		})
	}
}

func TestADriverThatDoesNotReturnFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		said := during(func(t testing.TB) {
			e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{
				"deaf": conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					<-release
					return conveyor.Done(), nil
				}),
			})
			require.NoError(t, e.SavePipeline(t.Context(), conveyor.PipelineSpec{
				Name: "ci", Resource: "build", Steps: []conveyor.Step{{Driver: "deaf"}},
			}))
			_, err := e.Apply(t.Context(), app())
			require.NoError(t, err)
			synctest.Wait()
		})
		close(release)
		require.Len(t, said, 1)
		require.Contains(t, said[0], "deaf")
	})
}

func TestFinishFailsTheTestWithTheError(t *testing.T) {
	said := during(func(t testing.TB) {
		conveyortest.New(t, conveyor.Options{}, nil).Finish(app())
	})
	require.Equal(t, []string{`conveyortest: finish: resource build/app: conveyor: not found: pipeline "ci"`}, said)
}

func TestFinishFailsTheTestWhenTheRunIsBlocked(t *testing.T) {
	said := during(func(t testing.TB) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"cloner": Cloner{}})
		save(t, e, "cloner", "tetser")
		e.Finish(app())
	})
	require.Len(t, said, 1)
	require.Regexp(t, `^conveyortest: finish: run \S+ of build/app is blocked: .*tetser`, said[0])
}

func TestACrashThatTheShutdownReachesIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e *conveyortest.Engine
		t.Cleanup(func() { require.True(t, e.Crashed()) }) // after the shutdown
		e = conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"pusher": stuck})
		save(t, e, "pusher")
		_, err := e.Apply(t.Context(), app())
		require.NoError(t, err)
		synctest.Wait()
		e.CrashAt(1) // at the commit of the interruption
	})
}

func TestRegisterTakesOptionsAndRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := conveyortest.New(t, conveyor.Options{}, nil)
		require.NoError(t, e.Register("cloner", Cloner{}, conveyor.Listen("build")))
		require.ErrorIs(t, e.Register("cloner", Cloner{}), conveyor.ErrExists)
		require.ErrorIs(t, e.Register("nothing", nil), conveyor.ErrInvalid)
		build := app()
		build.Pipeline = ""
		run := e.Finish(build)
		conveyortest.AssertRun(t, run, conveyor.StateSucceeded, conveyor.StateSucceeded)
		conveyortest.AssertCalls(t, e.Calls(), "cloner")
	})
}

// TestADriverIsCalledAgainAfterACrashAtAnyCommit is what a user would write, and holds for every commit.
func TestADriverIsCalledAgainAfterACrashAtAnyCommit(t *testing.T) {
	var crashes [][]string // the calls of both lives, by the commit
	for n, again := 1, true; again; n++ {
		synctest.Test(t, func(t *testing.T) {
			drivers := conveyortest.Drivers{"cloner": Cloner{}, "tester": nil, "pusher": nil}
			e := conveyortest.New(t, conveyor.Options{}, drivers)
			save(t, e, "cloner", "tester", "pusher")
			e.CrashAt(n)
			run := e.Finish(app())
			require.Equal(t, run == nil, e.Crashed())
			if again = e.Crashed(); !again {
				conveyortest.AssertCalls(t, e.Calls(), "cloner", "tester", "pusher")
				return
			}
			before := e.Calls()
			_, err := e.Apply(t.Context(), app())
			require.Error(t, err)
			require.Equal(t, before, e.Calls())
			e = e.Reopen(drivers)
			run = e.Finish(app())
			conveyortest.AssertRun(t, run, conveyor.StateSucceeded, conveyor.StateSucceeded, conveyor.StateSucceeded, conveyor.StateSucceeded)
			conveyortest.AssertOutput(t, run, "1", "/src/app")
			var both []string
			for _, c := range append(before, e.Calls()...) {
				both = append(both, c.String())
			}
			crashes = append(crashes, both)
		})
	}
	require.Equal(t, [][]string{
		{"cloner", "tester", "pusher"}, // nothing was applied
		{"cloner", "cloner resumed", "tester", "pusher"},
		{"cloner", "tester", "tester resumed", "pusher"},
		{"cloner", "tester", "pusher", "pusher resumed"},
	}, crashes)
}

func TestACallKeepsItsKeyOverACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"pusher": stuck})
		save(t, e, "pusher")
		_, err := e.Apply(t.Context(), app())
		require.NoError(t, err)
		synctest.Wait()
		old := e
		e.Crash()
		e.Crash() // twice is fine
		e = e.Reopen(conveyortest.Drivers{"pusher": nil})
		conveyortest.AssertRun(t, e.Finish(app()), conveyor.StateSucceeded)
		conveyortest.AssertCalls(t, old.Calls(), "pusher")
		conveyortest.AssertCalls(t, e.Calls(), "pusher resumed")
		require.ErrorIs(t, old.Calls()[0].Err, conveyor.ErrShutdown)
		require.Equal(t, old.Calls()[0].Key, e.Calls()[0].Key)
		_, err = old.Get(t.Context(), app().Key())
		require.ErrorIs(t, err, store.ErrClosed)
	})
}

func TestReopenWaitsForCallsThatTheCrashCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{
			"slow": conveyor.DriverFunc(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
				<-ctx.Done()
				time.Sleep(500 * time.Millisecond) // it cleans up
				return conveyor.Done(), nil
			}),
		})
		save(t, e, "slow")
		_, err := e.Apply(t.Context(), app())
		require.NoError(t, err)
		synctest.Wait()
		old, began := e, time.Now()
		e = e.Reopen(nil)
		require.Equal(t, 500*time.Millisecond, time.Since(began))
		require.Equal(t, time.Now(), old.Calls()[0].Ended)
	})
}

func TestADriverMayCrashItsEngine(t *testing.T) {
	for _, bubble := range []bool{true, false} {
		t.Run(fmt.Sprintf("bubble %t", bubble), func(t *testing.T) {
			test := func(t *testing.T) {
				var e *conveyortest.Engine
				e = conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{
					"cloner": conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
						e.Crash()
						return conveyor.Done(), nil
					}),
				})
				save(t, e, "cloner")
				require.Nil(t, e.Finish(app()))
				e = e.Reopen(conveyortest.Drivers{"cloner": nil})
				conveyortest.AssertRun(t, e.Finish(app()), conveyor.StateSucceeded)
				conveyortest.AssertCalls(t, e.Calls(), "cloner resumed")
			}
			if bubble {
				synctest.Test(t, test)
			} else {
				test(t)
			}
		})
	}
}

func TestReopenWithoutACrashCrashesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"cloner": conveyortest.Return(conveyor.RequeueAfter(time.Hour), nil)})
		save(t, e, "cloner")
		run, err := e.Apply(t.Context(), app())
		require.NoError(t, err)
		synctest.Wait()
		old := e
		e = e.Reopen(conveyortest.Drivers{"cloner": nil})
		require.True(t, old.Crashed())
		began := time.Now()
		run, err = e.Wait(t.Context(), run.ID)
		require.NoError(t, err)
		conveyortest.AssertRun(t, run, conveyor.StateSucceeded)
		require.Equal(t, time.Hour, time.Since(began).Round(time.Minute))
	})
}

func TestReopenAfterAShutdownIsAnOrderlyRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"cloner": Cloner{}})
		save(t, e, "cloner")
		first := e.Finish(app())
		require.NoError(t, e.Shutdown(t.Context()))
		e = e.Reopen(nil)
		require.Equal(t, first.ID, e.Finish(app()).ID)
		conveyortest.AssertCalls(t, e.Calls())
	})
}

func TestRecorderKeepsWhatACallWasMadeWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		e := conveyortest.New(t, conveyor.Options{Retry: conveyor.RetryPolicy{Jitter: -1}}, conveyortest.Drivers{
			"cloner": conveyortest.InTurn(conveyortest.Return(conveyor.Done(), boom), Cloner{}),
		})
		require.NoError(t, e.SavePipeline(t.Context(), conveyor.PipelineSpec{
			Name: "ci", Resource: "build", Steps: []conveyor.Step{{ID: "clone", Driver: "cloner", With: []byte(`{"depth":1}`)}},
		}))
		began := time.Now()
		run := e.Finish(app())
		conveyortest.AssertRun(t, run, conveyor.StateSucceeded)
		calls := e.Calls()
		require.Len(t, calls, 2)
		want := conveyortest.Call{
			Driver: "cloner", Step: "clone", Resource: app().Key(), Generation: 1, Spec: calls[0].Spec,
			Settings: []byte(`{"depth":1}`), Run: run.ID, Cause: conveyor.CauseCreated, Attempt: 1,
			Key: run.ResourceID + "/" + run.ID + "/clone", Err: boom, Began: began, Ended: began,
		}
		require.JSONEq(t, `{"repository":"https://example.com/app.git"}`, string(want.Spec))
		require.Equal(t, want, calls[0])
		want.Attempt, want.Result, want.Err = 2, conveyor.DoneWith("/src/app"), nil
		want.Began, want.Ended = began.Add(time.Second), began.Add(time.Second)
		require.Equal(t, want, calls[1])
	})
}

// undoer is a driver that can be asked to undo.
type undoer struct{ Cloner }

func (undoer) Finalize(context.Context, *conveyor.Request) (conveyor.Result, error) {
	return conveyor.Done(), nil
}

func TestRecorderSeesFinalizersAndPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{
			"undoer": undoer{}, "tester": nil,
			"panicky": conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("at the disco") }),
		})
		save(t, e, "undoer", "tester", "panicky")
		run := e.Finish(app())
		conveyortest.AssertRun(t, run, conveyor.StateFailed, conveyor.StateSucceeded, conveyor.StateSucceeded, conveyor.StateFailed)
		run, err := e.Delete(t.Context(), app().Key())
		require.NoError(t, err)
		_, err = e.Wait(t.Context(), run.ID)
		require.NoError(t, err)
		calls := e.Calls()
		conveyortest.AssertCalls(t, calls, "undoer", "tester", "panicky", "panicky/2", "panicky/3", "undoer finalize")
		require.ErrorContains(t, calls[2].Err, "panicked")
	})
}

func TestRecorderAndInTurnAreSafeForConcurrentUse(t *testing.T) {
	var r conveyortest.Recorder
	d := r.Record(conveyortest.InTurn(Cloner{}, conveyortest.Return(conveyor.Skip("not now"), nil)))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, _ = d.Reconcile(t.Context(), &conveyor.Request{Resource: new(conveyor.Object)})
			_ = r.Calls()
		})
	}
	all.Wait()
	calls := r.Calls()
	require.Len(t, calls, 50)
	clones := slices.DeleteFunc(calls, func(c conveyortest.Call) bool { return c.Result != conveyor.DoneWith("/src/app") })
	require.Len(t, clones, 1)
}
