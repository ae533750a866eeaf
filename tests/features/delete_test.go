package features_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

func TestRule14DeleteFinalizesInReverseOrderAndThenRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		undo := rig.Recording(rig.InTurn(rig.Always(conveyor.Done(), rig.ErrBoom), rig.Always(conveyor.RequeueAfter(time.Minute), nil), rig.Always(conveyor.Done(), nil)))
		e.Driver("vm", rig.Undoing(new(rig.Recorder), undo))
		plain := new(rig.Recorder)
		e.Driver("plain", plain)
		e.Pipeline("vm", "plain", "vm")
		o := rig.Object("x", "one")
		e.Finish(o)
		require.NoError(t, e.Finish(rig.Object("x", "two")).Err())
		key := o.Key()

		run, err := e.Delete(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, conveyor.CauseDeleted, run.Cause)
		marked, err := e.Get(t.Context(), key)
		require.NoError(t, err)
		require.NotNil(t, marked.DeletedAt)
		again, err := e.Delete(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, run.ID, again.ID, "it is under way")
		_, err = e.Apply(t.Context(), rig.Object("x", "three"))
		require.ErrorIs(t, err, conveyor.ErrConflict)
		_, err = e.Trigger(t.Context(), key)
		require.ErrorIs(t, err, conveyor.ErrConflict)

		run = e.Ended(run.ID)
		require.NoError(t, run.Err())
		require.Equal(t, []string{"3", "3/2", "3/2", "1"}, undo.Steps())
		require.Equal(t, []string{"succeeded", "skipped", "succeeded"}, rig.StatesOf(run))
		require.Equal(t, "two", specOf(t, undo.Last()))
		_, err = e.Get(t.Context(), key)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		require.Len(t, plain.All(), 2)
	})
}

func TestRule14DeletedNameStartsAnewWithItsGenerationGoingOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		o := rig.Object("x", "one")
		e.Finish(o)
		e.Finish(rig.Object("x", "two"))
		old := e.MustGet(o)
		run, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		require.NoError(t, e.Ended(run.ID).Err())
		_, err = e.Get(t.Context(), o.Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		_, err = e.Delete(t.Context(), o.Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)

		anew := rig.Object("x", "two")
		_, err = e.Create(t.Context(), anew)
		require.NoError(t, err)
		require.Equal(t, old.Generation+1, anew.Generation)
		require.Equal(t, int64(1), anew.Version)
		require.NotEqual(t, old.ID, anew.ID)
		require.Len(t, rig.Drain(t, e.Revisions(t.Context(), o.Key())), 1, "no old revision shows through")
	})
}

func TestRule14DeleteCancelsWhatIsUnderWay(t *testing.T) {
	for _, c := range []struct {
		name  string
		apply []string // specs applied before the delete
	}{
		{"one run at work", []string{"one"}},
		{"one at work and one queued", []string{"one", "two"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				work, undo := rig.Recording(rig.Taking(time.Hour)), new(rig.Recorder)
				e.Driver("d", rig.Undoing(work, undo))
				e.Pipeline("d")
				var first *conveyor.Run
				for _, spec := range c.apply {
					if run := e.MustApply(rig.Object("x", spec)); first == nil {
						first = run
					}
					time.Sleep(time.Minute)
				}
				run, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
				require.NoError(t, err)
				require.NoError(t, e.Ended(run.ID).Err())
				require.ErrorIs(t, e.MustGetRun(first.ID).Err(), conveyor.ErrCanceled)
				require.Len(t, work.All(), 1)
				require.Len(t, undo.All(), 1)
				require.Equal(t, time.Duration(len(c.apply))*time.Minute, time.Since(first.CreatedAt))
			})
		})
	}
}

func TestRule14DeleteThatFailsLeavesTheResourceMarkedAndCanBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		undo := rig.Recording(rig.InTurn(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), rig.Always(conveyor.Done(), nil)))
		e.Driver("d", rig.Undoing(new(rig.Recorder), undo))
		e.Pipeline("d")
		o := rig.Object("x", nil)
		e.Finish(o)
		run, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		require.Equal(t, conveyor.StateFailed, e.Ended(run.ID).State)
		_, err = e.Apply(t.Context(), rig.Object("x", "two"))
		require.ErrorIs(t, err, conveyor.ErrConflict)
		again, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		require.NotEqual(t, run.ID, again.ID)
		require.NoError(t, e.Ended(again.ID).Err())
		_, err = e.Get(t.Context(), o.Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	})
}

