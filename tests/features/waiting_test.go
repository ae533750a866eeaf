package features_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

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
				e := rig.New(t, opts).MustStart()
				ask := rig.Recording(rig.Approval(0))
				drivers := func() {
					e.Driver("before", rig.DriverOf(rig.Taking(time.Minute)))
					e.Driver("ask", ask)
				}
				drivers()
				e.Pipeline("before", "ask")
				run := e.MustApply(rig.Object("x", nil))
				if !c.early {
					time.Sleep(2 * time.Minute)
					waiting := e.MustGetRun(run.ID)
					require.Equal(t, conveyor.StateWaiting, waiting.State)
					require.Equal(t, "go", waiting.Steps[1].Awaiting)
					require.Equal(t, "step 2: waits for signal go", waiting.Reason)
					require.True(t, waiting.Steps[1].Due.IsZero())
				}
				if c.crash && !c.resume {
					e = e.Crashed(opts)
					drivers()
					e.MustStart()
					time.Sleep(time.Hour)
				}
				require.NoError(t, e.Signal(t.Context(), run.ID, "other", nil), "nobody awaits it")
				require.NoError(t, e.Signal(t.Context(), run.ID, "go", "ann"))
				if c.early {
					require.NoError(t, e.Signal(t.Context(), run.ID, "go", "bob"), "one too many")
				}
				if c.resume {
					e = e.Crashed(opts)
					drivers()
					e.MustStart()
				}
				run = e.Ended(run.ID)
				require.NoError(t, run.Err())
				step := run.Steps[1]
				require.JSONEq(t, `"ann"`, string(step.Output))
				require.Equal(t, 1, step.Attempt, "waiting uses no attempt")
				require.Len(t, step.Waits, 1)
				require.False(t, step.Waits[0].TimedOut)
				require.False(t, step.Waits[0].To.IsZero())
				require.Len(t, ask.All(), 2)
				require.ErrorIs(t, e.Signal(t.Context(), run.ID, "go", nil), conveyor.ErrConflict, "it has ended")
			})
		})
	}
}

func TestRule10AwaitTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("ask", rig.DriverOf(rig.Approval(time.Hour)))
		e.Pipeline("ask")
		run := e.Finish(rig.Object("x", nil))
		require.Equal(t, "nobody answered", run.Reason)
		require.Equal(t, []conveyor.Wait{{Signal: "go", From: run.StartedAt, To: run.StartedAt.Add(time.Hour), TimedOut: true}}, run.Steps[0].Waits)
		require.Equal(t, 1, run.Steps[0].Attempt)
	})
}

func TestRule10SignalIsSeenAgainByARepeatedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		fails := 1
		e.Driver("ask", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			res, err := rig.Approval(0)(ctx, req)
			var who string
			if ok, _ := req.Signal(&who); ok && fails > 0 {
				fails--
				return conveyor.Result{}, rig.ErrBoom
			}
			return res, err
		}))
		e.Pipeline("ask")
		run := e.MustApply(rig.Object("x", nil))
		require.NoError(t, e.Signal(t.Context(), run.ID, "go", "ann"))
		run = e.Ended(run.ID)
		require.NoError(t, run.Err())
		require.JSONEq(t, `"ann"`, string(run.Steps[0].Output))
		require.Equal(t, 2, run.Steps[0].Attempt)
	})
}

func TestRule10SignalInOrderAndEachOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		var got []string
		e.Driver("collect", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var word string
			if ok, _ := req.Signal(&word); ok {
				got = append(got, word)
			}
			if len(got) == 3 {
				return conveyor.Done(), nil
			}
			return conveyor.Await("word", 0), nil
		}))
		e.Driver("before", rig.DriverOf(rig.Taking(time.Minute))) // in which all of them are sent
		e.Pipeline("before", "collect")
		run := e.MustApply(rig.Object("x", nil))
		for _, word := range []string{"a", "b", "c", "d"} {
			require.NoError(t, e.Signal(t.Context(), run.ID, "word", word))
		}
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, []string{"a", "b", "c"}, got)
	})
}

