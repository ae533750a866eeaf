package etcd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
)

// counted is a driver that counts its calls.
type counted struct{ calls atomic.Int64 }

func (d *counted) Reconcile(context.Context, *conveyor.Request) (conveyor.Result, error) {
	d.calls.Add(1)
	return conveyor.Done(), nil
}

// start starts an engine on a handle of its own. Its driver is "d" unless a name is given.
func start(t *testing.T, opts etcd.Options, engine conveyor.Options, names ...string) (*conveyor.Engine, *counted) {
	t.Helper()
	e, err := conveyor.New(open(t, opts, needServer(t).Endpoints()...), engine)
	require.NoError(t, err)
	d := new(counted)
	for _, name := range names {
		require.NoError(t, e.Register(name, d))
	}
	require.NoError(t, e.Start(t.Context()))
	t.Cleanup(func() { _ = e.Shutdown(context.Background()) })
	return e, d
}

func object(name string, spec any) *conveyor.Object {
	data, err := json.Marshal(spec)
	if err != nil {
		panic(err)
	}
	return &conveyor.Object{Meta: conveyor.Meta{Type: "part", Name: name, Pipeline: "parts"}, Spec: data}
}

func pipeline(drivers ...string) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{Name: "parts", Resource: "part"}
	for _, d := range drivers {
		p.Steps = append(p.Steps, conveyor.Step{Driver: d})
	}
	return p
}

// TestTwoEnginesDriveResourcesThroughStepsOfBoth has each engine know the driver of one step. Each run begins on one engine and
// ends on the other.
func TestTwoEnginesDriveResourcesThroughStepsOfBoth(t *testing.T) {
	const resources = 60
	opts := newPrefix()
	first, cut := start(t, opts, conveyor.Options{Name: "first"}, "cut")
	second, drill := start(t, opts, conveyor.Options{Name: "second"}, "drill")
	require.NoError(t, first.SavePipeline(t.Context(), pipeline("cut", "drill")))
	var all sync.WaitGroup
	errs := make([]error, resources)
	for i := range resources {
		all.Go(func() {
			from, to := first, second
			if i%2 == 0 {
				from, to = to, from
			}
			run, err := from.Apply(t.Context(), object(fmt.Sprint("part-", i), i))
			if err == nil {
				run, err = to.Wait(t.Context(), run.ID)
			}
			if err == nil {
				err = run.Err()
			}
			errs[i] = err
		})
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.EqualValues(t, resources, cut.calls.Load())
	require.EqualValues(t, resources, drill.calls.Load())
}

// TestAGraphOfAllStepsGoesThroughCommitsOfFewOps begins 256 steps at once, which is as many as a pipeline can have.
func TestAGraphOfAllStepsGoesThroughCommitsOfFewOps(t *testing.T) {
	const steps = 256
	e, d := start(t, newPrefix(), conveyor.Options{}, "d")
	p := pipeline()
	for i := range steps {
		p.Steps = append(p.Steps, conveyor.Step{ID: fmt.Sprint("s", i), Driver: "d", After: []string{}})
	}
	require.NoError(t, e.SavePipeline(t.Context(), p))
	run, err := e.Apply(t.Context(), object("wide", 1))
	require.NoError(t, err)
	run, err = e.Wait(t.Context(), run.ID)
	require.NoError(t, err)
	require.NoError(t, run.Err())
	require.Len(t, run.Steps, steps)
	require.EqualValues(t, steps, d.calls.Load())
}

// TestASpecOfTheLargestSize is about what an etcd with its defaults can keep.
func TestASpecOfTheLargestSize(t *testing.T) {
	opts := newPrefix()
	e, _ := start(t, opts, conveyor.Options{}, "d")
	require.NoError(t, e.SavePipeline(t.Context(), pipeline("d")))
	least, most := 1<<10, 4<<20 // the largest accepted spec is between them
	for most-least > 1 {
		size := (least + most) / 2
		run, err := e.Apply(t.Context(), object("large", strings.Repeat("x", size-2)))
		if err != nil {
			require.ErrorIs(t, err, conveyor.ErrTooLarge)
			most = size
			continue
		}
		run, err = e.Wait(t.Context(), run.ID)
		require.NoError(t, err)
		require.NoError(t, run.Err())
		least = size
	}
	require.Greater(t, least, 430<<10) // as README.md says
	o, err := e.Get(t.Context(), conveyor.Key{Type: "part", Name: "large"})
	require.NoError(t, err)
	require.Len(t, o.Spec, least)
	testenv.Figure(t, "a spec of %d bytes with the defaults of etcd", least)

	_, err = conveyor.New(open(t, opts, needServer(t).Endpoints()...), conveyor.Options{Limits: conveyor.Limits{Spec: 2 << 20}})
	require.ErrorIs(t, err, conveyor.ErrInvalid)
	require.ErrorContains(t, err, "Limits.Spec")
}

// TestVeryManyRunsAreRemoved removes almost all runs of a resource at once, in commits of few ops.
func TestVeryManyRunsAreRemoved(t *testing.T) {
	testenv.Rare(t)
	runs := testenv.Bound(t, "CONVEYOR_ETCD_RUNS", 200, 150)
	opts := newPrefix()
	s := open(t, opts, needServer(t).Endpoints()...)
	e, _ := start(t, opts, conveyor.Options{Limits: conveyor.Limits{Queue: runs}}, "d")
	p := pipeline("d")
	p.OnChange = conveyor.Queue
	require.NoError(t, e.SavePipeline(t.Context(), p))
	apply := func(e *conveyor.Engine, n int) {
		var last *conveyor.Run
		for i := range n {
			var err error
			last, err = e.Apply(t.Context(), object("part", fmt.Sprint(n, " ", i)))
			require.NoError(t, err)
		}
		_, err := e.Wait(t.Context(), last.ID)
		require.NoError(t, err)
	}
	apply(e, runs)
	require.NoError(t, e.Shutdown(t.Context()))
	count := func(prefix string) (n int) {
		for _, err := range s.List(t.Context(), store.Query{Prefix: prefix}) {
			require.NoError(t, err)
			n++
		}
		return n
	}
	require.Equal(t, runs, count("run/"))
	require.Equal(t, runs, count("rev/"))

	e, _ = start(t, opts, conveyor.Options{Retention: conveyor.Retention{Runs: 1, Revisions: 1}}, "d")
	apply(e, 1)
	// The newest run, or the one before it too, until the next look at all resources.
	require.Eventually(t, func() bool { return count("run/") <= 2 && count("stp/") <= 2 && count("rev/") <= 2 }, 5*time.Minute, 10*time.Millisecond)
	testenv.Figure(t, "%d runs removed in commits of %d ops at most", runs, store.LimitsOf(s).Ops)
}