func TestRule14DeleteSurvivesACrashAtEveryCommit(t *testing.T) {
	for n := 1; ; n++ {
		done := false
		synctest.Test(t, func(t *testing.T) { done = deleteWithCrash(t, n) })
		if done {
			require.Greater(t, n, 3, "there were commits to crash at")
			return
		}
	}
}

// deleteWithCrash dies at the nth commit after Delete was called, starts again, and reports that there was no such
// commit.
func deleteWithCrash(t *testing.T, n int) (done bool) {
	opts := conveyor.Options{}
	e := rig.New(t, opts).MustStart()
	undo := new(rig.Recorder)
	d := rig.Undoing(rig.Recording(rig.InTurn(rig.Always(conveyor.Done(), nil), rig.Taking(time.Hour))), undo)
	e.Driver("d", d)
	e.Pipeline("d", "d")
	o := rig.Object("x", nil)
	e.MustApply(o)
	time.Sleep(time.Minute)
	var commits atomic.Int64
	e.Store.Refusing(func([]string) error {
		if commits.Add(1) == int64(n) {
			e.Store.CutOff()
			return fmt.Errorf("the process died")
		}
		return nil
	})
	run, err := e.Delete(t.Context(), o.Key())
	acknowledged := err == nil
	if acknowledged {
		time.Sleep(time.Minute)
	}
	done = commits.Load() < int64(n)
	e = e.Crashed(opts)
	e.Driver("d", d)
	e.MustStart()
	if !acknowledged {
		run, err = e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
	}
	if !done {
		require.NoError(t, e.Ended(run.ID).Err(), "died at commit %d", n)
	}
	_, err = e.Get(t.Context(), o.Key())
	require.ErrorIs(t, err, conveyor.ErrNotFound)
	require.Equal(t, "2", undo.All()[0].Step)
	require.Equal(t, "1", undo.Last().Step)
	return done
}

func TestRule14DeleteWithoutAPipelineFinalizesTheListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		undo := new(rig.Recorder)
		e.Driver("a", rig.Undoing(new(rig.Recorder), undo), conveyor.Listen("r"))
		e.Driver("b", new(rig.Recorder), conveyor.Listen("r"))
		o := rig.Loose("r", "x", nil)
		e.Finish(o)
		run, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		run = e.Ended(run.ID)
		require.NoError(t, run.Err())
		require.Equal(t, []string{"skipped", "succeeded"}, rig.StatesOf(run))
		require.Equal(t, conveyor.CauseDeleted, undo.Last().Cause)
	})
}

func specOf(t *testing.T, c rig.Call) (spec string) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(c.Spec), &spec))
	return spec
}

func TestAHaltInAFinalizerSkipsNoOtherFinalizer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		undo := rig.Recording(rig.Always(conveyor.Halt("nothing is left"), nil))
		e.Driver("vm", rig.Undoing(new(rig.Recorder), undo))
		e.Pipeline("vm", "vm", "vm")
		o := rig.Object("x", 1)
		require.NoError(t, e.Finish(o).Err())
		run, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, []string{"3", "2", "1"}, undo.Steps())
		_, err = e.Get(t.Context(), o.Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	})
}

