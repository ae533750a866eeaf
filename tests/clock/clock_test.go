package clock_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

// notice is how long it takes at most until an engine notices that the clock was set.
const notice = time.Minute

// jumps are by how much a test sets the clock.
var jumps = []time.Duration{24 * time.Hour, 90 * time.Minute, -90 * time.Minute, -24 * time.Hour}

// inBubble runs a test in a bubble. The test can set the clock.
func inBubble(t *testing.T, name string, test func(*testing.T)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			wall := clock.Now()
			began := time.Now()
			t.Cleanup(func() { clock.Set(time.Since(began) - clock.Now().Sub(wall)) })
			test(t)
		})
	})
}

// TestTimeoutsDoNotDependOnTheClock sets the clock while the time of an attempt or of a run goes on.
func TestTimeoutsDoNotDependOnTheClock(t *testing.T) {
	untilCanceled := func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
		<-ctx.Done()
		return conveyor.Done(), context.Cause(ctx)
	}
	limited := func(p conveyor.PipelineSpec) conveyor.PipelineSpec {
		p.Timeout = conveyor.Duration(time.Minute)
		p.Retry = &conveyor.RetryPolicy{MaxAttempts: -1}
		return p
	}
	once := func(p conveyor.PipelineSpec) conveyor.PipelineSpec {
		p.Retry = &conveyor.RetryPolicy{MaxAttempts: 1}
		return p
	}
	cleanedUp := limited(rig.PipelineOf("quick"))
	cleanedUp.Finally = []conveyor.Step{{Driver: "d"}}
	perStep := once(rig.PipelineOf("d"))
	perStep.Steps[0].Timeout = conveyor.Duration(time.Minute)
	for _, c := range []struct {
		name     string
		pipeline conveyor.PipelineSpec
		d        rig.Func
	}{
		{"an attempt", perStep, untilCanceled},
		{"a run whose step is called", limited(rig.PipelineOf("d")), untilCanceled},
		{"a run that waits for a signal", limited(rig.PipelineOf("d")), rig.Always(conveyor.Await("go", 0), nil)},
		{"a run that waits for its next attempt", limited(rig.PipelineOf("d")), rig.Always(conveyor.Done(), conveyor.RetryAfter(7*time.Second, rig.ErrBoom))},
		{"a run that waits for its driver", limited(rig.PipelineOf("absent")), nil},
		{"a cleanup", cleanedUp, untilCanceled},
		{"a cleanup that waits", cleanedUp, rig.Always(conveyor.RequeueAfter(7*time.Second), nil)},
	} {
		for _, by := range jumps {
			inBubble(t, fmt.Sprintf("%s, set by %s", c.name, by), func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				if c.d != nil {
					e.Driver("d", rig.DriverOf(c.d))
				}
				e.Driver("quick", new(rig.Recorder))
				e.Save(c.pipeline)
				began := time.Now()
				run := e.MustApply(rig.Object("x", 1))
				time.Sleep(30 * time.Second)
				clock.Set(by)
				run = e.Ended(run.ID)
				require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				require.Equal(t, time.Minute, time.Since(began))
				require.Contains(t, run.Reason, "took longer than ")
			})
		}
	}
}

// TestARunThatIsAppliedAfterTheClockWasSetHasItsTimeout applies a resource when the engine has not noticed yet.
func TestARunThatIsAppliedAfterTheClockWasSetHasItsTimeout(t *testing.T) {
	for _, by := range jumps {
		inBubble(t, fmt.Sprint("set by ", by), func(t *testing.T) {
			e := rig.New(t, conveyor.Options{}).MustStart()
			e.Driver("d", rig.DriverOf(rig.Taking(20*time.Second)))
			p := rig.PipelineOf("d", "d", "d", "d")
			p.Timeout = conveyor.Duration(time.Minute)
			e.Save(p)
			time.Sleep(time.Minute)
			clock.Set(by)
			began := time.Now()
			require.ErrorIs(t, e.Ended(e.MustApply(rig.Object("x", 1)).ID).Err(), conveyor.ErrTimeout)
			require.Equal(t, time.Minute, time.Since(began))
		})
	}
}