// TestSignalThatWasTakenBeforeItWasLookedForIsUnknown has the store lose the answer to a signal's commit, and the step
// take the signal before the engine looks whether it is there.
func TestSignalThatWasTakenBeforeItWasLookedForIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &amnesiac{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		d := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Step.ID == "1" {
				return rig.Taking(time.Minute)(ctx, req)
			}
			return rig.Awaiting(0)(ctx, req)
		})
		e.Driver("d", d)
		e.Pipeline("d", "d")
		run := e.MustApply(rig.Object("x", 1))
		require.ErrorIs(t, e.Signal(t.Context(), run.ID, "go", "it came"), store.ErrUnknown)
		run = e.Ended(run.ID)
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
		e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Output: 10}}).MustStart()
		e.Driver("ask", rig.DriverOf(rig.Approval(0)))
		e.Driver("bad", rig.DriverOf(rig.Always(conveyor.Await("a/b", 0), nil)))
		e.Pipeline("ask", "bad")
		run := e.MustApply(rig.Object("x", nil))
		before := rig.Dump(t, e.Store)
		ctx := t.Context()
		require.ErrorIs(t, e.Signal(ctx, run.ID, "", nil), conveyor.ErrInvalid)
		require.ErrorIs(t, e.Signal(ctx, run.ID, "a b", nil), conveyor.ErrInvalid)
		require.ErrorIs(t, e.Signal(ctx, "no-such-run", "go", nil), conveyor.ErrNotFound)
		require.ErrorIs(t, e.Signal(ctx, "a/b", "go", nil), conveyor.ErrNotFound)
		require.ErrorIs(t, e.Signal(ctx, run.ID, "go", func() {}), conveyor.ErrInvalid)
		require.ErrorIs(t, e.Signal(ctx, run.ID, "go", strings.Repeat("x", 9)), conveyor.ErrTooLarge)
		synctest.Wait()
		require.Equal(t, len(before), len(rig.Dump(t, e.Store)))
		require.NoError(t, e.Signal(ctx, run.ID, "go", strings.Repeat("x", 8)))
		run = e.Ended(run.ID)
		require.ErrorIs(t, run.Err(), conveyor.ErrInvalid)
		require.Equal(t, "2", stepError(t, run).Step)
	})
}

func TestRule10AwaitingRunsHoldNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("ask", rig.DriverOf(rig.Approval(time.Hour)))
		e.Pipeline("ask")
		synctest.Wait()
		before := runtime.NumGoroutine()
		for i := range 2_000 {
			e.MustApply(rig.Object("x"+string(rune('a'+i%26))+strings.Repeat("y", i/26), nil))
		}
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), before+10, "of 2,000 runs; the runtime has some of its own, now and then")
	})
}

func TestCheckpointIsGivenBackAfterACrashAndARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{}
		e := rig.New(t, opts).MustStart()
		var began []int
		copyFiles := rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var next int
			if _, err := req.Restore(&next); err != nil {
				return conveyor.Result{}, err
			}
			began = append(began, next)
			for ; next < 10; next++ {
				if _, err := rig.Taking(time.Minute)(ctx, req); err != nil {
					return conveyor.Result{}, err
				}
				if err := req.Checkpoint(ctx, next+1); err != nil {
					return conveyor.Result{}, err
				}
				if next == 6 && req.Attempt == 1 {
					return conveyor.Result{}, rig.ErrBoom
				}
			}
			return conveyor.Done(), nil
		})
		e.Driver("copy", copyFiles)
		e.Pipeline("copy", "copy")
		run := e.MustApply(rig.Object("x", nil))
		time.Sleep(3*time.Minute + time.Second)
		e = e.Crashed(opts)
		e.Driver("copy", copyFiles)
		e.MustStart()
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, []int{0, 3, 7, 0, 7}, began, "from where it was; and the second step from its own beginning")
	})
}

func TestCheckpointOfACallThatWasGivenUpIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{StepTimeout: time.Second, Retry: conveyor.RetryPolicy{MaxAttempts: 1}, Limits: conveyor.Limits{Output: 10}}).MustStart()
		late := make(chan error, 1)
		e.Driver("deaf", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			require.ErrorIs(t, req.Checkpoint(t.Context(), strings.Repeat("x", 9)), conveyor.ErrTooLarge)
			require.ErrorIs(t, req.Checkpoint(t.Context(), func() {}), conveyor.ErrInvalid)
			require.NoError(t, req.Checkpoint(t.Context(), 1))
			time.Sleep(time.Minute)
			late <- req.Checkpoint(t.Context(), 2)
			return conveyor.Done(), nil
		}))
		e.Pipeline("deaf")
		require.ErrorIs(t, e.Finish(rig.Object("x", nil)).Err(), conveyor.ErrTimeout)
		require.ErrorIs(t, <-late, conveyor.ErrConflict)
	})
}

