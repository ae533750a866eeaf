package conveyor_test

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
)

func TestRule03SupersedeCancelsTheRunFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		var cause error
		work := recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if string(req.Resource.Spec) != `"one"` {
				return conveyor.Done(), nil
			}
			_, err := taking(time.Hour)(ctx, req)
			cause = context.Cause(ctx)
			return conveyor.Done(), err
		})
		undo := new(recorder)
		e.driver("d", work)
		e.driver("undo", undo)
		p := pipelineOf("d", "d")
		p.OnChange = conveyor.Supersede
		p.Finally = []conveyor.Step{{ID: "undo", Driver: "undo"}}
		e.save(p)
		first := e.apply(object("x", "one"))
		time.Sleep(time.Minute)
		second := e.apply(object("x", "two"))
		second = e.ended(second.ID)
		require.NoError(t, second.Err())
		require.Equal(t, time.Minute, second.EndedAt.Sub(first.CreatedAt))
		first = e.run(first.ID)
		require.ErrorIs(t, first.Err(), conveyor.ErrSuperseded)
		require.ErrorIs(t, cause, conveyor.ErrSuperseded)
		require.Equal(t, "generation 2 came", first.Reason)
		require.Equal(t, []string{"superseded", "skipped", "succeeded"}, statesOf(first))
		require.Empty(t, first.Steps[0].Attempts, "an interruption uses no attempt")
		require.Len(t, undo.all(), 2)
	})
}

func TestARunIsEndedForAnotherWithoutAWorker(t *testing.T) {
	for _, c := range []struct {
		name  string
		state conveyor.State
		end   func(t *testing.T, e *rig)
	}{
		{"superseded", conveyor.StateSuperseded, func(_ *testing.T, e *rig) { e.apply(object("x", "two")) }},
		{"canceled by a deletion", conveyor.StateCanceled, func(t *testing.T, e *rig) {
			_, err := e.Delete(t.Context(), object("x", nil).Key())
			require.NoError(t, err)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{Workers: 1}).start()
				e.driver("d", driverOf(taking(24*time.Hour)))
				p := pipelineOf("d")
				p.OnChange = conveyor.Supersede
				e.save(p)
				run := e.apply(object("x", "one"))
				_, err := e.Trigger(t.Context(), object("x", nil).Key()) // queued, and now it stands for what comes
				require.NoError(t, err)
				c.end(t, e)
				synctest.Wait()
				require.Equal(t, c.state, e.run(run.ID).State, "its own call held the only worker")
				time.Sleep(48 * time.Hour)
				requireAtRest(t, e.store)
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
	rec := recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		return taking(time.Duration(lasts[int(calls.Add(1))%len(lasts)])*time.Millisecond)(ctx, req)
	})
	opts := conveyor.Options{}
	e := newEngine(t, opts).start()
	e.driver("d", rec)
	p := pipelineOf("d", "d")
	p.OnChange = policy
	e.save(p)
	var run *conveyor.Run
	for i, pause := range pauses {
		time.Sleep(time.Duration(pause) * time.Millisecond)
		if i == restart {
			old := e
			e = old.crashed(opts)
			expired, cancel := context.WithDeadline(context.Background(), time.Now())
			_ = old.Shutdown(expired) // so that none of its calls comes after those of its successor
			cancel()
			synctest.Wait()
			e.driver("d", rec)
			e.start()
		}
		run = e.apply(object("x", i))
	}
	if err := e.ended(run.ID).Err(); err != nil {
		return err
	}
	synctest.Wait()
	if n := len(e.runs(object("x", nil))); n > len(pauses) {
		return fmt.Errorf("%d runs of %d generations", n, len(pauses))
	}
	last := rec.last()
	if want := fmt.Sprint(len(pauses) - 1); last.Step != "2" || last.Spec != want || last.Ended.IsZero() {
		return fmt.Errorf("the last call was %+v; want step 2 of spec %s", last, want)
	}
	return nil
}