// TestTimeoutsNeedNoWorkerWhenTheClockIsSet sets the clock while the only worker is busy for long, once or twice, before or
// after a restart.
func TestTimeoutsNeedNoWorkerWhenTheClockIsSet(t *testing.T) {
	for _, by := range jumps {
		for _, c := range []struct {
			name    string
			restart bool
			again   time.Duration
		}{{"at work", false, 0}, {"at work, and again", false, 2 * time.Second}, {"away", true, 0}, {"away, and again", true, 2 * time.Second}} {
			inBubble(t, fmt.Sprintf("set by %s, %s", by, c.name), func(t *testing.T) {
				if by > 0 && c.restart {
					by = 30 * time.Second // the run was to be over otherwise
				}
				register := func(e *rig.Engine) {
					e.Driver("busy", rig.DriverOf(rig.Taking(5*time.Hour)))
					e.Driver("d", rig.DriverOf(rig.Always(conveyor.Await("go", 0), nil)))
				}
				e := rig.New(t, conveyor.Options{Workers: 2}).MustStart()
				register(e)
				p := rig.PipelineOf("d")
				p.Timeout = conveyor.Duration(time.Minute)
				e.Save(p)
				e.PipelineNamed("busy", "busy")
				began := time.Now()
				run := e.MustApply(rig.Object("x", 1))
				time.Sleep(10 * time.Second)
				e.MustApply(rig.Along("busy", "z"))
				e.MustApply(rig.Along("busy", "zz"))
				time.Sleep(10 * time.Second)
				left := 40 * time.Second
				if c.restart {
					e = e.Crashed(conveyor.Options{Workers: 1})
					clock.Set(by)
					register(e)
					e.MustStart()
					if left = time.Minute; by > 0 {
						left = 10 * time.Second
					}
				} else {
					clock.Set(by)
				}
				began = time.Now()
				time.Sleep(time.Second)
				clock.Set(c.again)
				require.ErrorIs(t, e.Ended(run.ID).Err(), conveyor.ErrTimeout)
				require.Equal(t, left, time.Since(began))
			})
		}
	}
}

// TestAClockThatIsSetWhileTheStoreIsSlow sets the clock while records are read or written, and another run notices it.
func TestAClockThatIsSetWhileTheStoreIsSlow(t *testing.T) {
	begin := func(t *testing.T, p conveyor.PipelineSpec, first rig.Func) (e *rig.Engine, st *rig.Probe, work *rig.Recorder, run string) {
		st = &rig.Probe{Store: memory.New()}
		e = rig.NewOn(t, st, conveyor.Options{}).MustStart()
		work = rig.Recording(rig.InTurn(first, rig.Always(conveyor.Done(), nil)))
		e.Driver("d", work)
		e.Driver("tick", rig.DriverOf(rig.Always(conveyor.RequeueAfter(time.Second), nil)))
		e.PipelineNamed("tick", "tick")
		e.Save(p)
		e.MustApply(rig.Along("tick", "t"))
		return e, st, work, e.MustApply(rig.Object("x", 1)).ID
	}
	slowly := func(result conveyor.Result) rig.Func {
		return func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(20 * time.Second)
			return result, nil
		}
	}
	resyncing := rig.PipelineOf("d")
	resyncing.Resync = conveyor.Duration(time.Minute)
	for _, c := range []struct {
		name     string
		pipeline conveyor.PipelineSpec
		first    rig.Func
	}{
		{"a requeue", rig.PipelineOf("d"), slowly(conveyor.RequeueAfter(time.Minute))},
		{"a resync", resyncing, slowly(conveyor.Done())},
	} {
		for _, by := range jumps {
			for _, fails := range []bool{false, true} {
				inBubble(t, fmt.Sprintf("%s is recorded, set by %s, the store fails %t", c.name, by, fails), func(t *testing.T) {
					e, _, work, run := begin(t, c.pipeline, c.first)
					time.Sleep(10 * time.Second)
					e.Store.Refusing(func(keys []string) error {
						if !strings.Contains(strings.Join(keys, " "), run) {
							return nil
						}
						if fails {
							return rig.ErrBoom
						}
						time.Sleep(5 * time.Second)
						return nil
					})
					time.Sleep(12 * time.Second)
					clock.Set(by)
					time.Sleep(15 * time.Second)
					e.Store.Refusing(nil)
					time.Sleep(2 * time.Minute)
					require.Greater(t, len(work.All()), 1)
				})
			}
		}
	}
	limited := rig.PipelineOf("d")
	limited.Timeout, limited.Retry = conveyor.Duration(time.Minute), &conveyor.RetryPolicy{MaxAttempts: 1}
	for _, by := range jumps {
		inBubble(t, fmt.Sprintf("a run is read, set by %s", by), func(t *testing.T) {
			e, st, _, run := begin(t, limited, func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				return conveyor.Await("go", 0), nil
			})
			began := time.Now()
			time.Sleep(10*time.Second + 500*time.Millisecond)
			var slowed atomic.Bool
			st.Before(func(key string) {
				loads := strings.HasPrefix(key, record.RunPrefix+run) && strings.Contains(string(debug.Stack()), "(*scheduler).load(")
				if loads && slowed.CompareAndSwap(false, true) {
					clock.Set(by)
					time.Sleep(3 * time.Second)
				}
			})
			require.NoError(t, e.Signal(t.Context(), run, "other", 1)) // has it read
			require.ErrorIs(t, e.Ended(run).Err(), conveyor.ErrTimeout)
			require.True(t, slowed.Load())
			require.Equal(t, time.Minute, time.Since(began))
		})
	}
}

