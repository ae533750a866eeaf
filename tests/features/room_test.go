package features_test

import (
	"context"
	"fmt"
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

// atWork counts the runs that have begun and not ended.
func atWork(t *testing.T, e *rig.Engine) (n int) {
	for _, run := range rig.Drain(t, e.Runs(context.Background(), conveyor.RunFilter{Unfinished: true})) {
		if run.State != conveyor.StateQueued {
			n++
		}
	}
	return n
}

func TestMaxRunsBoundsTheRunsAtWork(t *testing.T) {
	for _, c := range []struct {
		name string
		opts conveyor.Options
		step rig.Func
		most int
	}{
		{"with a worker for each", conveyor.Options{}, rig.Taking(time.Second), 3},
		{"with two workers", conveyor.Options{Workers: 2}, rig.Taking(time.Second), 2}, // those that have begun keep them
		{"while they wait", conveyor.Options{}, func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var called bool
			if again, err := req.Restore(&called); err != nil || again {
				return conveyor.Done(), err
			}
			return conveyor.RequeueAfter(time.Second), req.Checkpoint(context.Background(), true)
		}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, c.opts).MustStart()
				e.Driver("d", rig.DriverOf(c.step))
				e.Save(rig.AtMost(rig.PipelineOf("d", "d"), 3))
				e.Save(rig.Named("q", rig.PipelineOf("d")))
				for i := range 20 {
					e.MustApply(rig.Object(fmt.Sprint("x", i), nil))
				}
				synctest.Wait()
				most := 0
				for range 200 {
					synctest.Wait()
					most = max(most, atWork(t, e))
					time.Sleep(100 * time.Millisecond)
				}
				require.Equal(t, c.most, most)
				runs := rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{Pipeline: "p"}))
				for i, run := range runs[:len(runs)-2] {
					require.False(t, run.StartedAt.After(runs[i+2].StartedAt), "who came first goes first, but for neighbours")
				}
				require.NoError(t, e.Finish(rig.Along("q", "other")).Err())
				time.Sleep(time.Minute)
				rig.RequireAtRest(t, e.Store)
			})
		})
	}
}

func TestMaxRunsHoldsAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g rig.Gauge
		work := rig.DriverOf(g.Around(rig.ByNothing, rig.Taking(time.Minute)))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", work)
		e.Save(rig.AtMost(rig.PipelineOf("d"), 2))
		for i := range 6 {
			e.MustApply(rig.Object(fmt.Sprint("x", i), nil))
		}
		time.Sleep(time.Second)
		e = e.Reborn(conveyor.Options{})
		g = rig.Gauge{}
		e.Driver("d", rig.DriverOf(g.Around(rig.ByNothing, rig.Taking(time.Minute))))
		e.MustStart()
		e.MustApply(rig.Object("late", nil))
		for range 6 {
			synctest.Wait()
			require.LessOrEqual(t, atWork(t, e), 2)
			time.Sleep(time.Minute)
		}
		require.Equal(t, 2, g.Peak(""))
		rig.RequireAtRest(t, e.Store)
	})
}

