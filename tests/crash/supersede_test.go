package crash_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

func TestRule03SupersedeCancelsTheRunFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		var cause error
		work := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if string(req.Resource.Spec) != `"one"` {
				return conveyor.Done(), nil
			}
			_, err := rig.Taking(time.Hour)(ctx, req)
			cause = context.Cause(ctx)
			return conveyor.Done(), err
		})
		undo := new(rig.Recorder)
		e.Driver("d", work)
		e.Driver("undo", undo)
		p := rig.PipelineOf("d", "d")
		p.OnChange = conveyor.Supersede
		p.Finally = []conveyor.Step{{ID: "undo", Driver: "undo"}}
		e.Save(p)
		first := e.MustApply(rig.Object("x", "one"))
		time.Sleep(time.Minute)
		second := e.MustApply(rig.Object("x", "two"))
		second = e.Ended(second.ID)
		require.NoError(t, second.Err())
		require.Equal(t, time.Minute, second.EndedAt.Sub(first.CreatedAt))
		first = e.MustGetRun(first.ID)
		require.ErrorIs(t, first.Err(), conveyor.ErrSuperseded)
		require.ErrorIs(t, cause, conveyor.ErrSuperseded)
		require.Equal(t, "generation 2 came", first.Reason)
		require.Equal(t, []string{"superseded", "skipped", "succeeded"}, rig.StatesOf(first))
		require.Empty(t, first.Steps[0].Attempts, "an interruption uses no attempt")
		require.Len(t, undo.All(), 2)
	})
}

func TestARunIsEndedForAnotherWithoutAWorker(t *testing.T) {
	for _, c := range []struct {
		name  string
		state conveyor.State
		end   func(t *testing.T, e *rig.Engine)
	}{
		{"superseded", conveyor.StateSuperseded, func(_ *testing.T, e *rig.Engine) { e.MustApply(rig.Object("x", "two")) }},
		{"canceled by a deletion", conveyor.StateCanceled, func(t *testing.T, e *rig.Engine) {
			_, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
			require.NoError(t, err)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(24*time.Hour)))
				p := rig.PipelineOf("d")
				p.OnChange = conveyor.Supersede
				e.Save(p)
				run := e.MustApply(rig.Object("x", "one"))
				_, err := e.Trigger(t.Context(), rig.Object("x", nil).Key()) // queued, and now it stands for what comes
				require.NoError(t, err)
				c.end(t, e)
				synctest.Wait()
				require.Equal(t, c.state, e.MustGetRun(run.ID).State, "its own call held the only worker")
				time.Sleep(48 * time.Hour)
				rig.RequireAtRest(t, e.Store)
			})
		})
	}
}

func TestRule03LastAcknowledgedGenerationIsReconciledWhateverThePolicy(t *testing.T) {
	for _, policy := range []conveyor.ChangePolicy{conveyor.Coalesce, conveyor.Supersede, conveyor.Queue} {
		t.Run(policy.String(), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				lasts := rapid.SliceOfN(rapid.IntRange(0, 3000), 2, 6).Draw(rt, "attempts last")
				pauses := rapid.SliceOfN(rapid.IntRange(0, 4000), 1, 12).Draw(rt, "pauses before applies")
				restart := rapid.IntRange(-1, len(pauses)-1).Draw(rt, "restart before apply")
				var broken error
				synctest.Test(t, func(t *testing.T) { broken = applyAtMoments(t, policy, lasts, pauses, restart) })
				require.NoError(rt, broken)
			})
		})
	}
}

// applyAtMoments applies a spec after each pause, and reports an error unless the newest one is what both steps have
// seen last, together.
func applyAtMoments(t *testing.T, policy conveyor.ChangePolicy, lasts, pauses []int, restart int) error {
	var calls atomic.Int64
	rec := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return rig.Taking(time.Duration(lasts[int(calls.Add(1))%len(lasts)])*time.Millisecond)(ctx, req)
	})
	opts := conveyor.Options{}
	e := rig.New(t, opts).MustStart()
	e.Driver("d", rec)
	p := rig.PipelineOf("d", "d")
	p.OnChange = policy
	e.Save(p)
	var run *conveyor.Run
	for i, pause := range pauses {
		time.Sleep(time.Duration(pause) * time.Millisecond)
		if i == restart {
			old := e
			e = old.Crashed(opts)
			expired, cancel := context.WithDeadline(context.Background(), time.Now())
			_ = old.Shutdown(expired) // so that none of its calls comes after those of its successor
			cancel()
			synctest.Wait()
			e.Driver("d", rec)
			e.MustStart()
		}
		run = e.MustApply(rig.Object("x", i))
	}
	if err := e.Ended(run.ID).Err(); err != nil {
		return err
	}
	synctest.Wait()
	if n := len(e.RunsOf(rig.Object("x", nil))); n > len(pauses) {
		return fmt.Errorf("%d runs of %d generations", n, len(pauses))
	}
	last := rec.Last()
	if want := fmt.Sprint(len(pauses) - 1); last.Step != "2" || last.Spec != want || last.Ended.IsZero() {
		return fmt.Errorf("the last call was %+v; want step 2 of spec %s", last, want)
	}
	return nil
}
