package conveyor_test

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
)

// undoer is a driver that can be finalized.
type undoer struct {
	*recorder
	undo *recorder
}

func (u undoer) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return u.undo.Reconcile(ctx, req)
}

func TestRule14DeleteFinalizesInReverseOrderAndThenRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		undo := recording(inTurn(always(conveyor.Done(), errBoom), always(conveyor.RequeueAfter(time.Minute), nil), always(conveyor.Done(), nil)))
		e.driver("vm", undoer{new(recorder), undo})
		plain := new(recorder)
		e.driver("plain", plain)
		e.pipeline("vm", "plain", "vm")
		o := object("x", "one")
		e.finish(o)
		require.NoError(t, e.finish(object("x", "two")).Err())
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
		_, err = e.Apply(t.Context(), object("x", "three"))
		require.ErrorIs(t, err, conveyor.ErrConflict)
		_, err = e.Trigger(t.Context(), key)
		require.ErrorIs(t, err, conveyor.ErrConflict)

		run = e.ended(run.ID)
		require.NoError(t, run.Err())
		require.Equal(t, []string{"3", "3/2", "3/2", "1"}, undo.steps())
		require.Equal(t, []string{"succeeded", "skipped", "succeeded"}, statesOf(run))
		require.Equal(t, "two", specOf(t, undo.last()))
		_, err = e.Get(t.Context(), key)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		require.Len(t, plain.all(), 2)
	})
}

func TestRule14DeletedNameStartsAnewWithItsGenerationGoingOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", new(recorder))
		e.pipeline("d")
		o := object("x", "one")
		e.finish(o)
		e.finish(object("x", "two"))
		old := e.resource(o)
		run, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		require.NoError(t, e.ended(run.ID).Err())
		_, err = e.Get(t.Context(), o.Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		_, err = e.Delete(t.Context(), o.Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)

		anew := object("x", "two")
		_, err = e.Create(t.Context(), anew)
		require.NoError(t, err)
		require.Equal(t, old.Generation+1, anew.Generation)
		require.Equal(t, int64(1), anew.Version)
		require.NotEqual(t, old.ID, anew.ID)
		require.Len(t, drain(t, e.Revisions(t.Context(), o.Key())), 1, "no old revision shows through")
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
				e := newEngine(t, conveyor.Options{}).start()
				work, undo := recording(taking(time.Hour)), new(recorder)
				e.driver("d", undoer{work, undo})
				e.pipeline("d")
				var first *conveyor.Run
				for _, spec := range c.apply {
					if run := e.apply(object("x", spec)); first == nil {
						first = run
					}
					time.Sleep(time.Minute)
				}
				run, err := e.Delete(t.Context(), object("x", nil).Key())
				require.NoError(t, err)
				require.NoError(t, e.ended(run.ID).Err())
				require.ErrorIs(t, e.run(first.ID).Err(), conveyor.ErrCanceled)
				require.Len(t, work.all(), 1)
				require.Len(t, undo.all(), 1)
				require.Equal(t, time.Duration(len(c.apply))*time.Minute, time.Since(first.CreatedAt))
			})
		})
	}
}

func TestRule14DeleteThatFailsLeavesTheResourceMarkedAndCanBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		undo := recording(inTurn(always(conveyor.Done(), conveyor.Permanent(errBoom)), always(conveyor.Done(), nil)))
		e.driver("d", undoer{new(recorder), undo})
		e.pipeline("d")
		o := object("x", nil)
		e.finish(o)
		run, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		require.Equal(t, conveyor.StateFailed, e.ended(run.ID).State)
		_, err = e.Apply(t.Context(), object("x", "two"))
		require.ErrorIs(t, err, conveyor.ErrConflict)
		again, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		require.NotEqual(t, run.ID, again.ID)
		require.NoError(t, e.ended(again.ID).Err())
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
	e := newEngine(t, opts).start()
	undo := new(recorder)
	d := undoer{recording(taking(time.Hour)), undo}
	e.driver("d", d)
	e.pipeline("d", "d")
	o := object("x", nil)
	e.apply(o)
	time.Sleep(time.Minute)
	var commits atomic.Int64
	e.store.refusing(func([]string) error {
		if commits.Add(1) == int64(n) {
			e.store.cutOff()
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
	e = e.crashed(opts)
	e.driver("d", d)
	e.start()
	if !acknowledged {
		run, err = e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
	}
	if !done {
		require.NoError(t, e.ended(run.ID).Err(), "died at commit %d", n)
	}
	_, err = e.Get(t.Context(), o.Key())
	require.ErrorIs(t, err, conveyor.ErrNotFound)
	require.Equal(t, "2", undo.all()[0].Step)
	require.Equal(t, "1", undo.last().Step)
	return done
}

func TestRule14DeleteWithoutAPipelineFinalizesTheListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		undo := new(recorder)
		e.driver("a", undoer{new(recorder), undo}, conveyor.Listen("r"))
		e.driver("b", new(recorder), conveyor.Listen("r"))
		o := loose("r", "x", nil)
		e.finish(o)
		run, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		run = e.ended(run.ID)
		require.NoError(t, run.Err())
		require.Equal(t, []string{"skipped", "succeeded"}, statesOf(run))
		require.Equal(t, conveyor.CauseDeleted, undo.last().Cause)
	})
}

func specOf(t *testing.T, c call) (spec string) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(c.Spec), &spec))
	return spec
}
