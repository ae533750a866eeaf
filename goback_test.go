package conveyor_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

func TestRetryGoesOnWhereARunFailed(t *testing.T) {
	strict := func() conveyor.PipelineSpec { return graphOf("a", "b", "c") }
	graph := func() conveyor.PipelineSpec { return graphOf("a", "b<a", "c<b", "x", "y<x") }
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
				e := newEngine(t, conveyor.Options{}).start()
				broken := true
				rec := recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					lasts := time.Second
					if req.Step.ID == "a" {
						lasts = time.Minute // until a graph's other way is through
					}
					if broken && req.Step.ID == c.fails {
						return conveyor.Result{}, conveyor.Permanent(errBoom)
					}
					if _, err := taking(lasts)(ctx, req); err != nil {
						return conveyor.Result{}, err
					}
					if req.Step.ID == "c" && !broken {
						var a string
						require.NoError(t, req.Output("a", &a), "the outputs are kept")
						require.Equal(t, "from a", a)
					}
					return conveyor.DoneWith("from " + req.Step.ID), nil
				})
				e.driver("d", rec)
				e.save(c.spec)
				first := e.finish(object("x", nil))
				require.Equal(t, c.fails == "", first.State == conveyor.StateSucceeded)
				n := len(rec.all())
				broken = false
				again, err := e.Retry(t.Context(), first.ID, c.from)
				require.NoError(t, err)
				again = e.ended(again.ID)
				require.NoError(t, again.Err())
				require.Equal(t, first.ID, again.Of)
				require.Equal(t, conveyor.CauseRetried, again.Cause)
				require.Equal(t, first.Generation, again.Generation)
				require.ElementsMatch(t, c.want, rec.steps()[n:])
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
				e := newEngine(t, conveyor.Options{}).start()
				rec := recording(inTurn(always(conveyor.Done(), nil), always(conveyor.Done(), conveyor.Permanent(errBoom)), always(conveyor.Done(), nil)))
				e.driver("d", rec)
				e.save(graphOf("a", "b"))
				first := e.finish(object("x", nil))
				e.save(graphOf("a", "new", "b"))
				again, err := e.Retry(t.Context(), first.ID, c.from)
				require.NoError(t, err)
				require.NoError(t, e.ended(again.ID).Err())
				require.Equal(t, c.want, rec.steps()[2:])
			})
		})
	}
}

func TestRetrySurvivesACrashAndKeepsWhatWasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{}
		e := newEngine(t, opts).start()
		rec := recording(inTurn(always(conveyor.DoneWith(1), nil), always(conveyor.Done(), conveyor.Permanent(errBoom)), taking(time.Hour)))
		e.driver("d", rec)
		e.pipeline("d", "d")
		first := e.finish(object("x", nil))
		again, err := e.Retry(t.Context(), first.ID, conveyor.RetryFrom{})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		e = e.crashed(opts)
		e.driver("d", rec)
		e.start()
		require.NoError(t, e.ended(again.ID).Err())
		require.Equal(t, []string{"1", "2", "2", "2+"}, rec.steps())
	})
}

func TestRetryRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(inTurn(always(conveyor.Done(), conveyor.Permanent(errBoom)), taking(time.Hour))))
		e.pipeline("d")
		ctx := t.Context()
		first := e.finish(object("x", 1))
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
		e.finish(object("x", 2))
		_, err = e.Retry(ctx, first.ID, conveyor.RetryFrom{})
		require.ErrorIs(t, err, conveyor.ErrConflict, "the generation is no longer the newest")
	})
}

func TestRollbackMakesAnEarlierGenerationTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		rec := new(recorder)
		e.driver("d", rec)
		e.pipeline("d")
		e.pipelineNamed("q", "d", "d")
		o := object("x", "one")
		o.Metadata = map[string]string{"owner": "ann"}
		e.finish(o)
		two := object("x", "two")
		two.Pipeline, two.Metadata = "q", map[string]string{"owner": "bob"}
		e.finish(two)
		run, err := e.Rollback(t.Context(), o.Key(), 1)
		require.NoError(t, err)
		require.NoError(t, e.ended(run.ID).Err())
		now := e.resource(o)
		require.Equal(t, int64(3), now.Generation)
		require.Equal(t, "p", now.Pipeline)
		require.Equal(t, "bob", now.Metadata["owner"], "the metadata stays")
		require.JSONEq(t, `"one"`, string(now.Spec))
		require.Equal(t, `"one"`, rec.last().Spec)

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
