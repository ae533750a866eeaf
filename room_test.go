package conveyor_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

func atMost(p conveyor.PipelineSpec, runs int) conveyor.PipelineSpec {
	p.MaxRuns = runs
	return p
}

// named gives a pipeline another name.
func named(name string, p conveyor.PipelineSpec) conveyor.PipelineSpec {
	p.Name = name
	return p
}

// along is a resource of type "r" along a pipeline.
func along(pipeline, name string) *conveyor.Object {
	o := object(name, nil)
	o.Pipeline = pipeline
	return o
}

// atWork counts the runs that have begun and not ended.
func atWork(t *testing.T, e *rig) (n int) {
	for _, run := range drain(t, e.Runs(context.Background(), conveyor.RunFilter{Unfinished: true})) {
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
		step driverFunc
	}{
		{"with a worker for each", conveyor.Options{}, taking(time.Second)},
		{"with two workers", conveyor.Options{Workers: 2}, taking(time.Second)},
		{"while they wait", conveyor.Options{}, func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var called bool
			if again, err := req.Restore(&called); err != nil || again {
				return conveyor.Done(), err
			}
			return conveyor.RequeueAfter(time.Second), req.Checkpoint(context.Background(), true)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, c.opts).start()
				e.driver("d", driverOf(c.step))
				e.save(atMost(pipelineOf("d", "d"), 3))
				e.save(named("q", pipelineOf("d")))
				for i := range 20 {
					e.apply(object(fmt.Sprint("x", i), nil))
				}
				synctest.Wait()
				most := 0
				for range 200 {
					synctest.Wait()
					most = max(most, atWork(t, e))
					time.Sleep(100 * time.Millisecond)
				}
				require.Equal(t, 3, most)
				runs := drain(t, e.Runs(t.Context(), conveyor.RunFilter{Pipeline: "p"}))
				for i, run := range runs[:len(runs)-2] {
					require.False(t, run.StartedAt.After(runs[i+2].StartedAt), "who came first goes first, but for neighbours")
				}
				require.NoError(t, e.finish(along("q", "other")).Err())
				time.Sleep(time.Minute)
				requireAtRest(t, e.store)
			})
		})
	}
}

func TestMaxRunsHoldsAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		work := driverOf(g.around(byNothing, taking(time.Minute)))
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", work)
		e.save(atMost(pipelineOf("d"), 2))
		for i := range 6 {
			e.apply(object(fmt.Sprint("x", i), nil))
		}
		time.Sleep(time.Second)
		e = e.reborn(conveyor.Options{})
		g = gauge{}
		e.driver("d", driverOf(g.around(byNothing, taking(time.Minute))))
		e.start()
		e.apply(object("late", nil))
		for range 6 {
			synctest.Wait()
			require.LessOrEqual(t, atWork(t, e), 2)
			time.Sleep(time.Minute)
		}
		require.Equal(t, 2, g.peak(""))
		requireAtRest(t, e.store)
	})
}

func TestMaxRunsCanBeChangedWhileRunsWait(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, e *rig)
		after  int // runs at work then
	}{
		{"raised", func(_ *testing.T, e *rig) { e.save(atMost(pipelineOf("d"), 4)) }, 4},
		{"lifted", func(_ *testing.T, e *rig) { e.save(pipelineOf("d")) }, 8},
		{"lowered", func(_ *testing.T, e *rig) { e.save(atMost(pipelineOf("d"), 1)) }, 2},
		{"of a pipeline that is deleted", func(t *testing.T, e *rig) { require.NoError(t, e.DeletePipeline(t.Context(), "p")) }, 2},
		{"and one is canceled", func(t *testing.T, e *rig) {
			require.NoError(t, e.Cancel(t.Context(), e.runs(object("x5", nil))[0].ID, "not needed"))
		}, 2},
		{"and one at work is canceled", func(t *testing.T, e *rig) {
			require.NoError(t, e.Cancel(t.Context(), e.runs(object("x0", nil))[0].ID, "not needed"))
		}, 2},
		{"and one at work is deleted", func(t *testing.T, e *rig) {
			_, err := e.Delete(t.Context(), object("x0", nil).Key())
			require.NoError(t, err)
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("d", driverOf(taking(time.Hour)))
				e.save(atMost(pipelineOf("d"), 2))
				for i := range 8 {
					e.apply(object(fmt.Sprint("x", i), nil))
				}
				time.Sleep(time.Minute)
				require.Equal(t, 2, atWork(t, e))
				c.change(t, e)
				time.Sleep(time.Minute)
				require.Equal(t, c.after, atWork(t, e))
				time.Sleep(24 * time.Hour)
				requireAtRest(t, e.store)
			})
		})
	}
}