func TestMaxRunsCanBeChangedWhileRunsWait(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, e *rig.Engine)
		after  int // runs at work then
	}{
		{"raised", func(_ *testing.T, e *rig.Engine) { e.Save(rig.AtMost(rig.PipelineOf("d"), 4)) }, 4},
		{"lifted", func(_ *testing.T, e *rig.Engine) { e.Save(rig.PipelineOf("d")) }, 8},
		{"lowered", func(_ *testing.T, e *rig.Engine) { e.Save(rig.AtMost(rig.PipelineOf("d"), 1)) }, 2},
		{"of a pipeline that is deleted", func(t *testing.T, e *rig.Engine) { require.NoError(t, e.DeletePipeline(t.Context(), "p")) }, 2},
		{"and one is canceled", func(t *testing.T, e *rig.Engine) {
			require.NoError(t, e.Cancel(t.Context(), e.RunsOf(rig.Object("x5", nil))[0].ID, "not needed"))
		}, 2},
		{"and one at work is canceled", func(t *testing.T, e *rig.Engine) {
			require.NoError(t, e.Cancel(t.Context(), e.RunsOf(rig.Object("x0", nil))[0].ID, "not needed"))
		}, 2},
		{"and one at work is deleted", func(t *testing.T, e *rig.Engine) {
			_, err := e.Delete(t.Context(), rig.Object("x0", nil).Key())
			require.NoError(t, err)
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
				e.Save(rig.AtMost(rig.PipelineOf("d"), 2))
				for i := range 8 {
					e.MustApply(rig.Object(fmt.Sprint("x", i), nil))
				}
				time.Sleep(time.Minute)
				require.Equal(t, 2, atWork(t, e))
				c.change(t, e)
				time.Sleep(time.Minute)
				require.Equal(t, c.after, atWork(t, e))
				time.Sleep(24 * time.Hour)
				rig.RequireAtRest(t, e.Store)
			})
		})
	}
}

func TestMaxRunsLoweredHoldsForARunThatHasRoomAndNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
		e.Driver("patient", rig.DriverOf(rig.InTurn(rig.Always(conveyor.RequeueAfter(time.Hour), nil), rig.Always(conveyor.RequeueAfter(time.Hour), nil), rig.Always(conveyor.Done(), nil))))
		e.Driver("busy", rig.DriverOf(rig.Taking(10*time.Minute)))
		e.Save(rig.AtMost(rig.PipelineOf("patient"), 2))
		e.Save(rig.Named("q", rig.PipelineOf("busy")))
		var ids []string
		for i := range 3 {
			ids = append(ids, e.MustApply(rig.Object(fmt.Sprint("x", i), nil)).ID)
			synctest.Wait()
		}
		e.MustApply(rig.Along("q", "y"))
		require.NoError(t, e.Cancel(t.Context(), ids[0], "")) // which makes room for the third
		e.Save(rig.AtMost(rig.PipelineOf("patient"), 1))
		time.Sleep(30 * time.Minute)
		require.Equal(t, conveyor.StateWaiting, e.MustGetRun(ids[1]).State)
		require.Equal(t, conveyor.StateQueued, e.MustGetRun(ids[2]).State)
		require.NoError(t, e.Ended(ids[1]).Err())
		require.NoError(t, e.Ended(ids[2]).Err())
		rig.RequireAtRest(t, e.Store)
	})
}

func TestAQueuedRunDoesNotWaitForADriverThatItsPipelineNeedsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("busy", rig.DriverOf(rig.Taking(24*time.Hour)), conveyor.Concurrency(1))
		e.Driver("free", new(rig.Recorder))
		e.Pipeline("busy")
		e.MustApply(rig.Object("x", nil))
		run := e.MustApply(rig.Object("y", nil))
		time.Sleep(time.Minute)
		require.Equal(t, conveyor.StateQueued, e.MustGetRun(run.ID).State)
		e.Pipeline("free")
		synctest.Wait()
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State)
		time.Sleep(48 * time.Hour)
		rig.RequireAtRest(t, e.Store)
	})
}

func TestMaxRunsAndDriverSlotsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g rig.Gauge
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("narrow", rig.DriverOf(g.Around(rig.ByNothing, rig.Taking(time.Second))), conveyor.Concurrency(1))
		e.Driver("wide", rig.DriverOf(rig.Taking(time.Second)))
		e.Save(rig.AtMost(rig.PipelineOf("narrow", "wide", "narrow"), 2))
		e.Save(rig.AtMost(rig.Named("q", rig.PipelineOf("wide", "narrow")), 1))
		for i := range 10 {
			e.MustApply(rig.Along("p", fmt.Sprint("x", i)))
			e.MustApply(rig.Along("q", fmt.Sprint("y", i)))
		}
		for range 100 {
			synctest.Wait()
			require.LessOrEqual(t, atWork(t, e), 3)
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, g.Peak(""))
		rig.RequireAtRest(t, e.Store)
		stats, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, stats.Busy)
	})
}

