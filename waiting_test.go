package conveyor_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// approval awaits "go" and then says what it got.
func approval(timeout time.Duration) driverFunc {
	return func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		var who string
		ok, err := req.Signal(&who)
		if err != nil {
			return conveyor.Halt("nobody answered"), nil
		}
		if !ok {
			return conveyor.Await("go", timeout), nil
		}
		return conveyor.DoneWith(who), nil
	}
}

func TestRule10SignalWakesTheStepThatAwaitsIt(t *testing.T) {
	for _, c := range []struct {
		name   string
		early  bool
		crash  bool
		resume bool
	}{
		{"sent while it waits", false, false, false},
		{"sent before", true, false, false},
		{"sent while it waits, after a restart", false, true, false},
		{"sent before, taken after a restart", true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := conveyor.Options{}
				e := newEngine(t, opts).start()
				ask := recording(approval(0))
				drivers := func() {
					e.driver("before", driverOf(taking(time.Minute)))
					e.driver("ask", ask)
				}
				drivers()
				e.pipeline("before", "ask")
				run := e.apply(object("x", nil))
				if !c.early {
					time.Sleep(2 * time.Minute)
					waiting := e.run(run.ID)
					require.Equal(t, conveyor.StateWaiting, waiting.State)
					require.Equal(t, "go", waiting.Steps[1].Awaiting)
					require.Equal(t, "step 2: waits for signal go", waiting.Reason)
					require.True(t, waiting.Steps[1].Due.IsZero())
				}
				if c.crash && !c.resume {
					e = e.crashed(opts)
					drivers()
					e.start()
					time.Sleep(time.Hour)
				}
				require.NoError(t, e.Signal(t.Context(), run.ID, "other", nil), "nobody awaits it")
				require.NoError(t, e.Signal(t.Context(), run.ID, "go", "ann"))
				if c.early {
					require.NoError(t, e.Signal(t.Context(), run.ID, "go", "bob"), "one too many")
				}
				if c.resume {
					e = e.crashed(opts)
					drivers()
					e.start()
				}
				run = e.ended(run.ID)
				require.NoError(t, run.Err())
				step := run.Steps[1]
				require.JSONEq(t, `"ann"`, string(step.Output))
				require.Equal(t, 1, step.Attempt, "waiting uses no attempt")
				require.Len(t, step.Waits, 1)
				require.False(t, step.Waits[0].TimedOut)
				require.False(t, step.Waits[0].To.IsZero())
				require.Len(t, ask.all(), 2)
				require.ErrorIs(t, e.Signal(t.Context(), run.ID, "go", nil), conveyor.ErrConflict, "it has ended")
			})
		})
	}
}

func TestRule10AwaitTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("ask", driverOf(approval(time.Hour)))
		e.pipeline("ask")
		run := e.finish(object("x", nil))
		require.Equal(t, "nobody answered", run.Reason)
		require.Equal(t, []conveyor.Wait{{Signal: "go", From: run.StartedAt, To: run.StartedAt.Add(time.Hour), TimedOut: true}}, run.Steps[0].Waits)
		require.Equal(t, 1, run.Steps[0].Attempt)
	})
}

func TestRule10SignalIsSeenAgainByARepeatedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		fails := 1
		e.driver("ask", driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			res, err := approval(0)(ctx, req)
			var who string
			if ok, _ := req.Signal(&who); ok && fails > 0 {
				fails--
				return conveyor.Result{}, errBoom
			}
			return res, err
		}))
		e.pipeline("ask")
		run := e.apply(object("x", nil))
		require.NoError(t, e.Signal(t.Context(), run.ID, "go", "ann"))
		run = e.ended(run.ID)
		require.NoError(t, run.Err())
		require.JSONEq(t, `"ann"`, string(run.Steps[0].Output))
		require.Equal(t, 2, run.Steps[0].Attempt)
	})
}

func TestRule10SignalInOrderAndEachOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		var got []string
		e.driver("collect", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var word string
			if ok, _ := req.Signal(&word); ok {
				got = append(got, word)
			}
			if len(got) == 3 {
				return conveyor.Done(), nil
			}
			return conveyor.Await("word", 0), nil
		}))
		e.driver("before", driverOf(taking(time.Minute))) // in which all of them are sent
		e.pipeline("before", "collect")
		run := e.apply(object("x", nil))
		for _, word := range []string{"a", "b", "c", "d"} {
			require.NoError(t, e.Signal(t.Context(), run.ID, "word", word))
		}
		require.NoError(t, e.ended(run.ID).Err())
		require.Equal(t, []string{"a", "b", "c"}, got)
	})
}

// TestSignalThatWasTakenBeforeItWasLookedForIsUnknown has the store lose the answer to a signal's commit, and the step
// take the signal before the engine looks whether it is there.
func TestSignalThatWasTakenBeforeItWasLookedForIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &amnesiac{Store: memory.New()}
		e := newEngineOn(t, st, conveyor.Options{}).start()
		d := recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Step.ID == "1" {
				return taking(time.Minute)(ctx, req)
			}
			return awaiting(0)(ctx, req)
		})
		e.driver("d", d)
		e.pipeline("d", "d")
		run := e.apply(object("x", 1))
		require.ErrorIs(t, e.Signal(t.Context(), run.ID, "go", "it came"), store.ErrUnknown)
		run = e.ended(run.ID)
		require.Equal(t, `"it came"`, string(run.Steps[1].Output))
	})
}

// amnesiac is a store that takes an hour to answer a commit that puts a signal on record, and then does not know.
type amnesiac struct{ store.Store }