func TestRule10WaitingRunsNeedNoGoroutineAndOneKilobyteEach(t *testing.T) {
	many := testenv.Some(t, 20_000, 100_000)
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("ask", rig.DriverOf(rig.Always(conveyor.Await("go", 0), nil)))
		e.Driver("later", rig.DriverOf(rig.Always(conveyor.RequeueAfter(24*time.Hour), nil)))
		e.Pipeline("ask")
		e.Save(rig.Named("q", rig.PipelineOf("later")))
		synctest.Wait()
		few := runtime.NumGoroutine() + 5
		for i := range many {
			e.MustApply(rig.Along([]string{"p", "q"}[i%2], fmt.Sprint("some-resource-", i)))
		}
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), few)
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[conveyor.State]int{conveyor.StateWaiting: many}, st.Runs)

		with := rig.HeapInUse()
		e.Stop()
		idle, err := conveyor.New(memory.New(), conveyor.Options{})
		require.NoError(t, err)
		e.Engine = idle // which lets go of the one that waits, and not of the records
		each := (int64(with) - int64(rig.HeapInUse())) / int64(many)
		t.Logf("%d bytes of heap for each run", each)
		require.Positive(t, each)
		require.LessOrEqual(t, each, int64(1<<10))
		require.NotEmpty(t, rig.Dump(t, e.Store.Store))
	})
}

// TestTheTimeoutOfARunNeedsNoWorker has the time of runs end while every worker is busy for long.
func TestTheTimeoutOfARunNeedsNoWorker(t *testing.T) {
	for _, c := range []struct {
		name string
		d    rig.Func // of the step; nil if its driver is not registered
	}{
		{"awaits a signal", rig.Always(conveyor.Await("go", 0), nil)},
		{"waits for a time", rig.Always(conveyor.RequeueAfter(time.Hour), nil)},
		{"waits for a worker", rig.Always(conveyor.RequeueAfter(30*time.Second), nil)},
		{"waits for a driver", nil},
	} {
		for _, crashed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, crashed %t", c.name, crashed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					register := func(e *rig.Engine) {
						e.Driver("busy", rig.DriverOf(rig.Taking(5*time.Hour)))
						e.Driver("clean", new(rig.Recorder))
						if c.d != nil {
							e.Driver("d", rig.DriverOf(c.d))
						}
					}
					e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
					register(e)
					p := rig.PipelineOf("d")
					p.Timeout = conveyor.Duration(time.Minute)
					e.Save(p)
					cleaned := rig.Named("q", rig.PipelineOf("d"))
					cleaned.Timeout, cleaned.Finally = conveyor.Duration(2*time.Minute), []conveyor.Step{{Driver: "clean"}}
					e.Save(cleaned)
					e.PipelineNamed("busy", "busy")
					began := time.Now()
					run := e.MustApply(rig.Object("x", 1))
					with := e.MustApply(rig.Along("q", "y"))
					time.Sleep(10 * time.Second)
					busy := e.MustApply(rig.Along("busy", "z"))
					time.Sleep(10 * time.Second)
					if crashed {
						e = e.Crashed(conveyor.Options{Workers: 1})
						register(e)
						e.MustStart()
						time.Sleep(time.Second)
						require.Equal(t, conveyor.StateRunning, e.MustGetRun(busy.ID).State)
					}
					run = e.Ended(run.ID)
					require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
					require.Equal(t, time.Minute, time.Since(began))
					require.Equal(t, conveyor.StateRunning, e.MustGetRun(busy.ID).State)
					require.ErrorIs(t, e.Ended(with.ID).Err(), conveyor.ErrTimeout, "its cleanup waits for the worker")
					require.Greater(t, time.Since(began), 5*time.Hour)
					require.NoError(t, e.Ended(busy.ID).Err())
				})
			})
		}
	}
}

// TestShutdownIsNotHeldUpByDeadlines shuts down while the deadlines of many runs have come and the store is slow.
func TestShutdownIsNotHeldUpByDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 4}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Await("go", 0), nil)))
		p := rig.PipelineOf("d")
		p.Timeout = conveyor.Duration(time.Minute)
		e.Save(p)
		for i := range 500 {
			e.MustApply(rig.Object(fmt.Sprint("x", i), 1))
		}
		time.Sleep(59 * time.Second)
		e.Store.Refusing(func([]string) error { time.Sleep(time.Second); return nil })
		time.Sleep(2 * time.Second)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.NoError(t, e.Shutdown(ctx))
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}

// slowCheckpoints is a store that takes long for each checkpoint, whatever its context, and answers no read of one until the caller gives up
// if deaf is set.
type slowCheckpoints struct {
	store.Store
	takes func(n int64) time.Duration // for the nth
	saved atomic.Int64
	ends  time.Duration // that it takes for the end of a step that failed
	deaf  bool
}

func (s *slowCheckpoints) Get(ctx context.Context, key string) (store.Record, error) {
	if s.deaf && strings.HasPrefix(key, "ckp/") {
		<-ctx.Done()
		return store.Record{}, context.Cause(ctx)
	}
	return s.Store.Get(ctx, key)
}