func TestCanceledRunsUseUpNoTurns(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		slots   int
	}{
		{"of a worker", 1, 0},
		{"of a slot", 32, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work := rig.Recording(rig.Taking(time.Second))
				e := rig.New(t, conveyor.Options{Workers: c.workers}).MustStart()
				e.Driver("d", work, conveyor.Concurrency(c.slots))
				e.Save(rig.Named("hot", rig.PipelineOf("d")))
				e.Save(rig.Named("cold", rig.PipelineOf("d")))
				for i := range 100 {
					e.MustApply(rig.Along("hot", fmt.Sprint("x", i)))
				}
				for i := range 40 {
					run := e.MustApply(rig.Along("cold", fmt.Sprint("y", i)))
					require.NoError(t, e.Cancel(t.Context(), run.ID, "not needed"))
				}
				began := time.Now()
				require.NoError(t, e.Finish(rig.Along("cold", "z")).Err())
				require.LessOrEqual(t, time.Since(began), 4*time.Second)
				time.Sleep(5 * time.Minute)
				rig.RequireAtRest(t, e.Store)
			})
		})
	}
}

func TestAColdPipelineIsServedWhileAHotOneStorms(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		opts    []conveyor.DriverOption
		steps   int
		within  time.Duration // until the cold run begins; a step takes a second
	}{
		{"waiting for a worker", 1, nil, 1, 2 * time.Second},
		{"waiting for a worker behind long runs", 2, nil, 20, 2 * time.Second},
		{"waiting for a slot of the driver", 32, []conveyor.DriverOption{conveyor.Concurrency(1)}, 1, 2 * time.Second},
		{"waiting for a slot of the driver behind long runs", 32, []conveyor.DriverOption{conveyor.Concurrency(2)}, 20, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work := rig.Recording(rig.Taking(time.Second))
				e := rig.New(t, conveyor.Options{Workers: c.workers}).MustStart()
				e.Driver("d", work, c.opts...)
				hot := rig.PipelineOf("d")
				for range c.steps - 1 {
					hot.Steps = append(hot.Steps, conveyor.Step{Driver: "d"})
				}
				e.Save(rig.Named("hot", hot))
				e.Save(rig.Named("cold", rig.PipelineOf("d")))
				for i := range 300 {
					e.MustApply(rig.Along("hot", fmt.Sprint("hot", i)))
				}
				time.Sleep(10*time.Second + time.Millisecond)
				cold := e.Finish(rig.Along("cold", "cold"))
				require.NoError(t, cold.Err())
				require.LessOrEqual(t, cold.StartedAt.Sub(cold.CreatedAt), c.within)
				require.NotEmpty(t, rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})))
				time.Sleep(3 * time.Hour)
				rig.RequireAtRest(t, e.Store)
			})
		})
	}
}

// stepsOf lists the calls as resource and step.
func stepsOf(calls []rig.Call) (order []string) {
	for _, c := range calls {
		order = append(order, c.Resource+c.Step)
	}
	return order
}

func TestLongRunsOfOnePipelineThatHaveBegunTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var once atomic.Bool
		work := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if once.CompareAndSwap(false, true) {
				return conveyor.RequeueAfter(500 * time.Millisecond), nil // so that b begins
			}
			return rig.Taking(time.Second)(ctx, req)
		})
		e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
		e.Driver("d", work)
		e.Pipeline("d", "d", "d")
		e.MustApply(rig.Object("a", nil))
		e.MustApply(rig.Object("b", nil))
		time.Sleep(time.Minute)
		require.Equal(t, []string{"a1", "b1", "a1", "b2", "a2", "b3", "a3"}, stepsOf(work.All()))
	})
}

