package features_test

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// generationsOf lists the generations of calls, in the order of the calls.
func generationsOf(calls []rig.Call) (generations []int64) {
	for _, c := range calls {
		generations = append(generations, c.Generation)
	}
	return generations
}

func TestRule03QueueReconcilesEveryGenerationInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", work)
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		for i := range 4 {
			run := e.MustApply(rig.Object("x", i))
			require.Equal(t, int64(i+1), run.Generation)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		require.Equal(t, []int64{1, 2, 3, 4}, generationsOf(work.All()))
	})
}

func TestRule03QueueGivesEachGenerationARunThatShowsWhatItStandsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, conveyor.Options{}) // not started: all of them are queued
		e.Driver("d", work)
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		var ids []string
		for i := range 4 {
			o := rig.Object("x", i)
			o.Metadata = map[string]string{"n": fmt.Sprint(i)}
			ids = append(ids, e.MustApply(o).ID)
		}
		for i, run := range e.RunsOf(rig.Object("x", nil)) {
			require.Equal(t, ids[i], run.ID)
			require.Equal(t, conveyor.StateQueued, run.State)
			require.Equal(t, int64(i+1), run.Generation)
		}
		status := e.MustGet(rig.Object("x", nil)).Status
		require.Equal(t, conveyor.Status{Phase: conveyor.StateQueued, Run: ids[3]}, status)
		require.Equal(t, ids[3], e.MustApply(&conveyor.Object{Meta: conveyor.Meta{
			Type: "r", Name: "x", Pipeline: "p", Metadata: map[string]string{"n": "3"},
		}, Spec: rig.JSON(3)}).ID, "an unchanged spec makes no run")
		again, err := e.Trigger(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err)
		require.Equal(t, ids[3], again.ID, "the last one queued stands for the newest generation")

		e.MustStart()
		time.Sleep(90 * time.Second)
		status = e.MustGet(rig.Object("x", nil)).Status
		require.Equal(t, conveyor.Status{Phase: conveyor.StateQueued, Run: ids[3], ObservedGeneration: 1}, status)
		require.Empty(t, e.MustGetRun(ids[1]).Reason, "it is at work")
		require.Equal(t, "waits for the end of run "+ids[1], e.MustGetRun(ids[2]).Reason)
		require.Equal(t, "waits for the runs queued before it", e.MustGetRun(ids[3]).Reason)
		require.NoError(t, e.Ended(ids[3]).Err())
		for i, c := range work.All() {
			require.Equal(t, ids[i], c.Run)
			require.Equal(t, fmt.Sprint(i), c.Spec)
		}
		require.Equal(t, conveyor.Status{Phase: conveyor.StateSucceeded, Run: ids[3], ObservedGeneration: 4}, e.MustGet(rig.Object("x", nil)).Status)
		require.Len(t, e.RunsOf(rig.Object("x", nil)), 4)
		rig.RequireAtRest(t, e.Store)
	})
}

func TestRule03QueueGoesOnAfterAFailureAndWithoutACanceledGeneration(t *testing.T) {
	for _, c := range []struct {
		name     string
		cancel   []int // of the generations 1 to 5, of which 1 is at work
		restart  bool
		want     []int64 // generations that the driver is called for
		observed int64
	}{
		{"none", nil, false, []int64{1, 2, 3, 4, 5}, 5},
		{"the first in line", []int{2}, false, []int64{1, 3, 4, 5}, 5},
		{"one in the middle", []int{3}, false, []int64{1, 2, 4, 5}, 5},
		{"the last", []int{5}, false, []int64{1, 2, 3, 4}, 5},
		{"the one at work and all but one behind it", []int{5, 4, 2, 1}, false, []int64{1, 3}, 5},
		{"all of them, from the back", []int{5, 4, 3, 2, 1}, false, []int64{1}, 5},
		{"one in the middle, before a restart", []int{3}, true, []int64{1, 1, 2, 4, 5}, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work := rig.Recording(rig.InTurn(rig.Taking(time.Minute), rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom))))
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", work)
				e.Save(rig.Queueing(rig.PipelineOf("d")))
				var ids []string
				for i := range 5 {
					ids = append(ids, e.MustApply(rig.Object("x", i)).ID)
				}
				for _, generation := range c.cancel {
					require.NoError(t, e.Cancel(t.Context(), ids[generation-1], "not this one"))
					synctest.Wait()
				}
				if c.restart {
					e = e.Crashed(conveyor.Options{})
					e.Driver("d", work)
					e.MustStart()
				}
				time.Sleep(time.Hour)
				require.Equal(t, c.want, generationsOf(work.All()))
				for i, id := range ids {
					require.True(t, e.MustGetRun(id).State.Final())
					require.Equal(t, int64(i+1), e.MustGetRun(id).Generation)
				}
				require.Equal(t, c.observed, e.MustGet(rig.Object("x", nil)).Status.ObservedGeneration)
				rig.RequireAtRest(t, e.Store)
			})
		})
	}
}

func TestRule03QueueIsGivenUpForADeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The finalizer takes its time, so that the second Delete comes while the deletion is under way.
		work := rig.Undoing(rig.Recording(rig.Taking(time.Minute)), rig.Recording(rig.Taking(time.Minute)))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", work)
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		var ids []string
		for i := range 3 {
			ids = append(ids, e.MustApply(rig.Object("x", i)).ID)
		}
		time.Sleep(time.Second)
		gone, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err)
		again, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err)
		require.Equal(t, gone.ID, again.ID)
		gone = e.Ended(gone.ID)
		require.NoError(t, gone.Err())
		require.Equal(t, conveyor.CauseDeleted, gone.Cause)
		for i, id := range ids {
			run := e.MustGetRun(id)
			require.ErrorIs(t, run.Err(), conveyor.ErrCanceled)
			require.Equal(t, "the resource is to be deleted", run.Reason)
			require.Equal(t, int64(i+1), run.Generation)
		}
		require.Equal(t, []int64{1}, generationsOf(work.All()))
		require.Len(t, work.Undo.All(), 1)
		_, err = e.Get(t.Context(), rig.Object("x", nil).Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		rig.RequireAtRest(t, e.Store)
		require.NoError(t, e.Finish(rig.Object("x", "anew")).Err())
	})
}

func TestRule03QueueBeginsAndEndsWithThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", work)
		e.Pipeline("d")
		for i := range 3 { // 2 is taken up by 3
			e.MustApply(rig.Object("x", i))
		}
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		e.MustApply(rig.Object("x", 3)) // 4 has a run of its own, and leaves 3 to the one before
		e.MustApply(rig.Object("x", 4))
		require.Equal(t, []int64{1, 3, 4, 5}, generationsShown(e.RunsOf(rig.Object("x", nil))))
		e.Pipeline("d")
		e.MustApply(rig.Object("x", 5)) // 6 waits behind others that keep theirs
		time.Sleep(time.Hour)
		e.MustApply(rig.Object("x", 6))
		e.MustApply(rig.Object("x", 7))
		e.MustApply(rig.Object("x", 8)) // 8 is taken up by 9
		time.Sleep(time.Hour)
		require.Equal(t, []int64{1, 3, 4, 5, 6, 7, 9}, generationsOf(work.All()))
		require.Equal(t, []int64{1, 3, 4, 5, 6, 7, 9}, generationsShown(e.RunsOf(rig.Object("x", nil))))
		rig.RequireAtRest(t, e.Store)
	})
}

func generationsShown(runs []*conveyor.Run) (generations []int64) {
	for _, run := range runs {
		generations = append(generations, run.Generation)
	}
	return generations
}

func TestRule17QueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Queue: 3}}).MustStart()
		e.Driver("d", work)
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		for i := range 4 { // one at work, and three that wait
			e.MustApply(rig.Object("x", i))
		}
		before := rig.Dump(t, e.Store)
		_, err := e.Apply(t.Context(), rig.Object("x", 5))
		require.ErrorIs(t, err, conveyor.ErrTooLarge)
		require.ErrorContains(t, err, "queue: 4 pending runs, more than the limit of 3 (Limits.Queue)")
		require.Equal(t, before, rig.Dump(t, e.Store))
		e.MustApply(rig.Object("y", 1)) // another resource has a line of its own
		time.Sleep(90 * time.Second)
		e.MustApply(rig.Object("x", 5))
		_, err = e.Delete(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err, "a deletion always has a place")
		time.Sleep(time.Hour)
		rig.RequireAtRest(t, e.Store)
	})
}