func (f *amnesiac) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	rev, err := f.Store.Commit(ctx, ops...)
	if err == nil && slices.ContainsFunc(ops, func(op store.Op) bool { return strings.HasPrefix(op.Key(), "sig/") && op.Conditional() }) {
		time.Sleep(time.Hour)
		return 0, store.ErrUnknown
	}
	return rev, err
}

func TestRule17SignalRefusesBadInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Limits: conveyor.Limits{Output: 10}}).start()
		e.driver("ask", driverOf(approval(0)))
		e.driver("bad", driverOf(always(conveyor.Await("a/b", 0), nil)))
		e.pipeline("ask", "bad")
		run := e.apply(object("x", nil))
		before := dump(t, e.store)
		ctx := t.Context()
		require.ErrorIs(t, e.Signal(ctx, run.ID, "", nil), conveyor.ErrInvalid)
		require.ErrorIs(t, e.Signal(ctx, run.ID, "a b", nil), conveyor.ErrInvalid)
		require.ErrorIs(t, e.Signal(ctx, "no-such-run", "go", nil), conveyor.ErrNotFound)
		require.ErrorIs(t, e.Signal(ctx, "a/b", "go", nil), conveyor.ErrNotFound)
		require.ErrorIs(t, e.Signal(ctx, run.ID, "go", func() {}), conveyor.ErrInvalid)
		require.ErrorIs(t, e.Signal(ctx, run.ID, "go", strings.Repeat("x", 9)), conveyor.ErrTooLarge)
		synctest.Wait()
		require.Equal(t, len(before), len(dump(t, e.store)))
		require.NoError(t, e.Signal(ctx, run.ID, "go", strings.Repeat("x", 8)))
		run = e.ended(run.ID)
		require.ErrorIs(t, run.Err(), conveyor.ErrInvalid)
		require.Equal(t, "2", stepError(t, run).Step)
	})
}

func TestRule10AwaitingRunsHoldNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("ask", driverOf(approval(time.Hour)))
		e.pipeline("ask")
		synctest.Wait()
		before := runtime.NumGoroutine()
		for i := range 2_000 {
			e.apply(object("x"+string(rune('a'+i%26))+strings.Repeat("y", i/26), nil))
		}
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), before+10, "of 2,000 runs; the runtime has some of its own, now and then")
	})
}

func TestCheckpointIsGivenBackAfterACrashAndARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{}
		e := newEngine(t, opts).start()
		var began []int
		copyFiles := driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var next int
			if _, err := req.Restore(&next); err != nil {
				return conveyor.Result{}, err
			}
			began = append(began, next)
			for ; next < 10; next++ {
				if _, err := taking(time.Minute)(ctx, req); err != nil {
					return conveyor.Result{}, err
				}
				if err := req.Checkpoint(ctx, next+1); err != nil {
					return conveyor.Result{}, err
				}
				if next == 6 && req.Attempt == 1 {
					return conveyor.Result{}, errBoom
				}
			}
			return conveyor.Done(), nil
		})
		e.driver("copy", copyFiles)
		e.pipeline("copy", "copy")
		run := e.apply(object("x", nil))
		time.Sleep(3*time.Minute + time.Second)
		e = e.crashed(opts)
		e.driver("copy", copyFiles)
		e.start()
		require.NoError(t, e.ended(run.ID).Err())
		require.Equal(t, []int{0, 3, 7, 0, 7}, began, "from where it was; and the second step from its own beginning")
	})
}

func TestCheckpointOfACallThatWasGivenUpIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{StepTimeout: time.Second, Retry: conveyor.RetryPolicy{MaxAttempts: 1}, Limits: conveyor.Limits{Output: 10}}).start()
		late := make(chan error, 1)
		e.driver("deaf", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			require.ErrorIs(t, req.Checkpoint(t.Context(), strings.Repeat("x", 9)), conveyor.ErrTooLarge)
			require.ErrorIs(t, req.Checkpoint(t.Context(), func() {}), conveyor.ErrInvalid)
			require.NoError(t, req.Checkpoint(t.Context(), 1))
			time.Sleep(time.Minute)
			late <- req.Checkpoint(t.Context(), 2)
			return conveyor.Done(), nil
		}))
		e.pipeline("deaf")
		require.ErrorIs(t, e.finish(object("x", nil)).Err(), conveyor.ErrTimeout)
		require.ErrorIs(t, <-late, conveyor.ErrConflict)
	})
}

func TestRule10AHundredThousandWaitingRunsNeedNoGoroutineAndOneKilobyteEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 100_000
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("ask", driverOf(always(conveyor.Await("go", 0), nil)))
		e.driver("later", driverOf(always(conveyor.RequeueAfter(24*time.Hour), nil)))
		e.pipeline("ask")
		e.save(named("q", pipelineOf("later")))
		synctest.Wait()
		few := runtime.NumGoroutine() + 5
		for i := range many {
			e.apply(along([]string{"p", "q"}[i%2], fmt.Sprint("some-resource-", i)))
		}
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), few)
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[conveyor.State]int{conveyor.StateWaiting: many}, st.Runs)

		with := heapInUse()
		e.stop()
		idle, err := conveyor.New(memory.New(), conveyor.Options{})
		require.NoError(t, err)
		e.Engine = idle // which lets go of the one that waits, and not of the records
		each := (int64(with) - int64(heapInUse())) / many
		t.Logf("%d bytes of heap for each run", each)
		require.Positive(t, each)
		require.LessOrEqual(t, each, int64(1<<10))
		require.NotEmpty(t, dump(t, e.store.Store))
	})
}

// heapInUse is the memory that is reachable.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held on to
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