func TestMaxRunsLoweredHoldsForARunThatHasRoomAndNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Workers: 1}).start()
		e.driver("patient", driverOf(inTurn(always(conveyor.RequeueAfter(time.Hour), nil), always(conveyor.RequeueAfter(time.Hour), nil), always(conveyor.Done(), nil))))
		e.driver("busy", driverOf(taking(10*time.Minute)))
		e.save(atMost(pipelineOf("patient"), 2))
		e.save(named("q", pipelineOf("busy")))
		var ids []string
		for i := range 3 {
			ids = append(ids, e.apply(object(fmt.Sprint("x", i), nil)).ID)
			synctest.Wait()
		}
		e.apply(along("q", "y"))
		require.NoError(t, e.Cancel(t.Context(), ids[0], "")) // which makes room for the third
		e.save(atMost(pipelineOf("patient"), 1))
		time.Sleep(30 * time.Minute)
		require.Equal(t, conveyor.StateWaiting, e.run(ids[1]).State)
		require.Equal(t, conveyor.StateQueued, e.run(ids[2]).State)
		require.NoError(t, e.ended(ids[1]).Err())
		require.NoError(t, e.ended(ids[2]).Err())
		requireAtRest(t, e.store)
	})
}

func TestAQueuedRunDoesNotWaitForADriverThatItsPipelineNeedsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("busy", driverOf(taking(24*time.Hour)), conveyor.Concurrency(1))
		e.driver("free", new(recorder))
		e.pipeline("busy")
		e.apply(object("x", nil))
		run := e.apply(object("y", nil))
		time.Sleep(time.Minute)
		require.Equal(t, conveyor.StateQueued, e.run(run.ID).State)
		e.pipeline("free")
		synctest.Wait()
		require.Equal(t, conveyor.StateSucceeded, e.run(run.ID).State)
		time.Sleep(48 * time.Hour)
		requireAtRest(t, e.store)
	})
}

func TestMaxRunsAndDriverSlotsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("narrow", driverOf(g.around(byNothing, taking(time.Second))), conveyor.Concurrency(1))
		e.driver("wide", driverOf(taking(time.Second)))
		e.save(atMost(pipelineOf("narrow", "wide", "narrow"), 2))
		e.save(atMost(named("q", pipelineOf("wide", "narrow")), 1))
		for i := range 10 {
			e.apply(along("p", fmt.Sprint("x", i)))
			e.apply(along("q", fmt.Sprint("y", i)))
		}
		for range 100 {
			synctest.Wait()
			require.LessOrEqual(t, atWork(t, e), 3)
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, g.peak(""))
		requireAtRest(t, e.store)
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
				work := recording(taking(time.Second))
				e := newEngine(t, conveyor.Options{Workers: c.workers}).start()
				e.driver("d", work, conveyor.Concurrency(c.slots))
				e.save(named("hot", pipelineOf("d")))
				e.save(named("cold", pipelineOf("d")))
				for i := range 100 {
					e.apply(along("hot", fmt.Sprint("x", i)))
				}
				for i := range 40 {
					run := e.apply(along("cold", fmt.Sprint("y", i)))
					require.NoError(t, e.Cancel(t.Context(), run.ID, "not needed"))
				}
				began := time.Now()
				require.NoError(t, e.finish(along("cold", "z")).Err())
				require.LessOrEqual(t, time.Since(began), 4*time.Second)
				time.Sleep(5 * time.Minute)
				requireAtRest(t, e.store)
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
				work := recording(taking(time.Second))
				e := newEngine(t, conveyor.Options{Workers: c.workers}).start()
				e.driver("d", work, c.opts...)
				hot := pipelineOf("d")
				for range c.steps - 1 {
					hot.Steps = append(hot.Steps, conveyor.Step{Driver: "d"})
				}
				e.save(named("hot", hot))
				e.save(named("cold", pipelineOf("d")))
				for i := range 300 {
					e.apply(along("hot", fmt.Sprint("hot", i)))
				}
				time.Sleep(10*time.Second + time.Millisecond)
				cold := e.finish(along("cold", "cold"))
				require.NoError(t, cold.Err())
				require.LessOrEqual(t, cold.StartedAt.Sub(cold.CreatedAt), c.within)
				require.NotEmpty(t, drain(t, e.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})))
				time.Sleep(3 * time.Hour)
				requireAtRest(t, e.store)
			})
		})
	}
}

func TestLongRunsOfOnePipelineTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := recording(taking(time.Second))
		e := newEngine(t, conveyor.Options{Workers: 1}).start()
		e.driver("d", work)
		e.pipeline("d", "d", "d")
		e.apply(object("a", nil))
		e.apply(object("b", nil))
		time.Sleep(time.Minute)
		var order []string
		for _, c := range work.all() {
			order = append(order, c.Resource+c.Step)
		}
		require.Equal(t, []string{"a1", "b1", "a2", "b2", "a3", "b3"}, order)
	})
}

func TestQuickStepsFollowOneAnotherInOneCommitThoughOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Workers: 1})
		e.driver("d", new(recorder))
		e.pipeline("d", "d", "d", "d")
		var ids []string
		for i := range 10 {
			ids = append(ids, e.apply(object(fmt.Sprint("x", i), nil)).ID)
		}
		e.start()
		for _, id := range ids {
			require.NoError(t, e.ended(id).Err())
			require.Equal(t, 6, e.store.commitsOf(id))
		}
	})
}

func TestARunThatWaitsForRoomTakesUpAnotherPipelineAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", recording(taking(100*time.Hour)))
		e.driver("quick", new(recorder))
		p := pipelineOf("d")
		p.MaxRuns = 1
		e.save(p)
		q := pipelineOf("quick")
		q.Name = "q"
		e.save(q)
		e.apply(object("holder", 1))
		run := e.apply(object("x", 1))
		require.Equal(t, conveyor.StateQueued, run.State)
		x := object("x", 1)
		x.Pipeline = "q"
		require.Equal(t, run.ID, e.apply(x).ID)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.run(run.ID).State, "q has room")
	})
}

func TestMaxRunsCountsNoRunThatCouldNotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{})
		e.driver("d", recording(taking(time.Hour)), conveyor.Concurrency(1))
		e.driver("free", new(recorder))
		p := pipelineOf("d")
		p.MaxRuns = 1
		e.save(p)
		q := pipelineOf("d")
		q.Name = "q"
		e.save(q)
		e.start()
		y := object("y", 1)
		y.Pipeline = "q"
		e.apply(y)                                                                // has the slot of d
		e.apply(object("x", 1))                                                   // waits for the slot
		require.NoError(t, e.Cancel(t.Context(), e.apply(object("z", 1)).ID, "")) // stays in no one's way
		run := e.run(e.runs(object("x", nil))[0].ID)
		require.Equal(t, conveyor.StateQueued, run.State)
		require.NoError(t, e.Signal(t.Context(), run.ID, "hello", nil)) // has it looked at
		synctest.Wait()
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		t.Log(st.Pipelines)
		require.Zero(t, st.Pipelines["p"].AtWork, "it has not begun")
		x := object("x", 2)
		x.Pipeline = "q"
		e.apply(x)
		time.Sleep(10 * time.Hour) // y and x are done
		st, _ = e.Stats(t.Context())
		require.Zero(t, st.Pipelines["p"].AtWork, "none is left")
		last := e.apply(object("w", 1))
		time.Sleep(10 * time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.run(last.ID).State)
	})
}

