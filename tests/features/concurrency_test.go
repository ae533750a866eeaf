package features_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

func TestConcurrencyIsNeverExceededAndServesInTurn(t *testing.T) {
	for _, c := range []struct {
		name           string
		workers, slots int
		peak           int
	}{
		{"one slot", 32, 1, 1},
		{"three slots", 32, 3, 3},
		{"as many slots as workers", 4, 4, 4},
		{"more slots than workers", 2, 5, 2},
		{"no limit", 32, 0, 20},
		{"one worker", 1, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g rig.Gauge
				e := rig.New(t, conveyor.Options{Workers: c.workers}).MustStart()
				d := rig.Recording(g.Around(rig.ByNothing, rig.Taking(time.Minute)))
				e.Driver("d", d, conveyor.Concurrency(c.slots))
				e.Pipeline("d")
				began := time.Now()
				var want []string
				for i := range 20 {
					o := rig.Object(fmt.Sprint("n", i), 1)
					want = append(want, o.Name)
					e.MustApply(o)
					synctest.Wait()
				}
				time.Sleep(time.Hour)
				require.Equal(t, c.peak, g.Peak(""))
				var order []string
				var last time.Time
				for _, call := range d.All() {
					order = append(order, call.Resource)
					last = call.Ended
				}
				require.Len(t, order, 20)
				for i, name := range order { // those that begin in one moment have no order
					require.Less(t, abs(i-slices.Index(want, name)), c.peak)
				}
				rounds := (20 + c.peak - 1) / c.peak
				require.Equal(t, began.Add(time.Duration(rounds)*time.Minute), last, "no slot is idle while somebody waits")
			})
		})
	}
}

func abs(n int) int { return max(n, -n) }

func TestConcurrencyAndWorkersHoldUnderARandomLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g rig.Gauge
		e := rig.New(t, conveyor.Options{Workers: 5}).MustStart()
		slots := map[string]int{"a": 1, "b": 2, "c": 3, "d": 0}
		for name, n := range slots {
			e.Driver(name, rig.DriverOf(g.Around(rig.ByNothing, g.Around(func(*conveyor.Request) string { return name }, func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
				switch rand.IntN(10) {
				case 0:
					return conveyor.Done(), rig.ErrBoom
				case 1:
					return conveyor.RequeueAfter(time.Duration(rand.IntN(3)) * time.Second), nil
				case 2:
					panic("ouch")
				default:
					return conveyor.Done(), nil
				}
			}))), conveyor.Concurrency(n), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: -1}), conveyor.Listen(name))
		}
		e.Pipeline("a", "b", "c", "d", "a", "c", "b")
		for i := range 60 {
			run := e.MustApply(rig.Object(fmt.Sprint("n", i%20), i))
			e.MustApply(rig.Loose([]string{"a", "b", "c", "d"}[i%4], "x", i))
			time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
			if i%9 == 0 {
				_ = e.Cancel(t.Context(), run.ID, "")
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		require.LessOrEqual(t, g.Peak(""), 5)
		require.Equal(t, 1, g.Peak("a"))
		require.LessOrEqual(t, g.Peak("b"), 2)
		require.LessOrEqual(t, g.Peak("c"), 3)
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Unfinished+st.Ready+st.Due+st.Busy+st.Stray)
		for _, s := range st.Slots {
			require.Zero(t, s.Busy+s.Waiting)
		}
		for _, o := range rig.Drain(t, e.List(t.Context(), conveyor.ResourceFilter{})) {
			require.Equal(t, o.Generation, o.Status.ObservedGeneration)
		}
	})
}

func TestConcurrencyWaitForASlotHoldsNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 2}).MustStart()
		e.Driver("narrow", rig.DriverOf(rig.Taking(time.Hour)), conveyor.Concurrency(1))
		e.Driver("wide", rig.DriverOf(rig.Taking(time.Minute)))
		e.Pipeline("narrow")
		e.PipelineNamed("q", "wide")
		for i := range 10 {
			e.MustApply(rig.Object(fmt.Sprint("n", i), 1))
		}
		synctest.Wait()
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, conveyor.DriverStats{Busy: 1, Limit: 1, Waiting: 9}, st.Slots["narrow"])
		require.Equal(t, 1, st.Busy)
		began := time.Now()
		o := rig.Object("other", 1)
		o.Pipeline = "q"
		require.NoError(t, e.Finish(o).Err())
		require.Equal(t, time.Minute, time.Since(began))
		time.Sleep(11 * time.Hour)
	})
}