func (s *slowCheckpoints) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	switch {
	case len(ops) > 0 && strings.HasPrefix(ops[0].Key(), "ckp/"):
		time.Sleep(s.takes(s.saved.Add(1)))
		ctx = context.WithoutCancel(ctx)
	case slices.ContainsFunc(ops, func(op store.Op) bool {
		return strings.HasPrefix(op.Key(), "stp/") && strings.Contains(string(op.Value()), "failed")
	}):
		time.Sleep(s.ends)
	}
	return s.Store.Commit(ctx, ops...)
}

// Limits implements [store.Limited].
func (s *slowCheckpoints) Limits() store.Limits { return store.LimitsOf(s.Store) }

// sharedSlowCheckpoints is a slowCheckpoints of a shared store.
type sharedSlowCheckpoints struct{ *slowCheckpoints }

func (s sharedSlowCheckpoints) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return s.Store.(store.Watcher).Watch(ctx, prefix, after)
}

func always(d time.Duration) func(int64) time.Duration {
	return func(int64) time.Duration { return d }
}

func TestACheckpointHoldsUpNoDriverWhoseContextHasEnded(t *testing.T) {
	for name, use := range map[string]func(context.Context, *conveyor.Request) error{
		"restore": func(_ context.Context, req *conveyor.Request) error {
			var n int
			_, err := req.Restore(&n)
			return err
		},
		"save": func(ctx context.Context, req *conveyor.Request) error { return req.Checkpoint(ctx, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memory.New()
				e := rig.NewOn(t, &slowCheckpoints{Store: st, takes: always(time.Hour), deaf: true}, conveyor.Options{StepTimeout: time.Minute, Retry: conveyor.RetryPolicy{MaxAttempts: 1}}).MustStart()
				e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					return conveyor.Done(), use(ctx, req)
				}))
				e.Pipeline("d")
				began := time.Now()
				run := e.Finish(rig.Object("x", nil))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Equal(t, time.Minute, time.Since(began), "the driver is not given up: it returns by itself")
				require.ErrorContains(t, run.Err(), `checkpoint of step "1": conveyor: timed out`)
				time.Sleep(2 * time.Hour)
				for key := range rig.Dump(t, st) {
					require.False(t, strings.HasPrefix(key, "ckp/"), "it came late")
				}
			})
		})
	}
}

// TestTheNewestCheckpointStays saves a second value while the store has not answered for the first one.
func TestTheNewestCheckpointStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		firstTakesAnHour := func(n int64) time.Duration {
			if n == 1 {
				return time.Hour
			}
			return 0
		}
		e := rig.NewOn(t, &slowCheckpoints{Store: memory.New(), takes: firstTakesAnHour}, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			limited, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			require.ErrorIs(t, req.Checkpoint(limited, "older"), context.DeadlineExceeded)
			require.NoError(t, req.Checkpoint(ctx, "newer"))
			time.Sleep(2 * time.Hour)
			var is string
			_, err := req.Restore(&is)
			return conveyor.DoneWith(is), err
		}))
		e.Pipeline("d")
		run := e.Finish(rig.Object("x", nil))
		require.JSONEq(t, `"newer"`, string(run.Steps[0].Output))
	})
}

func TestACheckpointWithoutAContextFailsItsAttemptAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: 1}}).MustStart()
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var none context.Context
			return conveyor.Done(), req.Checkpoint(none, 1)
		}))
		e.Pipeline("d")
		run := e.Finish(rig.Object("x", nil))
		var p *conveyor.PanicError
		require.ErrorAs(t, run.Err(), &p)
	})
}

// TestACheckpointThatComesLateGoesWithItsRun has the store answer for a checkpoint just before and just after the run has ended.
func TestACheckpointThatComesLateGoesWithItsRun(t *testing.T) {
	for _, shared := range []bool{false, true} {
		for _, takes := range []time.Duration{time.Minute, time.Minute + time.Millisecond} {
			t.Run(fmt.Sprint(shared, takes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var disk store.Store = memory.New()
					if shared {
						disk = memory.NewShared()
					}
					slow := &slowCheckpoints{Store: disk, takes: always(takes), ends: 10 * time.Millisecond}
					var st store.Store = slow
					if shared {
						st = sharedSlowCheckpoints{slow}
					}
					e := rig.NewOn(t, st, conveyor.Options{StepTimeout: time.Minute, Retry: conveyor.RetryPolicy{MaxAttempts: 1}}).MustStart()
					e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
						return conveyor.Done(), req.Checkpoint(ctx, 1)
					}))
					e.Pipeline("d")
					e.Finish(rig.Object("x", nil))
					time.Sleep(time.Hour)
					for key := range rig.Dump(t, disk) {
						require.False(t, strings.HasPrefix(key, "ckp/"), key)
					}
					require.Positive(t, slow.saved.Load())
				})
			})
		}
	}
}