func TestRule17QueueCountsEveryRunThatHasNotBegun(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit int
		room  bool // for an active run
		taken int
	}{
		{"one behind the active run", 1, true, 2},
		{"two behind the active run", 2, true, 3},
		{"one that waits for a slot", 1, false, 1},
		{"two, the first of which waits for a slot", 2, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Queue: c.limit}}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Minute)), conveyor.Concurrency(1))
				e.Save(rig.Queueing(rig.PipelineOf("d")))
				if !c.room {
					e.MustApply(rig.Object("holder", 1))
				}
				for i := range c.taken {
					e.MustApply(rig.Object("x", i))
				}
				_, err := e.Apply(t.Context(), rig.Object("x", c.taken))
				require.ErrorIs(t, err, conveyor.ErrTooLarge)
				require.ErrorContains(t, err, fmt.Sprintf("queue: %d pending runs, more than the limit of %d (Limits.Queue)", c.limit+1, c.limit))
				e.MustApply(rig.Object("x", c.taken-1)) // which changes nothing
				_, err = e.Delete(t.Context(), rig.Object("x", nil).Key())
				require.NoError(t, err)
				time.Sleep(time.Hour)
				rig.RequireAtRest(t, e.Store)
			})
		})
	}
}

func TestRule03QueueKeepsThePipelineOfEachGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		a, b := rig.Recording(rig.Taking(time.Minute)), rig.Recording(nil)
		e.Driver("a", a)
		e.Driver("b", b)
		e.Save(rig.Queueing(rig.PipelineOf("a")))
		other := rig.Queueing(rig.PipelineOf("b"))
		other.Name = "q"
		e.Save(other)
		e.MustApply(rig.Object("x", 1))
		second := rig.Object("x", 2)
		second.Pipeline = "q"
		e.MustApply(second)
		e.MustApply(rig.Object("x", 3))
		require.NoError(t, e.DeletePipeline(t.Context(), "q"))
		time.Sleep(time.Hour)
		require.Equal(t, []int64{1, 3}, generationsOf(a.All()))
		require.Empty(t, b.All())
		failed := e.RunsOf(rig.Object("x", nil))[1]
		require.Equal(t, `pipeline "q" was deleted`, failed.Reason)
		require.Equal(t, "q", failed.Pipeline)
		rig.RequireAtRest(t, e.Store)
	})
}

func TestQueueRemovesNoGenerationThatARunInLineKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, conveyor.Options{Retention: conveyor.Retention{Runs: 1, Revisions: 1}}).MustStart()
		e.Driver("d", work)
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		for i := range 6 {
			e.MustApply(rig.Object("x", i))
		}
		time.Sleep(time.Hour)
		require.Equal(t, []int64{1, 2, 3, 4, 5, 6}, generationsOf(work.All()))
		require.Len(t, rig.Drain(t, e.Revisions(t.Context(), rig.Object("x", nil).Key())), 1)
	})
}

func TestRule14ACanceledDeletionIsNotDoneByTheRunBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			return conveyor.Result{}, context.Cause(ctx)
		}
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Recording(slow))
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		e.MustApply(rig.Object("x", 1))
		synctest.Wait() // its driver has been called, or else it would be over as soon as it is canceled
		second := e.MustApply(rig.Object("x", 2))
		gone, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err)
		require.NoError(t, e.Cancel(t.Context(), gone.ID, "not yet"))
		time.Sleep(time.Hour)
		t.Log(e.MustGetRun(second.ID).State, e.MustGetRun(second.ID).Reason, e.MustGetRun(second.ID).Cause)
		_, err = e.Get(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err, "the deletion was canceled; the resource stays, marked")
	})
}

// interposed is a store that does something before one list.
type interposed struct {
	store.Store
	before func(prefix string)
}

func (s *interposed) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		s.before(q.Prefix)
		s.Store.List(ctx, q)(yield)
	}
}

func TestARunIsNotLostWhenTheOneBehindItLeavesTheLineAsItBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leave atomic.Pointer[func(prefix string)]
		e := rig.NewOn(t, &interposed{memory.New(), func(prefix string) {
			if fn := leave.Load(); fn != nil {
				(*fn)(prefix)
			}
		}}, conveyor.Options{}).MustStart()
		work := rig.Recording(rig.Taking(time.Minute))
		e.Driver("d", work)
		e.Save(rig.Queueing(rig.PipelineOf("d")))
		var ids []string
		for i := range 3 {
			ids = append(ids, e.MustApply(rig.Object("x", i)).ID)
		}
		cancel := rig.Once("que/", func() { // the second run has read that the third is behind it, and looks for it
			require.NoError(t, e.Cancel(t.Context(), ids[2], "not needed"))
		})
		leave.Store(&cancel)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(ids[1]).State)
		require.Equal(t, conveyor.StateCanceled, e.MustGetRun(ids[2]).State)
		require.Equal(t, []int64{1, 2}, generationsOf(work.All()))
		rig.RequireAtRest(t, e.Store)
	})
}