// TestARetryThatBecomesADeletionFinalizesAllSteps deletes a resource while a retry of its newest run waits to begin.
func TestARetryThatBecomesADeletionFinalizesAllSteps(t *testing.T) {
	for _, planned := range []bool{false, true} {
		t.Run(fmt.Sprint("planned ", planned), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
				undo := new(rig.Recorder)
				e.Driver("work", rig.Undoing(rig.Recording(rig.InTurn(rig.Always(conveyor.Done(), nil), rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)))), undo))
				e.Driver("busy", rig.DriverOf(rig.Taking(time.Hour)))
				p := rig.PipelineOf("work", "work")
				if planned {
					p.Steps = nil
					require.NoError(t, e.SavePipeline(t.Context(), &plannedSteps{p, []conveyor.Step{{ID: "1", Driver: "work"}, {ID: "2", Driver: "work"}}}))
				} else {
					e.Save(p)
				}
				e.PipelineNamed("busy", "busy")
				o := rig.Object("x", 1)
				failed := e.Finish(o)
				require.Equal(t, conveyor.StateFailed, failed.State)
				e.MustApply(rig.Along("busy", "y")) // it takes the worker
				synctest.Wait()
				_, err := e.Retry(t.Context(), failed.ID, conveyor.RetryFrom{Newest: planned})
				require.NoError(t, err)
				run, err := e.Delete(t.Context(), o.Key())
				require.NoError(t, err)
				run = e.Ended(run.ID)
				require.NoError(t, run.Err())
				require.Equal(t, []string{"2", "1"}, undo.Steps())
				require.Empty(t, run.Of)
			})
		})
	}
}

// TestADeletionFinalizesWhatTheNewestRunHad deletes a resource after its pipeline or its drivers have changed.
func TestADeletionFinalizesWhatTheNewestRunHad(t *testing.T) {
	save := func(steps ...string) func(*rig.Engine) { return func(e *rig.Engine) { e.Pipeline(steps...) } }
	finish := func(state conveyor.State) func(*rig.Engine) {
		return func(e *rig.Engine) {
			time.Sleep(time.Second)
			require.Equal(e.T, state, e.Finish(rig.Object("x", time.Now())).State)
		}
	}
	loose := func(e *rig.Engine) { require.NoError(e.T, e.Finish(rig.Loose("r", "x", 1)).Err()) }
	listen := func(names ...string) func(*rig.Engine) {
		return func(e *rig.Engine) {
			for _, name := range names {
				e.Driver(name, rig.Undoing(new(rig.Recorder), new(rig.Recorder)), conveyor.Listen("r"))
			}
		}
	}
	failing := func(name string) func(*rig.Engine) {
		return func(e *rig.Engine) {
			e.Driver(name, rig.Undoing(rig.Recording(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom))), new(rig.Recorder)))
		}
	}
	do := func(all ...func(*rig.Engine)) func(*rig.Engine) {
		return func(e *rig.Engine) {
			for _, f := range all {
				f(e)
			}
		}
	}
	for _, c := range []struct {
		name      string
		before    func(*rig.Engine)
		finalizes []string // drivers
	}{
		{"the pipeline has other steps now", do(save("a", "b"), finish(conveyor.StateSucceeded), save("c")), []string{"b", "a"}},
		{"the pipeline has the steps in another order", do(save("a", "b"), finish(conveyor.StateSucceeded), save("b", "a")), []string{"b", "a"}},
		{"the pipeline is gone", do(save("a", "b"), finish(conveyor.StateSucceeded), func(e *rig.Engine) {
			require.NoError(e.T, e.DeletePipeline(e.T.Context(), "p"))
		}), []string{"b", "a"}},
		{"the pipeline is for another type", do(save("a", "b"), finish(conveyor.StateSucceeded), func(e *rig.Engine) {
			p := rig.PipelineOf("c")
			p.Resource = "other"
			e.Save(p)
		}), []string{"b", "a"}},
		{"the pipeline was deleted before a run began", do(save("a"), func(e *rig.Engine) {
			e.MustApply(rig.Object("x", 1))
			require.NoError(e.T, e.DeletePipeline(e.T.Context(), "p"))
		}), nil},
		{"a newer generation has run other steps", do(save("a", "b"), finish(conveyor.StateSucceeded), save("c", "a"), finish(conveyor.StateSucceeded)), []string{"a", "c"}},
		{"a step was never called", do(failing("f"), save("a", "f", "b"), finish(conveyor.StateFailed)), []string{"f", "a"}},
		{"a step was called in an earlier run", do(failing("f"), save("a", "b"), finish(conveyor.StateSucceeded), save("a", "b", "f", "c"), finish(conveyor.StateFailed),
			save("f", "b"), finish(conveyor.StateFailed)), []string{"b", "f"}},
		{"a step was put in front", do(save("a", "b"), finish(conveyor.StateSucceeded), failing("f"), save("f", "a", "b"), finish(conveyor.StateFailed)), []string{"b", "a", "f"}},
		{"a driver listens later", do(listen("l1", "l2"), loose, listen("l0", "l3")), []string{"l2", "l1"}},
		{"no driver has listened", do(func(e *rig.Engine) {
			require.Equal(e.T, conveyor.StateSkipped, e.Finish(rig.Loose("r", "x", 1)).State)
		}), nil},
	} {
		for _, crashed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, crashed %t", c.name, crashed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := rig.New(t, conveyor.Options{})
					register := func() {
						for _, name := range []string{"a", "b", "c"} {
							e.Driver(name, rig.Undoing(new(rig.Recorder), new(rig.Recorder)))
						}
					}
					register()
					started := c.name != "the pipeline was deleted before a run began"
					if started {
						e.MustStart()
					}
					c.before(e)
					if crashed {
						e = e.Crashed(conveyor.Options{})
						register()
						for _, name := range []string{"f", "l0", "l1", "l2", "l3"} {
							e.Driver(name, rig.Undoing(new(rig.Recorder), new(rig.Recorder)))
						}
					}
					run, err := e.Delete(t.Context(), rig.Object("x", 1).Key())
					require.NoError(t, err)
					if crashed || !started {
						e.MustStart()
					}
					run = e.Ended(run.ID)
					require.NoError(t, run.Err())
					var finalized []string
					for _, s := range run.Steps {
						require.Equal(t, conveyor.StateSucceeded, s.State)
						finalized = append(finalized, s.Driver)
					}
					require.Equal(t, c.finalizes, finalized)
				})
			})
		}
	}
}