func TestMaxRunsLeavesTheRoomOfThePipelineThatARunDidNotGoAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", recording(taking(time.Hour)), conveyor.Concurrency(1))
		p := pipelineOf("d")
		p.MaxRuns = 1
		e.save(p)
		q := pipelineOf("d")
		q.Name = "q"
		e.save(q)
		y := object("y", 1)
		y.Pipeline = "q"
		e.apply(y)                     // has the slot of d
		run := e.apply(object("x", 1)) // waits for the slot
		require.NoError(t, e.Signal(t.Context(), run.ID, "hello", nil))
		synctest.Wait()
		x := object("x", 2)
		x.Pipeline = "q"
		e.apply(x)
		time.Sleep(10 * time.Hour) // y and x are done
		require.Equal(t, conveyor.StateSucceeded, e.run(run.ID).State)
		last := e.apply(object("w", 1))
		time.Sleep(10 * time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.run(last.ID).State)
	})
}

func TestMaxRunsThatIsLiftedIsNotPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &probe{Store: memory.New()}
		e := newEngineOn(t, st, conveyor.Options{}).start()
		e.driver("d", recording(taking(100*time.Hour)))
		p := pipelineOf("d")
		p.MaxRuns = 1
		e.save(p)
		e.apply(object("holder", 1))
		o := object("x", 1)
		n := 0
		st.on(func(key string) {
			if key != "pip/p" {
				return
			}
			if n++; n == 1 { // it has read the old limit, and begins after this
				st.on(nil)
				p.MaxRuns = 0
				e.save(p)
			}
		})
		run := e.apply(o)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateRunning, e.run(run.ID).State)
	})
}

func TestMaxRunsIsLiftedByACommitOfUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", recording(taking(100*time.Hour)))
		p := pipelineOf("d")
		p.MaxRuns = 1
		e.save(p)
		e.apply(object("holder", 1))
		run := e.apply(object("x", 1))
		st := e.store.Store
		p.MaxRuns = 0
		// another engine stands for the commit that has happened and whose answer was lost
		other, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		require.NoError(t, other.SavePipeline(t.Context(), p))
		e.save(p)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateRunning, e.run(run.ID).State)
	})
}

func TestADeletionDoesNotWaitForTheSlotOfTheFirstStep(t *testing.T) {
	for _, policy := range []conveyor.ChangePolicy{conveyor.Coalesce, conveyor.Queue} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("first", recording(taking(100*time.Hour)), conveyor.Concurrency(1))
				e.driver("last", undoer{new(recorder), new(recorder)})
				p := pipelineOf("first", "last")
				p.OnChange = policy
				e.save(p)
				e.apply(object("holder", 1))
				e.apply(object("x", 1))
				gone, err := e.Delete(t.Context(), object("x", nil).Key())
				require.NoError(t, err)
				time.Sleep(time.Hour)
				require.NotEqual(t, conveyor.StateQueued, e.run(gone.ID).State)
			})
		})
	}
}

func TestAPipelineThatIsDeletedWhileARunBeginsEndsIt(t *testing.T) {
	for _, saved := range []bool{false, true} { // once more, at once
		t.Run(fmt.Sprint("saved again: ", saved), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &probe{Store: memory.New()}
				e := newEngineOn(t, st, conveyor.Options{}).start()
				e.driver("d", driverOf(taking(time.Second)))
				e.plan(newFanOut())
				var once atomic.Bool
				st.on(func(key string) {
					if key == "pip/p" && once.CompareAndSwap(false, true) {
						require.NoError(t, e.DeletePipeline(t.Context(), "p"))
						if saved {
							e.plan(newFanOut())
						}
					}
				})
				run := e.finish(object("x", []string{"a", "b"}))
				if saved {
					require.NoError(t, run.Err())
					require.NoError(t, e.finish(object("x", []string{"c"})).Err())
					return
				}
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Contains(t, run.Reason, "was deleted")
			})
		})
	}
}