func TestRule18ARunThatHasBegunGoesBeforeOneThatHasNot(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		maxRuns int
		opts    []conveyor.DriverOption
		want    []string

		together int // pairs of calls that begin at one moment
	}{
		{"waiting for a worker", 1, 0, nil, []string{"a1", "a2", "b1", "b2", "c1", "c2"}, 0},
		{"waiting for a slot", 9, 0, []conveyor.DriverOption{conveyor.Concurrency(1)}, []string{"a1", "a2", "b1", "b2", "c1", "c2"}, 0},
		{"waiting for a slot, with room for one", 9, 1, []conveyor.DriverOption{conveyor.Concurrency(1)}, []string{"a1", "a2", "b1", "b2", "c1", "c2"}, 0},
		{"waiting for a slot, with room for two", 9, 2, []conveyor.DriverOption{conveyor.Concurrency(1)}, []string{"a1", "a2", "b1", "b2", "c1", "c2"}, 0},
		{"waiting for one of two slots", 9, 0, []conveyor.DriverOption{conveyor.Concurrency(2)}, []string{"a1", "b1", "a2", "b2", "c1", "c2"}, 2},
	} {
		for _, started := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, started before: %v", c.name, started), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					work := rig.Recording(rig.Taking(time.Second))
					e := rig.New(t, conveyor.Options{Workers: c.workers})
					e.Driver("d", work, c.opts...)
					e.Save(rig.AtMost(rig.PipelineOf("d", "d"), c.maxRuns))
					if started {
						e.MustStart()
					}
					for _, name := range []string{"a", "b", "c"} {
						e.MustApply(rig.Object(name, nil))
						synctest.Wait()
					}
					if !started {
						e.MustStart()
					}
					time.Sleep(time.Hour)
					// Workers that look at several runs at one moment come in any order. The first to begin is called a.
					names := map[string]string{}
					var got []string
					for _, call := range work.All() {
						if names[call.Resource] == "" {
							names[call.Resource] = string(rune('a' + len(names)))
						}
						got = append(got, names[call.Resource]+call.Step)
					}
					for i := range c.together {
						slices.Sort(got[2*i : 2*i+2])
					}
					require.Equal(t, c.want, got)
					rig.RequireAtRest(t, e.Store)
				})
			})
		}
	}
}

func TestRunsThatPollDoNotHoldUpWhatTheyWaitFor(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		opts    []conveyor.DriverOption
	}{
		{"for a worker", 1, nil},
		{"for a slot", 9, []conveyor.DriverOption{conveyor.Concurrency(1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var there atomic.Bool
				e := rig.New(t, conveyor.Options{Workers: c.workers}).MustStart()
				e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					switch {
					case req.Resource.Name == "dependency":
						there.Store(true)
					case !there.Load():
						time.Sleep(time.Second) // five of them keep the worker busy
						return conveyor.RequeueAfter(time.Second), nil
					}
					return conveyor.Done(), nil
				}), c.opts...)
				e.Pipeline("d")
				for i := range 5 {
					e.MustApply(rig.Object(fmt.Sprint("x", i), nil))
				}
				e.MustApply(rig.Object("dependency", nil))
				time.Sleep(time.Hour)
				require.Zero(t, e.MustStats().Unfinished)
				rig.RequireAtRest(t, e.Store)
			})
		})
	}
}

