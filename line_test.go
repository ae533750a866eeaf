package conveyor_test

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
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

func queueing(p conveyor.PipelineSpec) conveyor.PipelineSpec {
	p.OnChange = conveyor.Queue
	return p
}

// generationsOf lists the generations of calls, in the order of the calls.
func generationsOf(calls []call) (generations []int64) {
	for _, c := range calls {
		generations = append(generations, c.Generation)
	}
	return generations
}

func TestRule03QueueReconcilesEveryGenerationInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := recording(taking(time.Minute))
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", work)
		e.save(queueing(pipelineOf("d")))
		for i := range 4 {
			run := e.apply(object("x", i))
			require.Equal(t, int64(i+1), run.Generation)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		require.Equal(t, []int64{1, 2, 3, 4}, generationsOf(work.all()))
	})
}

func TestRule03QueueGivesEachGenerationARunThatShowsWhatItStandsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := recording(taking(time.Minute))
		e := newEngine(t, conveyor.Options{}) // not started: all of them are queued
		e.driver("d", work)
		e.save(queueing(pipelineOf("d")))
		var ids []string
		for i := range 4 {
			o := object("x", i)
			o.Metadata = map[string]string{"n": fmt.Sprint(i)}
			ids = append(ids, e.apply(o).ID)
		}
		for i, run := range e.runs(object("x", nil)) {
			require.Equal(t, ids[i], run.ID)
			require.Equal(t, conveyor.StateQueued, run.State)
			require.Equal(t, int64(i+1), run.Generation)
		}
		status := e.resource(object("x", nil)).Status
		require.Equal(t, conveyor.Status{Phase: conveyor.StateQueued, Run: ids[3]}, status)
		require.Equal(t, ids[3], e.apply(&conveyor.Object{Meta: conveyor.Meta{
			Type: "r", Name: "x", Pipeline: "p", Metadata: map[string]string{"n": "3"},
		}, Spec: jsonOf(3)}).ID, "an unchanged spec makes no run")
		again, err := e.Trigger(t.Context(), object("x", nil).Key())
		require.NoError(t, err)
		require.Equal(t, ids[3], again.ID, "the last one queued stands for the newest generation")

		e.start()
		time.Sleep(90 * time.Second)
		status = e.resource(object("x", nil)).Status
		require.Equal(t, conveyor.Status{Phase: conveyor.StateQueued, Run: ids[3], ObservedGeneration: 1}, status)
		require.Empty(t, e.run(ids[1]).Reason, "it is at work")
		require.Equal(t, "waits for the end of run "+ids[1], e.run(ids[2]).Reason)
		require.Equal(t, "waits for the runs queued before it", e.run(ids[3]).Reason)
		require.NoError(t, e.ended(ids[3]).Err())
		for i, c := range work.all() {
			require.Equal(t, ids[i], c.Run)
			require.Equal(t, fmt.Sprint(i), c.Spec)
		}
		require.Equal(t, conveyor.Status{Phase: conveyor.StateSucceeded, Run: ids[3], ObservedGeneration: 4}, e.resource(object("x", nil)).Status)
		require.Len(t, e.runs(object("x", nil)), 4)
		requireAtRest(t, e.store)
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
				work := recording(inTurn(taking(time.Minute), always(conveyor.Done(), conveyor.Permanent(errBoom))))
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("d", work)
				e.save(queueing(pipelineOf("d")))
				var ids []string
				for i := range 5 {
					ids = append(ids, e.apply(object("x", i)).ID)
				}
				for _, generation := range c.cancel {
					require.NoError(t, e.Cancel(t.Context(), ids[generation-1], "not this one"))
					synctest.Wait()
				}
				if c.restart {
					e = e.crashed(conveyor.Options{})
					e.driver("d", work)
					e.start()
				}
				time.Sleep(time.Hour)
				require.Equal(t, c.want, generationsOf(work.all()))
				for i, id := range ids {
					require.True(t, e.run(id).State.Final())
					require.Equal(t, int64(i+1), e.run(id).Generation)
				}
				require.Equal(t, c.observed, e.resource(object("x", nil)).Status.ObservedGeneration)
				requireAtRest(t, e.store)
			})
		})
	}
}

func TestRule03QueueIsGivenUpForADeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := undoer{recording(taking(time.Minute)), new(recorder)}
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", work)
		e.save(queueing(pipelineOf("d")))
		var ids []string
		for i := range 3 {
			ids = append(ids, e.apply(object("x", i)).ID)
		}
		time.Sleep(time.Second)
		gone, err := e.Delete(t.Context(), object("x", nil).Key())
		require.NoError(t, err)
		again, err := e.Delete(t.Context(), object("x", nil).Key())
		require.NoError(t, err)
		require.Equal(t, gone.ID, again.ID)
		gone = e.ended(gone.ID)
		require.NoError(t, gone.Err())
		require.Equal(t, conveyor.CauseDeleted, gone.Cause)
		for i, id := range ids {
			run := e.run(id)
			require.ErrorIs(t, run.Err(), conveyor.ErrCanceled)
			require.Equal(t, "the resource is to be deleted", run.Reason)
			require.Equal(t, int64(i+1), run.Generation)
		}
		require.Equal(t, []int64{1}, generationsOf(work.all()))
		require.Len(t, work.undo.all(), 1)
		_, err = e.Get(t.Context(), object("x", nil).Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		requireAtRest(t, e.store)
		require.NoError(t, e.finish(object("x", "anew")).Err())
	})
}

func TestRule03QueueBeginsAndEndsWithThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := recording(taking(time.Minute))
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", work)
		e.pipeline("d")
		for i := range 3 { // 2 is taken up by 3
			e.apply(object("x", i))
		}
		e.save(queueing(pipelineOf("d")))
		e.apply(object("x", 3)) // 4 has a run of its own, and leaves 3 to the one before
		e.apply(object("x", 4))
		require.Equal(t, []int64{1, 3, 4, 5}, generationsShown(e.runs(object("x", nil))))
		e.pipeline("d")
		e.apply(object("x", 5)) // 6 waits behind others that keep theirs
		time.Sleep(time.Hour)
		e.apply(object("x", 6))
		e.apply(object("x", 7))
		e.apply(object("x", 8)) // 8 is taken up by 9
		time.Sleep(time.Hour)
		require.Equal(t, []int64{1, 3, 4, 5, 6, 7, 9}, generationsOf(work.all()))
		require.Equal(t, []int64{1, 3, 4, 5, 6, 7, 9}, generationsShown(e.runs(object("x", nil))))
		requireAtRest(t, e.store)
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
		work := recording(taking(time.Minute))
		e := newEngine(t, conveyor.Options{Limits: conveyor.Limits{Queue: 3}}).start()
		e.driver("d", work)
		e.save(queueing(pipelineOf("d")))
		for i := range 5 { // one at work, one that is next, and three behind it
			e.apply(object("x", i))
		}
		before := dump(t, e.store)
		_, err := e.Apply(t.Context(), object("x", 5))
		require.ErrorIs(t, err, conveyor.ErrTooLarge)
		require.ErrorContains(t, err, "queue: 4 runs in line, more than the limit of 3")
		require.Equal(t, before, dump(t, e.store))
		e.apply(object("y", 1)) // another resource has a line of its own
		time.Sleep(90 * time.Second)
		e.apply(object("x", 5))
		_, err = e.Delete(t.Context(), object("x", nil).Key())
		require.NoError(t, err, "a deletion always has a place")
		time.Sleep(time.Hour)
		requireAtRest(t, e.store)
	})
}

func TestRule03QueueKeepsThePipelineOfEachGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		a, b := recording(taking(time.Minute)), recording(nil)
		e.driver("a", a)
		e.driver("b", b)
		e.save(queueing(pipelineOf("a")))
		other := queueing(pipelineOf("b"))
		other.Name = "q"
		e.save(other)
		e.apply(object("x", 1))
		second := object("x", 2)
		second.Pipeline = "q"
		e.apply(second)
		e.apply(object("x", 3))
		require.NoError(t, e.DeletePipeline(t.Context(), "q"))
		time.Sleep(time.Hour)
		require.Equal(t, []int64{1, 3}, generationsOf(a.all()))
		require.Empty(t, b.all())
		failed := e.runs(object("x", nil))[1]
		require.Equal(t, `pipeline "q" was deleted`, failed.Reason)
		require.Equal(t, "q", failed.Pipeline)
		requireAtRest(t, e.store)
	})
}

func TestQueueRemovesNoGenerationThatARunInLineKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := recording(taking(time.Minute))
		e := newEngine(t, conveyor.Options{Retention: conveyor.Retention{Runs: 1, Revisions: 1}}).start()
		e.driver("d", work)
		e.save(queueing(pipelineOf("d")))
		for i := range 6 {
			e.apply(object("x", i))
		}
		time.Sleep(time.Hour)
		require.Equal(t, []int64{1, 2, 3, 4, 5, 6}, generationsOf(work.all()))
		require.Len(t, drain(t, e.Revisions(t.Context(), object("x", nil).Key())), 1)
	})
}

func TestRule14ACanceledDeletionIsNotDoneByTheRunBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			return conveyor.Result{}, context.Cause(ctx)
		}
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", recording(slow))
		e.save(queueing(pipelineOf("d")))
		e.apply(object("x", 1))
		synctest.Wait() // its driver has been called, or else it would be over as soon as it is canceled
		second := e.apply(object("x", 2))
		gone, err := e.Delete(t.Context(), object("x", nil).Key())
		require.NoError(t, err)
		require.NoError(t, e.Cancel(t.Context(), gone.ID, "not yet"))
		time.Sleep(time.Hour)
		t.Log(e.run(second.ID).State, e.run(second.ID).Reason, e.run(second.ID).Cause)
		_, err = e.Get(t.Context(), object("x", nil).Key())
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
		e := newEngineOn(t, &interposed{memory.New(), func(prefix string) {
			if fn := leave.Load(); fn != nil {
				(*fn)(prefix)
			}
		}}, conveyor.Options{}).start()
		work := recording(taking(time.Minute))
		e.driver("d", work)
		e.save(queueing(pipelineOf("d")))
		var ids []string
		for i := range 3 {
			ids = append(ids, e.apply(object("x", i)).ID)
		}
		cancel := once("que/", func() { // the second run has read that the third is behind it, and looks for it
			require.NoError(t, e.Cancel(t.Context(), ids[2], "not needed"))
		})
		leave.Store(&cancel)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.run(ids[1]).State)
		require.Equal(t, conveyor.StateCanceled, e.run(ids[2]).State)
		require.Equal(t, []int64{1, 2}, generationsOf(work.all()))
		requireAtRest(t, e.store)
	})
}