// TestWhatIsDueComesAfterItsDelayAtTheLatest sets the clock while something waits for a time, while the process runs and
// while it does not.
func TestWhatIsDueComesAfterItsDelayAtTheLatest(t *testing.T) {
	const delay = time.Minute
	resyncing := rig.PipelineOf("d")
	resyncing.Resync = conveyor.Duration(delay)
	done := rig.Always(conveyor.Done(), nil)
	for _, c := range []struct {
		name     string
		pipeline conveyor.PipelineSpec
		first    rig.Func
	}{
		{"a retry", rig.PipelineOf("d"), rig.Always(conveyor.Done(), conveyor.RetryAfter(delay, rig.ErrBoom))},
		{"a requeue", rig.PipelineOf("d"), rig.Always(conveyor.RequeueAfter(delay), nil)},
		{"the timeout of a wait", rig.PipelineOf("d"), rig.Always(conveyor.Await("go", delay), nil)},
		{"a resync", resyncing, done},
	} {
		for _, by := range jumps {
			for _, restart := range []bool{false, true} {
				inBubble(t, fmt.Sprintf("%s, set by %s, with a restart %t", c.name, by, restart), func(t *testing.T) {
					work := rig.Recording(rig.InTurn(c.first, done))
					e := rig.New(t, conveyor.Options{}).MustStart()
					e.Driver("d", work)
					e.Save(c.pipeline)
					e.MustApply(rig.Object("x", 1))
					time.Sleep(20 * time.Second)
					require.Len(t, work.All(), 1)
					if restart {
						e = e.Crashed(conveyor.Options{})
						clock.Set(by)
						e.Driver("d", work)
						e.MustStart()
					} else {
						clock.Set(by)
					}
					set := time.Now()
					for len(work.All()) == 1 {
						time.Sleep(time.Second)
						require.LessOrEqual(t, time.Since(set), delay+notice+time.Second)
					}
					if by > 0 {
						require.LessOrEqual(t, time.Since(set), notice+time.Second, "its time has come")
					} else {
						require.GreaterOrEqual(t, time.Since(set), delay, "its delay goes on from when the clock was set")
					}
				})
			}
		}
	}
}

// TestARunThatAnEarlierProcessBeganHasItsTimeout sets the clock back while no process runs.
func TestARunThatAnEarlierProcessBeganHasItsTimeout(t *testing.T) {
	inBubble(t, "back", func(t *testing.T) {
		p := rig.PipelineOf("d")
		p.Timeout = conveyor.Duration(time.Minute)
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.DriverOf(rig.Always(conveyor.Await("go", 0), nil))
		e.Driver("d", d)
		e.Save(p)
		run := e.MustApply(rig.Object("x", 1))
		time.Sleep(30 * time.Second)
		e = e.Crashed(conveyor.Options{})
		clock.Set(-24 * time.Hour)
		e.Driver("d", d)
		e.MustStart()
		again := time.Now()
		require.ErrorIs(t, e.Ended(run.ID).Err(), conveyor.ErrTimeout)
		require.Equal(t, time.Minute, time.Since(again), "how long the process was away is not known")
	})
}

// TestEachCleanupIsCalledWheneverTheClockIsSet sets the clock while cleanups wait to be called, one after the other.
func TestEachCleanupIsCalledWheneverTheClockIsSet(t *testing.T) {
	for _, by := range jumps {
		inBubble(t, fmt.Sprint("set by ", by), func(t *testing.T) {
			e := rig.New(t, conveyor.Options{}).MustStart()
			clean := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				if req.Resource.Name == "x4" {
					<-ctx.Done()
					return conveyor.Done(), context.Cause(ctx)
				}
				return rig.Taking(50*time.Second)(ctx, req)
			})
			e.Driver("quick", new(rig.Recorder))
			e.Driver("clean", clean, conveyor.Concurrency(1))
			p := rig.PipelineOf("quick")
			p.Timeout = conveyor.Duration(time.Minute)
			p.Finally = []conveyor.Step{{Driver: "clean"}}
			e.Save(p)
			var runs []string
			for i := range 5 {
				runs = append(runs, e.MustApply(rig.Object(fmt.Sprint("x", i), 1)).ID)
			}
			time.Sleep(2*time.Minute + 10*time.Second)
			clock.Set(by)
			for _, id := range runs[:4] {
				require.NoError(t, e.Ended(id).Err())
			}
			require.ErrorIs(t, e.Ended(runs[4]).Err(), conveyor.ErrTimeout)
			require.Len(t, clean.All(), 5)
			for _, call := range clean.All() {
				took := 50 * time.Second
				if call.Run == runs[4] {
					took = time.Minute // it has its time, and no more
				}
				require.Equal(t, took, call.Ended.Sub(call.Began))
			}
		})
	}
}