// TestADeletionCancelsAQueuedRun deletes a resource whose newest run waits for a worker or for the run before it.
func TestADeletionCancelsAQueuedRun(t *testing.T) {
	for _, before := range []int{0, 1} {
		t.Run(fmt.Sprint(before, " at work"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
				undo := new(rig.Recorder)
				e.Driver("d", rig.Undoing(rig.Recording(rig.Taking(time.Hour)), undo))
				e.Pipeline("d")
				if before == 0 {
					e.MustApply(rig.Object("other", 1)) // it takes the worker
				} else {
					e.MustApply(rig.Object("x", 0))
				}
				queued := e.MustApply(rig.Object("x", 1))
				gone, err := e.Delete(t.Context(), rig.Object("x", 1).Key())
				require.NoError(t, err)
				require.NotEqual(t, queued.ID, gone.ID)
				require.ErrorIs(t, e.Ended(queued.ID).Err(), conveyor.ErrCanceled)
				require.Equal(t, conveyor.CauseDeleted, gone.Cause)
				require.NoError(t, e.Ended(gone.ID).Err())
				require.Len(t, undo.All(), before)
				require.Equal(t, queued.Cause, e.MustGetRun(queued.ID).Cause)
				require.Equal(t, "the resource is to be deleted", e.MustGetRun(queued.ID).Reason)
			})
		})
	}
}

// TestADeletionFinalizesNoStepThatTheHostAlwaysRefused deletes a resource whose driver was never called, because the host
// had no capacity.
func TestADeletionFinalizesNoStepThatTheHostAlwaysRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var room atomic.Bool
		e := rig.New(t, conveyor.Options{Admission: conveyor.AdmissionFunc(func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
			if !room.Load() {
				return nil, time.Minute, nil
			}
			return func() {}, 0, nil
		})}).MustStart()
		work, undo := new(rig.Recorder), new(rig.Recorder)
		e.Driver("d", rig.Undoing(work, undo))
		e.Pipeline("d")
		e.MustApply(rig.Object("x", 1))
		time.Sleep(10*time.Minute + time.Second)
		room.Store(true)
		run, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err)
		require.NoError(t, e.Ended(run.ID).Err())
		require.Empty(t, work.All())
		require.Empty(t, undo.All())
	})
}
