package features_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

func TestGraphFaultsAreNamed(t *testing.T) {
	for _, c := range []struct {
		name  string
		graph conveyor.PipelineSpec
		want  []string
	}{
		{"a step after itself", rig.GraphOf("a", "b<b"), []string{`steps[1].after[0]: step "b" comes after itself`}},
		{"an unknown step", rig.GraphOf("a", "b<x"), []string{`steps[1].after[0]: no step has the id "x"`}},
		{"a step named twice", rig.GraphOf("a", "b<a,a"), []string{`steps[1].after[1]: "a" comes twice`}},
		{"two that wait for each other", rig.GraphOf("a<b", "b<a"), []string{`steps: the steps "a", "b" wait for each other`}},
		{"a ring with steps before and behind it", rig.GraphOf("a", "b<a,d", "c<b", "d<c", "e<d"), []string{`the steps "b", "c", "d" wait for each other`}},
		{"equal ids", rig.GraphOf("a", "a<a"), []string{`steps[1].id: "a" is the id of steps[0] too`}},
		{"several at once", rig.GraphOf("a<a", "b<x"), []string{"steps[0].after[0]", "steps[1].after[0]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.graph.Validate()
			require.ErrorIs(t, err, conveyor.ErrInvalid)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
	require.NoError(t, rig.GraphOf("a", "b<a", "c<a", "d<b,c", "e").Validate())
}

func TestGraphStepsStartAsSoonAsTheirPredecessorsAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		lasts := map[string]time.Duration{"a": 1 * time.Second, "b": 5 * time.Second, "c": 2 * time.Second, "d": time.Second, "e": time.Second, "f": 3 * time.Second}
		rec := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return rig.Taking(lasts[req.Step.ID])(ctx, req)
		})
		e.Driver("d", rec)
		e.Save(rig.GraphOf("d<b,c", "a<", "b<a", "c<a", "e<c", "f<")) // every step has an After, and the order of the list means nothing
		began := time.Now()
		run := e.Finish(rig.Object("x", nil))
		require.NoError(t, run.Err())
		starts := map[string]time.Duration{}
		for _, call := range rec.All() {
			starts[call.Step] = call.Began.Sub(began)
		}
		require.Equal(t, map[string]time.Duration{
			"a": 0, "f": 0, "b": time.Second, "c": time.Second, "e": 3 * time.Second, "d": 6 * time.Second,
		}, starts)
		require.Equal(t, 7*time.Second, run.EndedAt.Sub(run.StartedAt))
	})
}

func TestGraphFailureEndsTheRunWhenWhatIsUnderWayHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		rec := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			switch req.Step.ID {
			case "bad":
				return conveyor.Result{}, conveyor.Permanent(rig.ErrBoom)
			case "retries":
				return conveyor.Result{}, rig.ErrBoom
			}
			return rig.Taking(time.Minute)(ctx, req)
		})
		e.Driver("d", rec)
		e.Save(rig.GraphOf("long<", "retries<", "bad<", "after-long<long", "after-bad<bad"))
		run := e.Finish(rig.Object("x", nil))
		require.Equal(t, []string{"succeeded", "skipped", "failed", "skipped", "skipped"}, rig.StatesOf(run))
		require.Equal(t, time.Minute, run.EndedAt.Sub(run.StartedAt))
		require.Equal(t, "bad", stepError(t, run).Step)
	})
}

func TestGraphToleratedFailureLetsTheRunSucceed(t *testing.T) {
	for _, c := range []struct {
		name  string
		graph conveyor.PipelineSpec
	}{
		{"in a graph", rig.GraphOf("bad", "next<bad", "last<next")},
		{"in strict order", rig.GraphOf("bad", "next", "last")},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				rec := rig.Recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if req.Step.ID == "bad" {
						return conveyor.Result{}, rig.ErrBoom
					}
					return conveyor.Done(), nil
				})
				e.Driver("d", rec)
				c.graph.Steps[0].ContinueOnError = true
				e.Save(c.graph)
				run := e.Finish(rig.Object("x", nil))
				require.NoError(t, run.Err())
				require.Equal(t, conveyor.StateSucceeded, run.State)
				require.Equal(t, []string{"failed", "succeeded", "succeeded"}, rig.StatesOf(run))
				require.Equal(t, []string{"bad", "bad/2", "bad/3", "next", "last"}, rec.Steps())
			})
		})
	}
}

