package features_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

func TestRetryGoesOnWhereARunFailed(t *testing.T) {
	strict := func() conveyor.PipelineSpec { return rig.GraphOf("a", "b", "c") }
	graph := func() conveyor.PipelineSpec { return rig.GraphOf("a", "b<a", "c<b", "x<", "y<x") }
	for _, c := range []struct {
		name  string
		spec  conveyor.PipelineSpec
		fails string
		from  conveyor.RetryFrom
		want  []string // steps called again
	}{
		{"from the failed step", strict(), "b", conveyor.RetryFrom{}, []string{"b", "c"}},
		{"from a named step", strict(), "c", conveyor.RetryFrom{Step: "b"}, []string{"b", "c"}},
		{"from the start", strict(), "c", conveyor.RetryFrom{Start: true}, []string{"a", "b", "c"}},
		{"from the start on the newest definition", strict(), "c", conveyor.RetryFrom{Start: true, Newest: true}, []string{"a", "b", "c"}},
		{"from the failed step of a graph", graph(), "b", conveyor.RetryFrom{}, []string{"b", "c"}},
		{"from a named step of a graph", graph(), "c", conveyor.RetryFrom{Step: "x"}, []string{"c", "x", "y"}},
		{"of a run that succeeded, from a named step", strict(), "", conveyor.RetryFrom{Step: "c"}, []string{"c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				broken := true
				rec := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					lasts := time.Second
					if req.Step.ID == "a" {
						lasts = time.Minute // until a graph's other way is through
					}
					if broken && req.Step.ID == c.fails {
						return conveyor.Result{}, conveyor.Permanent(rig.ErrBoom)
					}
					if _, err := rig.Taking(lasts)(ctx, req); err != nil {
						return conveyor.Result{}, err
					}
					if req.Step.ID == "c" && !broken {
						var a string
						require.NoError(t, req.Output("a", &a), "the outputs are kept")
						require.Equal(t, "from a", a)
					}
					return conveyor.DoneWith("from " + req.Step.ID), nil
				})
				e.Driver("d", rec)
				e.Save(c.spec)
				first := e.Finish(rig.Object("x", nil))
				require.Equal(t, c.fails == "", first.State == conveyor.StateSucceeded)
				n := len(rec.All())
				broken = false
				again, err := e.Retry(t.Context(), first.ID, c.from)
				require.NoError(t, err)
				again = e.Ended(again.ID)
				require.NoError(t, again.Err())
				require.Equal(t, first.ID, again.Of)
				require.Equal(t, conveyor.CauseRetried, again.Cause)
				require.Equal(t, first.Generation, again.Generation)
				require.ElementsMatch(t, c.want, rec.Steps()[n:])
				for _, s := range again.Steps {
					require.Equal(t, conveyor.StateSucceeded, s.State)
					require.JSONEq(t, `"from `+s.ID+`"`, string(s.Output))
				}
			})
		})
	}
}

func TestRetryUsesThePinnedStepsOrTheNewest(t *testing.T) {
	for _, c := range []struct {
		name string
		from conveyor.RetryFrom
		want []string
	}{
		{"those that were pinned", conveyor.RetryFrom{}, []string{"b"}},
		{"the newest", conveyor.RetryFrom{Newest: true}, []string{"new", "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				rec := rig.Recording(rig.InTurn(rig.Always(conveyor.Done(), nil), rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), rig.Always(conveyor.Done(), nil)))
				e.Driver("d", rec)
				e.Save(rig.GraphOf("a", "b"))
				first := e.Finish(rig.Object("x", nil))
				e.Save(rig.GraphOf("a", "new", "b"))
				again, err := e.Retry(t.Context(), first.ID, c.from)
				require.NoError(t, err)
				require.NoError(t, e.Ended(again.ID).Err())
				require.Equal(t, c.want, rec.Steps()[2:])
			})
		})
	}
}

func TestRetrySurvivesACrashAndKeepsWhatWasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{}
		e := rig.New(t, opts).MustStart()
		rec := rig.Recording(rig.InTurn(rig.Always(conveyor.DoneWith(1), nil), rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), rig.Taking(time.Hour)))
		e.Driver("d", rec)
		e.Pipeline("d", "d")
		first := e.Finish(rig.Object("x", nil))
		again, err := e.Retry(t.Context(), first.ID, conveyor.RetryFrom{})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		e = e.Crashed(opts)
		e.Driver("d", rec)
		e.MustStart()
		require.NoError(t, e.Ended(again.ID).Err())
		require.Equal(t, []string{"1", "2", "2", "2+"}, rec.Steps())
	})
}

func TestRetryRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.InTurn(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), rig.Taking(time.Hour))))
		e.Pipeline("d")
		ctx := t.Context()
		first := e.Finish(rig.Object("x", 1))
		_, err := e.Retry(ctx, "no-such-run", conveyor.RetryFrom{})
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		_, err = e.Retry(ctx, first.ID, conveyor.RetryFrom{Step: "7"})
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		_, err = e.Retry(ctx, first.ID, conveyor.RetryFrom{Step: "1", Start: true})
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		again, err := e.Retry(ctx, first.ID, conveyor.RetryFrom{})
		require.NoError(t, err)
		_, err = e.Retry(ctx, first.ID, conveyor.RetryFrom{})
		require.ErrorIs(t, err, conveyor.ErrConflict, "one is under way")
		_, err = e.Retry(ctx, again.ID, conveyor.RetryFrom{})
		require.ErrorIs(t, err, conveyor.ErrConflict, "it has not ended")
		e.Finish(rig.Object("x", 2))
		_, err = e.Retry(ctx, first.ID, conveyor.RetryFrom{})
		require.ErrorIs(t, err, conveyor.ErrConflict, "the generation is no longer the newest")
	})
}

func TestRollbackMakesAnEarlierGenerationTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		rec := new(rig.Recorder)
		e.Driver("d", rec)
		e.Pipeline("d")
		e.PipelineNamed("q", "d", "d")
		o := rig.Object("x", "one")
		o.Metadata = map[string]string{"owner": "ann"}
		e.Finish(o)
		two := rig.Object("x", "two")
		two.Pipeline, two.Metadata = "q", map[string]string{"owner": "bob"}
		e.Finish(two)
		run, err := e.Rollback(t.Context(), o.Key(), 1)
		require.NoError(t, err)
		require.NoError(t, e.Ended(run.ID).Err())
		now := e.MustGet(o)
		require.Equal(t, int64(3), now.Generation)
		require.Equal(t, "p", now.Pipeline)
		require.Equal(t, "bob", now.Metadata["owner"], "the metadata stays")
		require.JSONEq(t, `"one"`, string(now.Spec))
		require.Equal(t, `"one"`, rec.Last().Spec)

		same, err := e.Rollback(t.Context(), o.Key(), 3)
		require.NoError(t, err)
		require.Equal(t, run.ID, same.ID)
		for _, generation := range []int64{-1, 0, 4} {
			_, err = e.Rollback(t.Context(), o.Key(), generation)
			require.ErrorIs(t, err, conveyor.ErrNotFound)
		}
		_, err = e.Rollback(t.Context(), conveyor.Key{Type: "r", Name: "none"}, 1)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	})
}