func TestRule18TheWorkOfARunDoesNotGrowWithWhatWaits(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		maxRuns int
		slots   int
		step    rig.Func
	}{
		{"for room and for a slot", 0, 2, 1, rig.Always(conveyor.Done(), nil)},
		{"for room and for a slot of a slow driver", 0, 2, 1, rig.Taking(time.Second)},
		{"for room and for a slot, with one worker", 1, 2, 1, rig.Taking(time.Second)},
		{"for room", 4, 2, 0, rig.Taking(time.Second)},
		{"for a slot", 4, 0, 1, rig.Taking(time.Second)},
		{"for a worker", 1, 0, 0, rig.Taking(time.Second)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, n := range []int{20, 200, testenv.Some(t, 1_000, 10_000)} {
				synctest.Test(t, func(t *testing.T) {
					e := rig.New(t, conveyor.Options{Workers: c.workers})
					work := rig.Recording(c.step)
					e.Driver("d", work, conveyor.Concurrency(c.slots))
					e.Save(rig.AtMost(rig.Named("p", rig.PipelineOf("d", "d")), c.maxRuns))
					e.Save(rig.AtMost(rig.Named("q", rig.PipelineOf("d", "d")), c.maxRuns))
					for i := range n {
						e.MustApply(rig.Along([]string{"p", "q"}[i%2], fmt.Sprint("x", i)))
					}
					e.Store.TakeReads()
					e.MustStart()
					time.Sleep(time.Duration(n) * time.Minute)
					require.Zero(t, e.MustStats().Unfinished)
					all, loads := 0, 0
					for key, times := range e.Store.TakeReads() {
						all += times
						if strings.HasPrefix(key, "run/") {
							loads = max(loads, times)
						}
					}
					t.Logf("%d waiting: %.1f reads a run, and no run was read more than %d times", n, float64(all)/float64(n), loads)
					require.LessOrEqual(t, all, 20*n)
					require.LessOrEqual(t, loads, 6)
				})
			}
		})
	}
}

func TestQuickStepsFollowOneAnotherInOneCommitThoughOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 1})
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d", "d", "d", "d")
		var ids []string
		for i := range 10 {
			ids = append(ids, e.MustApply(rig.Object(fmt.Sprint("x", i), nil)).ID)
		}
		e.MustStart()
		for _, id := range ids {
			require.NoError(t, e.Ended(id).Err())
			require.Equal(t, 6, e.Store.CommitsOf(id))
		}
	})
}

func TestARunThatWaitsForRoomTakesUpAnotherPipelineAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Recording(rig.Taking(100*time.Hour)))
		e.Driver("quick", new(rig.Recorder))
		p := rig.PipelineOf("d")
		p.MaxRuns = 1
		e.Save(p)
		q := rig.PipelineOf("quick")
		q.Name = "q"
		e.Save(q)
		e.MustApply(rig.Object("holder", 1))
		run := e.MustApply(rig.Object("x", 1))
		require.Equal(t, conveyor.StateQueued, run.State)
		x := rig.Object("x", 1)
		x.Pipeline = "q"
		require.Equal(t, run.ID, e.MustApply(x).ID)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State, "q has room")
	})
}

func TestMaxRunsCountsNoRunThatCouldNotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		e.Driver("d", rig.Recording(rig.Taking(time.Hour)), conveyor.Concurrency(1))
		e.Driver("free", new(rig.Recorder))
		p := rig.PipelineOf("d")
		p.MaxRuns = 1
		e.Save(p)
		q := rig.PipelineOf("d")
		q.Name = "q"
		e.Save(q)
		e.MustStart()
		y := rig.Object("y", 1)
		y.Pipeline = "q"
		e.MustApply(y)                                                                    // has the slot of d
		e.MustApply(rig.Object("x", 1))                                                   // waits for the slot
		require.NoError(t, e.Cancel(t.Context(), e.MustApply(rig.Object("z", 1)).ID, "")) // stays in no one's way
		run := e.MustGetRun(e.RunsOf(rig.Object("x", nil))[0].ID)
		require.Equal(t, conveyor.StateQueued, run.State)
		require.NoError(t, e.Signal(t.Context(), run.ID, "hello", nil)) // has it looked at
		synctest.Wait()
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		t.Log(st.Pipelines)
		require.Zero(t, st.Pipelines["p"].AtWork, "it has not begun")
		x := rig.Object("x", 2)
		x.Pipeline = "q"
		e.MustApply(x)
		time.Sleep(10 * time.Hour) // y and x are done
		st, _ = e.Stats(t.Context())
		require.Zero(t, st.Pipelines["p"].AtWork, "none is left")
		last := e.MustApply(rig.Object("w", 1))
		time.Sleep(10 * time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(last.ID).State)
	})
}