func TestConcurrencySlotOfACanceledWaiterGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.Taking(time.Minute))
		e.Driver("d", d, conveyor.Concurrency(1))
		e.Pipeline("d")
		var runs []*conveyor.Run
		for i := range 6 {
			runs = append(runs, e.MustApply(rig.Object(fmt.Sprint("n", i), 1)))
			synctest.Wait()
		}
		for _, i := range []int{1, 2, 4} {
			require.NoError(t, e.Cancel(t.Context(), runs[i].ID, ""))
			require.Equal(t, conveyor.StateCanceled, e.Ended(runs[i].ID).State)
		}
		began := time.Now()
		require.NoError(t, e.Ended(runs[5].ID).Err())
		require.Equal(t, 3*time.Minute, time.Since(began))
		require.Equal(t, "n0 n3 n5", strings.Join([]string{d.All()[0].Resource, d.All()[1].Resource, d.All()[2].Resource}, " "))
	})
}

func TestConcurrencySlotPromisedToARunThatDidNotComeToBeIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 2}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Minute)), conveyor.Concurrency(1))
		e.Driver("long", rig.DriverOf(rig.Taking(10*time.Minute)))
		e.Pipeline("d", "long")
		e.MustApply(rig.Object("a", 1))
		synctest.Wait()
		var overtaken atomic.Bool
		e.Store.Refusing(func(keys []string) error {
			if !slices.Contains(keys, "res/r/b") || !overtaken.CompareAndSwap(false, true) {
				return nil
			}
			time.Sleep(2 * time.Minute) // meanwhile the slot is free, and the run in the making has waited for it
			return store.ErrConflict
		})
		run := e.MustApply(rig.Object("b", 1))
		time.Sleep(time.Hour)
		require.True(t, overtaken.Load())
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State)
	})
}

func TestConcurrencySlotIsFreeDuringTheWaitForARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.InTurn(rig.Always(conveyor.Done(), conveyor.RetryAfter(90*time.Second, rig.ErrBoom)), rig.Taking(time.Minute)))
		e.Driver("d", d, conveyor.Concurrency(1))
		e.Pipeline("d")
		began := time.Now()
		for i := range 4 {
			e.MustApply(rig.Object(fmt.Sprint("n", i), 1))
			synctest.Wait()
		}
		time.Sleep(time.Hour)
		var order []string
		for _, c := range d.All() {
			order = append(order, fmt.Sprint(c.Resource, " at ", c.Began.Sub(began)))
		}
		// The retry, due after a minute and a half, comes before what has not begun, though it came later.
		require.Equal(t, []string{"n0 at 0s", "n1 at 0s", "n2 at 1m0s", "n0 at 2m0s", "n3 at 3m0s"}, order)
	})
}

func TestConcurrencyOfOneDriverAtTwoSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g rig.Gauge
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(g.Around(rig.ByNothing, rig.Taking(time.Second)))
		e.Driver("d", d, conveyor.Concurrency(1))
		e.Driver("between", new(rig.Recorder))
		e.Pipeline("d", "between", "d", "d")
		var ids []string
		for i := range 10 {
			ids = append(ids, e.MustApply(rig.Object(fmt.Sprint("n", i), 1)).ID)
		}
		for _, id := range ids {
			require.NoError(t, e.Ended(id).Err())
		}
		require.Equal(t, 1, g.Peak(""))
		steps := d.Steps()
		slices.Sort(steps)
		require.Equal(t, append(append(slices.Repeat([]string{"1"}, 10), slices.Repeat([]string{"3"}, 10)...), slices.Repeat([]string{"4"}, 10)...), steps)
	})
}

