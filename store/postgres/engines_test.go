package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/testenv"
)

// counted is a driver that counts its calls by resource.
type counted struct {
	mu    sync.Mutex
	calls map[string]int
	all   atomic.Int64
}

func (d *counted) Reconcile(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls == nil {
		d.calls = map[string]int{}
	}
	d.calls[req.Resource.Name]++
	d.all.Add(1)
	return conveyor.Done(), nil
}

// part is a resource.
type part struct {
	conveyor.Meta
	Spec struct {
		Number int `json:"number"`
	} `json:"spec"`
}

// TestTwoEnginesDriveResourcesThroughStepsOfBoth has each engine know the driver of one step. Each run begins on one engine and
// ends on the other.
func TestTwoEnginesDriveResourcesThroughStepsOfBoth(t *testing.T) {
	const resources = 200
	server := needServer(t)
	opts := newSchema(t, server.dsn)
	ctx := t.Context()
	names := [2]string{"cut", "drill"}
	var drivers [2]counted
	var engines [2]*conveyor.Engine
	for i, name := range names {
		engine, err := conveyor.New(open(t, server.dsn, opts), conveyor.Options{Name: name, Lease: 5 * time.Second})
		require.NoError(t, err)
		require.NoError(t, engine.Register(name, &drivers[i]))
		require.NoError(t, engine.Start(ctx))
		t.Cleanup(func() { _ = engine.Shutdown(context.WithoutCancel(ctx)) })
		engines[i] = engine
	}
	require.NoError(t, engines[0].SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "parts", Resource: "part", Steps: []conveyor.Step{{Driver: names[0]}, {Driver: names[1]}},
	}))
	began := time.Now()
	runs := make([]string, resources)
	errs := make([]error, resources)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := w; i < resources; i += 8 {
				r := &part{Meta: conveyor.Meta{Name: fmt.Sprint("part-", i), Type: "part", Pipeline: "parts"}}
				r.Spec.Number = i
				run, err := engines[i%2].Apply(ctx, r)
				if errs[i] = err; err == nil {
					runs[i] = run.ID
				}
			}
		})
	}
	all.Wait()
	for i, id := range runs {
		require.NoError(t, errs[i])
		run, err := engines[(i+1)%2].Wait(ctx, id)
		require.NoError(t, err)
		require.Equal(t, conveyor.StateSucceeded, run.State, "%s", run.Reason)
	}
	testenv.Figure(t, "%d runs over two engines in %v", resources, time.Since(began).Round(time.Millisecond))
	for i := range drivers {
		require.Len(t, drivers[i].calls, resources)
		require.EqualValues(t, resources, drivers[i].all.Load(), "a step was called twice")
	}
	for _, engine := range engines {
		require.NoError(t, engine.Shutdown(ctx))
	}
}