func TestARunThatHoldsRoomAndHasNotBegunTakesUpWhatChanges(t *testing.T) {
	for _, c := range []struct {
		name       string
		change     func(t *testing.T, e *rig.Engine, id string)
		state      conveyor.State
		generation int64
		next       conveyor.State
	}{
		{"nothing", func(*testing.T, *rig.Engine, string) {}, conveyor.StateSucceeded, 1, conveyor.StateSucceeded},
		{"a newer generation", func(_ *testing.T, e *rig.Engine, _ string) { e.MustApply(rig.Object("x", 2)) }, conveyor.StateSucceeded, 2, conveyor.StateSucceeded},
		{"another pipeline", func(_ *testing.T, e *rig.Engine, _ string) { e.MustApply(rig.Along("q", "x")) }, conveyor.StateSucceeded, 2, conveyor.StateSucceeded},
		{"a cancel", func(t *testing.T, e *rig.Engine, id string) { require.NoError(t, e.Cancel(t.Context(), id, "")) }, conveyor.StateCanceled, 1, conveyor.StateSucceeded},
		{"other steps", func(_ *testing.T, e *rig.Engine, _ string) { e.Save(rig.AtMost(rig.PipelineOf("free"), 1)) }, conveyor.StateSucceeded, 1, conveyor.StateSucceeded},
		{"a lower limit", func(_ *testing.T, e *rig.Engine, _ string) {
			e.Save(rig.AtMost(rig.PipelineOf("d"), 3))
			e.MustApply(rig.Object("z", 1))
			e.Save(rig.AtMost(rig.PipelineOf("d"), 1))
		}, conveyor.StateSucceeded, 1, conveyor.StateSucceeded},
		{"the end of the pipeline", func(t *testing.T, e *rig.Engine, _ string) { require.NoError(t, e.DeletePipeline(t.Context(), "p")) }, conveyor.StateFailed, 1, conveyor.StateFailed},
		{"damage", func(t *testing.T, e *rig.Engine, id string) {
			for key := range rig.Dump(t, e.Store.Store) {
				if strings.HasPrefix(key, "rev/r/x/") {
					_, err := e.Store.Store.Commit(t.Context(), store.Put(key, []byte("damaged")))
					require.NoError(t, err)
				}
			}
			require.NoError(t, e.Signal(t.Context(), id, "look", nil))
		}, conveyor.StateQueued, 1, conveyor.StateSucceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)), conveyor.Concurrency(1))
				e.Driver("free", new(rig.Recorder))
				e.Save(rig.AtMost(rig.PipelineOf("d"), 1))
				e.Save(rig.Named("q", rig.PipelineOf("d")))
				e.MustApply(rig.Along("q", "holder"))
				x := e.MustApply(rig.Object("x", 1))
				y := e.MustApply(rig.Object("y", 1))
				synctest.Wait()
				require.Equal(t, []string{`a slot of driver "d"`}, e.MustGetRun(x.ID).WaitsFor)
				require.Equal(t, []string{`room in pipeline "p"`}, e.MustGetRun(y.ID).WaitsFor)
				require.Equal(t, conveyor.PipelineStats{Limit: 1, Waiting: 1}, e.MustStats().Pipelines["p"])
				c.change(t, e, x.ID)
				time.Sleep(24 * time.Hour)
				run := e.MustGetRun(x.ID)
				require.Equal(t, c.state, run.State, run.Reason)
				require.Equal(t, c.generation, run.Generation)
				require.Equal(t, c.next, e.MustGetRun(y.ID).State, "the next run")
				require.Zero(t, e.MustStats().Pipelines["p"].AtWork)
				require.Zero(t, e.MustStats().Pipelines["p"].Waiting)
			})
		})
	}
}

