// Package rig is what the suites of the tests folder have in common: an engine under test, pipelines and resources, and
// drivers and stores that behave as a test needs it. Only tests import it.
package rig

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Engine is an engine under test, with the calls that a test expects to succeed. A test in a bubble makes it there.
type Engine struct {
	*conveyor.Engine
	T     *testing.T
	Store *Tap
}

// New makes an engine on a new memory store. The engine is shut down at the end of the test.
func New(t *testing.T, opts conveyor.Options) *Engine {
	t.Helper()
	return NewOn(t, memory.New(), opts)
}

// NewOn makes an engine on a store. The engine is shut down at the end of the test.
func NewOn(t *testing.T, st store.Store, opts conveyor.Options) *Engine {
	t.Helper()
	r := &Engine{T: t, Store: &Tap{Store: st}}
	var through store.Store = r.Store
	if _, shared := st.(store.Watcher); shared {
		through = sharedTap{r.Store}
	}
	var err error
	r.Engine, err = conveyor.New(through, opts)
	require.NoError(t, err)
	t.Cleanup(r.Stop)
	return r
}

// Stop shuts the engine down. It gives drivers that do not end up after a minute of the bubble's time.
func (r *Engine) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(r.T, r.Shutdown(ctx))
}

// Reborn returns the next start of the program on the same records, after a shutdown.
func (r *Engine) Reborn(opts conveyor.Options) *Engine {
	r.T.Helper()
	r.Stop()
	return NewOn(r.T, r.Store.Store, opts)
}

// Crashed returns the next start of the program after this one has died: nothing that it still does reaches the store.
func (r *Engine) Crashed(opts conveyor.Options) *Engine {
	r.T.Helper()
	r.Store.CutOff()
	return NewOn(r.T, r.Store.Store, opts)
}

// MustStart starts the engine and returns it.
func (r *Engine) MustStart() *Engine {
	r.T.Helper()
	require.NoError(r.T, r.Start(r.T.Context()))
	return r
}

// Driver registers a driver.
func (r *Engine) Driver(name string, d conveyor.Driver, opts ...conveyor.DriverOption) {
	r.T.Helper()
	require.NoError(r.T, r.Register(name, d, opts...))
}

// Pipeline saves a pipeline "p" for resources of type "r" whose steps "1", "2", ... use these drivers.
func (r *Engine) Pipeline(drivers ...string) {
	r.T.Helper()
	r.Save(PipelineOf(drivers...))
}

// PipelineNamed saves a pipeline like [Engine.Pipeline] under another name.
func (r *Engine) PipelineNamed(name string, drivers ...string) {
	r.T.Helper()
	p := PipelineOf(drivers...)
	p.Name = name
	r.Save(p)
}

// Save saves a pipeline.
func (r *Engine) Save(p conveyor.PipelineSpec) {
	r.T.Helper()
	require.NoError(r.T, r.SavePipeline(r.T.Context(), p))
}

// SavePlanned saves a pipeline whose steps are computed.
func (r *Engine) SavePlanned(f FanOut) {
	r.T.Helper()
	require.NoError(r.T, r.SavePipeline(r.T.Context(), f))
}

// MustApply applies a resource and returns its run.
func (r *Engine) MustApply(o conveyor.Resource) *conveyor.Run {
	r.T.Helper()
	run, err := r.Apply(r.T.Context(), o)
	require.NoError(r.T, err)
	return run
}

// Ended waits for a run and returns it.
func (r *Engine) Ended(id string) *conveyor.Run {
	r.T.Helper()
	run, err := r.Wait(r.T.Context(), id)
	require.NoError(r.T, err)
	return run
}

// Finish applies a resource, waits for its run and returns that.
func (r *Engine) Finish(o conveyor.Resource) *conveyor.Run {
	r.T.Helper()
	return r.Ended(r.MustApply(o).ID)
}

// MustGetRun returns a run.
func (r *Engine) MustGetRun(id string) *conveyor.Run {
	r.T.Helper()
	run, err := r.GetRun(context.Background(), id)
	require.NoError(r.T, err)
	return run
}

// MustGet returns a resource as it is on record.
func (r *Engine) MustGet(o conveyor.Resource) *conveyor.Object {
	r.T.Helper()
	found, err := r.Get(context.Background(), o.ResourceMeta().Key())
	require.NoError(r.T, err)
	return found
}

// RunsOf lists all runs of a resource, the oldest first.
func (r *Engine) RunsOf(o conveyor.Resource) []*conveyor.Run {
	r.T.Helper()
	return Drain(r.T, r.Runs(context.Background(), conveyor.RunFilter{Resource: o.ResourceMeta().Key()}))
}

// MustStats returns the counts of the engine.
func (r *Engine) MustStats() conveyor.Stats {
	r.T.Helper()
	st, err := r.Stats(context.Background())
	require.NoError(r.T, err)
	return st
}

// AllLogs returns the log lines of a run.
func (r *Engine) AllLogs(run string, o conveyor.LogOptions) []conveyor.LogLine {
	r.T.Helper()
	return Drain(r.T, r.Logs(context.Background(), run, o))
}

// Drain collects a sequence that must not fail.
func Drain[T any](t *testing.T, seq iter.Seq2[T, error]) (all []T) {
	t.Helper()
	for v, err := range seq {
		require.NoError(t, err)
		all = append(all, v)
	}
	return all
}
