package features_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

var errRejected = errors.New("rejected")

// TestValidateIsAskedByWhatStoresASpec goes through the calls that store or run a spec.
func TestValidateIsAskedByWhatStoresASpec(t *testing.T) {
	key := rig.Object("a", nil).Key()
	for _, c := range []struct {
		name string
		call func(e *rig.Engine, first *conveyor.Run) error
		asks bool
	}{
		{"Apply", func(e *rig.Engine, _ *conveyor.Run) error {
			_, err := e.Apply(context.Background(), rig.Object("a", 3))
			return err
		}, true},
		{"Apply of what is there", func(e *rig.Engine, _ *conveyor.Run) error {
			_, err := e.Apply(context.Background(), rig.Object("a", 2))
			return err
		}, true},
		{"Create", func(e *rig.Engine, _ *conveyor.Run) error {
			_, err := e.Create(context.Background(), rig.Object("new", 1))
			return err
		}, true},
		{"Rollback", func(e *rig.Engine, _ *conveyor.Run) error {
			_, err := e.Rollback(context.Background(), key, 1)
			return err
		}, true},
		{"Rollback to what is there", func(e *rig.Engine, _ *conveyor.Run) error {
			_, err := e.Rollback(context.Background(), key, 2)
			return err
		}, true},
		{"Trigger", func(e *rig.Engine, _ *conveyor.Run) error {
			_, err := e.Trigger(context.Background(), key)
			return err
		}, false},
		{"Retry", func(e *rig.Engine, newest *conveyor.Run) error {
			_, err := e.Retry(context.Background(), newest.ID, conveyor.RetryFrom{Start: true})
			return err
		}, false},
		{"Retry along the newest definition", func(e *rig.Engine, newest *conveyor.Run) error {
			_, err := e.Retry(context.Background(), newest.ID, conveyor.RetryFrom{Newest: true, Start: true})
			return err
		}, false},
		{"Delete", func(e *rig.Engine, _ *conveyor.Run) error {
			_, err := e.Delete(context.Background(), key)
			return err
		}, false},
		{"a resync", func(*rig.Engine, *conveyor.Run) error {
			time.Sleep(time.Hour)
			return nil
		}, false},
		{"the registration of a listener", func(e *rig.Engine, _ *conveyor.Run) error {
			return e.Register("listener", new(rig.Recorder), conveyor.Listen("k"))
		}, false},
		{"a start", func(e *rig.Engine, _ *conveyor.Run) error {
			e.Stop()
			return nil
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, st store.Store) {
				strict, asked := false, []*conveyor.Object(nil)
				opts := conveyor.Options{Validate: func(_ context.Context, o *conveyor.Object) error {
					if !strict {
						return nil
					}
					asked = append(asked, o)
					return errRejected
				}}
				e := rig.NewOn(t, st, opts).MustStart()
				e.Driver("d", new(rig.Recorder))
				p := rig.PipelineOf("d")
				p.Resync = conveyor.Duration(time.Minute)
				e.Save(p)
				e.Finish(rig.Object("a", 1))
				newest := e.Finish(rig.Object("a", 2))
				e.MustApply(rig.Loose("k", "b", nil))
				synctest.Wait()
				before := rig.Dump(t, st)
				strict = true
				err := c.call(e, newest)
				if c.asks {
					require.ErrorIs(t, err, errRejected)
					require.Equal(t, before, rig.Dump(t, st), "nothing is stored")
					require.Len(t, asked, 1)
					return
				}
				require.NoError(t, err)
				if c.name == "a start" {
					rig.NewOn(t, st, opts).MustStart()
				}
				synctest.Wait()
				require.Empty(t, asked)
				if c.name != "a start" {
					require.NotEqual(t, before, rig.Dump(t, st))
				}
			})
		})
	}
}

func TestRollbackIsCheckedLikeAnApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		o := rig.Object("a", "a spec that is long")
		e.Finish(o)
		e.Finish(rig.Object("a", "short"))
		e = e.Reborn(conveyor.Options{Limits: conveyor.Limits{Spec: 10}}).MustStart()
		_, err := e.Rollback(t.Context(), o.Key(), 1)
		require.ErrorIs(t, err, conveyor.ErrTooLarge)
		var field *conveyor.FieldError
		require.ErrorAs(t, err, &field)
		require.Equal(t, "spec", field.Field)
	})
}

// TestAnOutputIsThereForTheStepsThatComeAfter has one step end while another one that runs beside it goes on. The other one
// never gets its output, however late it asks: otherwise it would depend on chance whether it does.
func TestAnOutputIsThereForTheStepsThatComeAfter(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("quick", rig.DriverOf(rig.InTurn(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(time.Second)
			return conveyor.DoneWith("of quick"), nil
		})))
		e.Driver("first", rig.DriverOf(rig.Always(conveyor.DoneWith("of first"), nil)))
		read := func(req *conveyor.Request, step string) (string, error) {
			var s string
			err := req.Output(step, &s)
			return s, err
		}
		calls := 0
		e.Driver("long", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			calls++
			for range 3 {
				got, err := read(req, "first")
				require.NoError(t, err)
				require.Equal(t, "of first", got)
				_, err = read(req, "quick")
				require.ErrorIs(t, err, conveyor.ErrNotFound)
				require.ErrorContains(t, err, `output of step "quick": it does not come before step "long"; name it in the After of that step`)
				time.Sleep(time.Second)
			}
			if calls == 1 {
				return conveyor.RequeueAfter(time.Second), nil
			}
			return conveyor.Done(), nil
		}))
		e.Save(conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{
			{ID: "first", Driver: "first"}, {ID: "quick", Driver: "quick", After: []string{"first"}}, {ID: "long", Driver: "long", After: []string{"first"}},
		}})
		require.NoError(t, e.Finish(rig.Object("a", nil)).Err())
		require.Equal(t, 2, calls)
	})
}

func TestAStepThatWasNeverCalledHasNoAttempt(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		o := rig.Object("a", nil)
		e.Finish(o)
		run, err := e.Delete(t.Context(), o.Key())
		require.NoError(t, err)
		for _, run := range []*conveyor.Run{e.Ended(run.ID), e.MustGetRun(run.ID)} {
			require.Equal(t, conveyor.StateSkipped, run.Steps[0].State)
			require.Contains(t, run.Steps[0].Reason, "has nothing to finalize")
			require.Zero(t, run.Steps[0].Attempt)
			require.Empty(t, run.Steps[0].Attempts)
		}
	})
}

func TestAStepThatHasNotBegunIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Minute)))
		e.Pipeline("d", "d")
		run := e.MustApply(rig.Object("a", nil))
		for _, run := range []*conveyor.Run{run, e.MustGetRun(run.ID), e.Reborn(conveyor.Options{}).MustGetRun(run.ID)} {
			require.Equal(t, conveyor.StatePending, run.Steps[1].State)
			require.Equal(t, "pending", run.Steps[1].State.String())
			require.Contains(t, string(rig.JSON(run)), `"driver":"d","state":"pending"}`)
			var chart writer
			require.NoError(t, run.Mermaid(&chart))
			require.Contains(t, string(chart), `s2["2<br/>d<br/>pending"]`)
			require.Contains(t, string(chart), "class s2 pending")
		}
		var old conveyor.StepRun
		require.NoError(t, old.State.UnmarshalText(nil), "what was written before has an empty text")
		require.Equal(t, conveyor.StateUnset, old.State)
		require.False(t, conveyor.StatePending.Final())
	})
}

// writer keeps what is written to it.
type writer []byte

func (w *writer) Write(b []byte) (int, error) {
	*w = append(*w, b...)
	return len(b), nil
}

func TestCancelTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("slow", rig.DriverOf(rig.Deaf(time.Second, conveyor.Done(), rig.ErrBoom)))
		clean := rig.Recording(rig.Taking(time.Minute))
		e.Driver("clean", clean)
		p := rig.PipelineOf("slow")
		p.Finally = []conveyor.Step{{Driver: "clean"}}
		e.Save(p)
		run := e.MustApply(rig.Object("a", nil))
		synctest.Wait()
		require.NoError(t, e.Cancel(t.Context(), run.ID, "first"))
		require.NoError(t, e.Cancel(t.Context(), run.ID, "second"), "the step still runs")
		time.Sleep(10 * time.Second)
		require.Len(t, clean.All(), 1, "the second call has not ended the cleanup")
		require.True(t, clean.Last().Ended.IsZero())
		require.NoError(t, e.Cancel(t.Context(), run.ID, "third"))
		run = e.Ended(run.ID)
		require.Equal(t, conveyor.StateCanceled, run.State)
		require.ErrorContains(t, run.Err(), "first")
		require.Less(t, run.EndedAt.Sub(run.StartedAt), 15*time.Second, "the third call has ended the cleanup")
		require.ErrorIs(t, e.Cancel(t.Context(), run.ID, "fourth"), conveyor.ErrConflict)
	})
}

func TestRetryAndTheEndOfAPipeline(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		ok := false
		d := rig.Recording(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			if ok {
				return conveyor.Done(), nil
			}
			return conveyor.Done(), conveyor.Permanent(rig.ErrBoom)
		})
		e.Driver("d", d)
		e.Pipeline("d")
		failed := e.Finish(rig.Object("a", nil))
		ok = true
		require.NoError(t, e.DeletePipeline(t.Context(), "p"))
		again, err := e.Retry(t.Context(), failed.ID, conveyor.RetryFrom{})
		require.NoError(t, err)
		require.NoError(t, e.Ended(again.ID).Err(), "its steps are those that the earlier run had pinned")
		newest, err := e.Retry(t.Context(), again.ID, conveyor.RetryFrom{Start: true, Newest: true})
		require.NoError(t, err)
		require.ErrorContains(t, e.Ended(newest.ID).Err(), "was deleted")
		_, err = e.Trigger(t.Context(), rig.Object("a", nil).Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	})
}

// TestRetrySaysWhyNot has the refusals that depend on the resource, and those of a run that never began.
func TestRetrySaysWhyNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Undoing(new(rig.Recorder), rig.Recording(rig.Taking(time.Hour))))
		e.Pipeline("d")
		ctx := t.Context()
		o := rig.Object("a", nil)
		run := e.Finish(o)
		gone, err := e.Delete(ctx, o.Key())
		require.NoError(t, err)
		_, err = e.Retry(ctx, run.ID, conveyor.RetryFrom{})
		require.ErrorIs(t, err, conveyor.ErrConflict, "it is being deleted")
		_, err = e.Trigger(ctx, o.Key())
		require.ErrorIs(t, err, conveyor.ErrConflict)
		require.NoError(t, e.Ended(gone.ID).Err())
		_, err = e.Retry(ctx, run.ID, conveyor.RetryFrom{})
		require.ErrorIs(t, err, conveyor.ErrNotFound, "it was deleted")
		e.Finish(rig.Object("a", nil))
		_, err = e.Retry(ctx, run.ID, conveyor.RetryFrom{})
		require.ErrorIs(t, err, conveyor.ErrNotFound, "the name is in use again")

		loose := rig.Loose("nobody-listens", "b", nil)
		skipped := e.Finish(loose)
		require.Empty(t, skipped.Steps)
		_, err = e.Retry(ctx, skipped.ID, conveyor.RetryFrom{Step: "1"})
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		again, err := e.Retry(ctx, skipped.ID, conveyor.RetryFrom{})
		require.NoError(t, err)
		require.Equal(t, conveyor.CauseTriggered, again.Cause, "a run that never began is triggered")
		ended, cancel := context.WithCancelCause(ctx)
		cancel(rig.ErrBoom)
		_, err = e.Retry(ended, run.ID, conveyor.RetryFrom{})
		require.ErrorIs(t, err, rig.ErrBoom)
	})
}