func TestMaxRunsLeavesTheRoomOfThePipelineThatARunDidNotGoAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Recording(rig.Taking(time.Hour)), conveyor.Concurrency(1))
		p := rig.PipelineOf("d")
		p.MaxRuns = 1
		e.Save(p)
		q := rig.PipelineOf("d")
		q.Name = "q"
		e.Save(q)
		y := rig.Object("y", 1)
		y.Pipeline = "q"
		e.MustApply(y)                         // has the slot of d
		run := e.MustApply(rig.Object("x", 1)) // waits for the slot
		require.NoError(t, e.Signal(t.Context(), run.ID, "hello", nil))
		synctest.Wait()
		x := rig.Object("x", 2)
		x.Pipeline = "q"
		e.MustApply(x)
		time.Sleep(10 * time.Hour) // y and x are done
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State)
		last := e.MustApply(rig.Object("w", 1))
		time.Sleep(10 * time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(last.ID).State)
	})
}

func TestMaxRunsThatIsLiftedIsNotPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Recording(rig.Taking(100*time.Hour)))
		p := rig.PipelineOf("d")
		p.MaxRuns = 1
		e.Save(p)
		e.MustApply(rig.Object("holder", 1))
		o := rig.Object("x", 1)
		n := 0
		st.After(func(key string) {
			if key != "pip/p" {
				return
			}
			if n++; n == 1 { // it has read the old limit, and begins after this
				st.After(nil)
				p.MaxRuns = 0
				e.Save(p)
			}
		})
		run := e.MustApply(o)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateRunning, e.MustGetRun(run.ID).State)
	})
}

func TestMaxRunsIsLiftedByACommitOfUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Recording(rig.Taking(100*time.Hour)))
		p := rig.PipelineOf("d")
		p.MaxRuns = 1
		e.Save(p)
		e.MustApply(rig.Object("holder", 1))
		run := e.MustApply(rig.Object("x", 1))
		st := e.Store.Store
		p.MaxRuns = 0
		// another engine stands for the commit that has happened and whose answer was lost
		other, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		require.NoError(t, other.SavePipeline(t.Context(), p))
		e.Save(p)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateRunning, e.MustGetRun(run.ID).State)
	})
}

func TestADeletionDoesNotWaitForTheSlotOfTheFirstStep(t *testing.T) {
	for _, policy := range []conveyor.ChangePolicy{conveyor.Coalesce, conveyor.Queue} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("first", rig.Recording(rig.Taking(100*time.Hour)), conveyor.Concurrency(1))
				e.Driver("last", rig.Undoing(new(rig.Recorder), new(rig.Recorder)))
				p := rig.PipelineOf("first", "last")
				p.OnChange = policy
				e.Save(p)
				e.MustApply(rig.Object("holder", 1))
				e.MustApply(rig.Object("x", 1))
				gone, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
				require.NoError(t, err)
				time.Sleep(time.Hour)
				require.NotEqual(t, conveyor.StateQueued, e.MustGetRun(gone.ID).State)
			})
		})
	}
}

func TestAPipelineThatIsDeletedWhileARunBeginsEndsIt(t *testing.T) {
	for _, saved := range []bool{false, true} { // once more, at once
		t.Run(fmt.Sprint("saved again: ", saved), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &rig.Probe{Store: memory.New()}
				e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
				e.SavePlanned(rig.NewFanOut())
				var once atomic.Bool
				st.After(func(key string) {
					if key == "pip/p" && once.CompareAndSwap(false, true) {
						require.NoError(t, e.DeletePipeline(t.Context(), "p"))
						if saved {
							e.SavePlanned(rig.NewFanOut())
						}
					}
				})
				run := e.Finish(rig.Object("x", []string{"a", "b"}))
				if saved {
					require.NoError(t, run.Err())
					require.NoError(t, e.Finish(rig.Object("x", []string{"c"})).Err())
					return
				}
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Contains(t, run.Reason, "was deleted")
			})
		})
	}
}