func TestConcurrencyAStepOfMinutesLosesNothingOfTheQueueBehindIt(t *testing.T) {
	for _, c := range []struct {
		name string
		opts conveyor.Options
		only int
	}{
		{"for the only worker", conveyor.Options{Workers: 1}, 0},
		{"for the only slot", conveyor.Options{}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, c.opts).MustStart()
				d := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if req.Resource.Name == "slow" {
						return rig.Taking(30*time.Minute)(ctx, req)
					}
					return conveyor.Done(), nil
				})
				e.Driver("d", d, conveyor.Concurrency(c.only))
				e.Pipeline("d")
				e.MustApply(rig.Object("slow", 1))
				synctest.Wait()
				var want []string
				for i := range 200 {
					o := rig.Object(fmt.Sprint("n", i), 1)
					require.Equal(t, conveyor.StateQueued, e.MustApply(o).State)
					want = append(want, o.Name)
					time.Sleep(time.Second)
				}
				require.Len(t, d.All(), 1)
				for range 3 {
					e.MustApply(rig.Object("slow", rand.Int()))
				}
				time.Sleep(2 * time.Hour)
				var order []string
				for _, c := range d.All()[1:] {
					if c.Resource != "slow" {
						order = append(order, c.Resource)
					}
				}
				require.Equal(t, want, order, "first come, first served")
				require.Len(t, e.RunsOf(rig.Object("slow", nil)), 2)
				for _, o := range rig.Drain(t, e.List(t.Context(), conveyor.ResourceFilter{})) {
					require.Equal(t, conveyor.StateSucceeded, o.Status.Phase, o.Name)
				}
			})
		})
	}
}

// lateReader is a store that does something after it has read a key, before it returns what it has read.
type lateReader struct {
	store.Store
	after func(key string)
}

func (s *lateReader) Get(ctx context.Context, key string) (store.Record, error) {
	r, err := s.Store.Get(ctx, key)
	s.after(key)
	return r, err
}

// TestConcurrencyARunTakesUpADefinitionThatIsSavedWhileItIsLookedAt changes the pipeline of a run that has not begun between
// the read of its definition and the moment at which the run joins the line for a driver that the new definition does not
// need.
func TestConcurrencyARunTakesUpADefinitionThatIsSavedWhileItIsLookedAt(t *testing.T) {
	changes := map[string]struct {
		change func(e *rig.Engine) error
		state  conveyor.State
	}{
		"saved":   {func(e *rig.Engine) error { return e.SavePipeline(t.Context(), rig.PipelineOf("wide")) }, conveyor.StateSucceeded},
		"deleted": {func(e *rig.Engine) error { return e.DeletePipeline(t.Context(), "p") }, conveyor.StateFailed},
	}
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var between atomic.Pointer[func()]
				e := rig.NewOn(t, &lateReader{memory.New(), func(key string) {
					if key != record.PipelineKey("p") {
						return
					}
					if fn := between.Swap(nil); fn != nil {
						(*fn)()
					}
				}}, conveyor.Options{}).MustStart()
				e.Driver("narrow", rig.DriverOf(rig.Taking(time.Hour)), conveyor.Concurrency(1))
				e.Driver("wide", rig.DriverOf(rig.Taking(time.Minute)))
				e.Pipeline("narrow")
				e.MustApply(rig.Object("first", 1))
				synctest.Wait()
				require.NoError(t, e.Pause(t.Context(), conveyor.Target{Pipeline: "p"}, "so that the run is in line"))
				run := e.MustApply(rig.Object("second", 1))
				synctest.Wait()
				fn := func() { require.NoError(t, c.change(e)) }
				between.Store(&fn)
				began := time.Now()
				require.NoError(t, e.Resume(t.Context(), conveyor.Target{Pipeline: "p"}))
				require.Equal(t, c.state, e.Ended(run.ID).State)
				require.LessOrEqual(t, time.Since(began), time.Minute, "it has waited for a driver that it does not need")
				require.Nil(t, between.Load(), "the definition has not changed")
				time.Sleep(2 * time.Hour)
			})
		})
	}
}