// TestGraphKeepsItsOrderAcrossRandomRestarts runs random graphs with random failures, and restarts the program at
// random moments. Whatever happens, no step begins before its predecessors are done, and none that is done begins
// again.
func TestGraphKeepsItsOrderAcrossRandomRestarts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "steps")
		p := conveyor.PipelineSpec{Name: "p", Resource: "r", Retry: &conveyor.RetryPolicy{MaxAttempts: -1}}
		graph := rapid.Bool().Draw(rt, "graph")
		for i := range n {
			step := conveyor.Step{ID: string(rune('a' + i)), Driver: "d"}
			written := graph && rapid.Bool().Draw(rt, "written")
			if written {
				step.After = conveyor.AtOnce()
			}
			for k := range i {
				if written && rapid.Bool().Draw(rt, "arrow") {
					step.After = append(step.After, string(rune('a'+k)))
				}
			}
			p.Steps = append(p.Steps, step)
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		restarts := rapid.IntRange(0, 3).Draw(rt, "restarts")
		var broken error
		synctest.Test(t, func(t *testing.T) { broken = driveGraph(t, p, seed, restarts) })
		require.NoError(rt, broken)
	})
}

func driveGraph(t *testing.T, p conveyor.PipelineSpec, seed uint64, restarts int) error {
	random := rand.New(rand.NewPCG(seed, 1))
	pauses := make([]time.Duration, restarts)
	for i := range pauses {
		pauses[i] = time.Duration(random.IntN(8000)) * time.Millisecond
	}
	var mu sync.Mutex // guards random, done and broken
	done := map[string]bool{}
	var broken error
	driver := rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		mu.Lock()
		lasts, fails := time.Duration(random.IntN(5000))*time.Millisecond, random.IntN(4) == 0
		if done[req.Step.ID] {
			broken = errors.Join(broken, errors.New(req.Step.ID+" began again"))
		}
		before := req.Step.After
		for _, s := range p.Steps {
			if s.ID == req.Step.ID {
				break
			}
			if req.Step.After == nil {
				before = append(before, s.ID)
			}
		}
		for _, id := range before {
			if !done[id] {
				broken = errors.Join(broken, errors.New(req.Step.ID+" began before "+id+" was done"))
			}
		}
		mu.Unlock()
		if _, err := rig.Taking(lasts)(ctx, req); err != nil || fails {
			return conveyor.Result{}, rig.ErrBoom
		}
		mu.Lock()
		defer mu.Unlock()
		done[req.Step.ID] = true
		return conveyor.Done(), nil
	})
	e := rig.New(t, conveyor.Options{}).MustStart()
	e.Driver("d", driver)
	e.Save(p)
	run := e.MustApply(rig.Object("x", nil))
	for _, pause := range pauses {
		time.Sleep(pause)
		e.Stop()
		e = rig.NewOn(t, e.Store.Store, conveyor.Options{})
		e.Driver("d", driver)
		e.MustStart()
	}
	if err := e.Ended(run.ID).Err(); err != nil {
		return err
	}
	if len(done) != len(p.Steps) {
		return errors.New("not every step was done")
	}
	return broken
}

// stepError returns the failure of a run, which must be that of a step.
func stepError(t *testing.T, run *conveyor.Run) *conveyor.StepError {
	t.Helper()
	var failed *conveyor.StepError
	require.ErrorAs(t, run.Err(), &failed)
	return failed
}