// TestWhatComesLaterSortsLaterThoughTheClockGoesBack sends signals and makes runs before and after the clock is set back
// and the process is started again.
func TestWhatComesLaterSortsLaterThoughTheClockGoesBack(t *testing.T) {
	inBubble(t, "back", func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		e.Pipeline("d")
		first := e.MustApply(rig.Object("x", 1))
		for i := range 6 {
			require.NoError(t, e.Signal(t.Context(), first.ID, "go", i))
			if i == 2 {
				e = e.Crashed(conveyor.Options{})
			}
			clock.Set(-time.Hour)
		}
		var got []int
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var n int
			signaled, err := req.Signal(&n)
			if signaled {
				got = append(got, n)
			}
			if err != nil {
				return conveyor.Done(), err
			}
			if len(got) == 6 {
				return conveyor.Done(), nil
			}
			return conveyor.Await("go", 0), nil
		}))
		e.MustStart()
		require.NoError(t, e.Ended(first.ID).Err())
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, got)
		second := e.Finish(rig.Object("y", 1))
		require.Greater(t, second.ID, first.ID)
		clock.Set(-time.Hour)
		e = e.Crashed(conveyor.Options{}) // and does not start
		require.Greater(t, e.MustApply(rig.Object("z", 1)).ID, second.ID)
	})
}

// TestAClockThatIsSetLosesNothingInACrash sets the clock and has the process die at each commit after that, on both stores.
func TestAClockThatIsSetLosesNothingInACrash(t *testing.T) {
	stores := map[string]func(t *testing.T) store.Store{
		"memory": func(*testing.T) store.Store { return memory.New() },
		"file": func(t *testing.T) store.Store {
			st, err := file.Open(t.Context(), filepath.Join(t.TempDir(), "records"), file.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, st.Close()) })
			return st
		},
	}
	for name, open := range stores {
		for _, by := range jumps[1:3] {
			for n, more := 1, true; more; n++ {
				inBubble(t, fmt.Sprintf("%s, set by %s, dies at commit %d", name, by, n), func(t *testing.T) { more = dieAfterTheClockWasSet(t, open(t), by, n) })
			}
		}
	}
}

// dieAfterTheClockWasSet has the process die at the nth commit after the clock was set, and reports whether there was one.
func dieAfterTheClockWasSet(t *testing.T, st store.Store, by time.Duration, n int) (died bool) {
	work := rig.Recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if req.Attempt == 1 {
			return conveyor.Done(), conveyor.RetryAfter(time.Minute, rig.ErrBoom)
		}
		return conveyor.Done(), nil
	})
	p := rig.PipelineOf("d", "d")
	p.Timeout, p.Resync = conveyor.Duration(2*time.Hour), conveyor.Duration(5*time.Minute) // longer than the clock is set by
	program := func(e *rig.Engine) *rig.Engine {
		e.Driver("d", work)
		e.Save(p)
		return e.MustStart()
	}
	e := program(rig.NewOn(t, st, conveyor.Options{}))
	e.MustApply(rig.Object("x", 1))
	time.Sleep(2*time.Minute + time.Second)
	resting := e.RunsOf(rig.Object("x", nil))[0]
	require.NoError(t, resting.Err())
	run := e.MustApply(rig.Object("y", 1))
	time.Sleep(20 * time.Second)
	var commits atomic.Int64
	e.Store.Refusing(func([]string) error {
		if commits.Add(1) == int64(n) {
			e.Store.CutOff()
			return errors.New("the process died")
		}
		return nil
	})
	clock.Set(by)
	time.Sleep(8 * time.Minute)
	e.Store.Refusing(nil)
	synctest.Wait()
	died = commits.Load() >= int64(n)
	if died {
		e = program(e.Crashed(conveyor.Options{}))
	}
	require.NoError(t, e.Ended(run.ID).Err())
	time.Sleep(6 * time.Minute)
	synctest.Wait()
	require.Greater(t, len(e.RunsOf(rig.Object("x", nil))), 1, "it is run again")
	for _, run := range append(e.RunsOf(rig.Object("x", nil)), e.RunsOf(rig.Object("y", nil))...) {
		if run.State.Final() {
			require.NoError(t, run.Err())
		}
	}
	return died
}
