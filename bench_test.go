package conveyor_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

// BenchmarkRun measures a run of five no-op steps from Apply to the return of Wait, with one, a hundred and a thousand of
// them in flight.
func BenchmarkRun(b *testing.B) {
	stores := map[string]func(*testing.B) store.Store{
		"memory": func(*testing.B) store.Store { return memory.New() },
		"file": func(b *testing.B) store.Store {
			st, err := file.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"), file.Options{})
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, st.Close()) })
			return st
		},
	}
	for name, open := range stores {
		for _, flight := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/flight=%d", name, flight), func(b *testing.B) {
				benchmarkRuns(b, open(b), flight)
			})
		}
	}
}

func benchmarkRuns(b *testing.B, st store.Store, flight int) {
	e, err := conveyor.New(st, conveyor.Options{Workers: flight})
	require.NoError(b, err)
	require.NoError(b, e.Register("none", conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		return conveyor.Done(), nil
	})))
	steps := make([]conveyor.Step, 5)
	for i := range steps {
		steps[i].Driver = "none"
	}
	require.NoError(b, e.SavePipeline(b.Context(), conveyor.PipelineSpec{Name: "five", Resource: "thing", Steps: steps}))
	require.NoError(b, e.Start(b.Context()))
	b.Cleanup(func() { require.NoError(b, e.Shutdown(context.Background())) })

	var names atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(flight) // times GOMAXPROCS; the workers bound it
	b.ResetTimer()
	if flight == 1 {
		for b.Loop() {
			oneRun(b, e, names.Add(1))
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			oneRun(b, e, names.Add(1))
		}
	})
}

func oneRun(b *testing.B, e *conveyor.Engine, n int64) {
	o := &conveyor.Object{
		Meta: conveyor.Meta{Name: fmt.Sprintf("thing-%d", n), Type: "thing", Pipeline: "five"},
		Spec: []byte(`{"repository":"https://example.com/app.git"}`),
	}
	run, err := e.Apply(b.Context(), o)
	if err == nil {
		run, err = e.Wait(b.Context(), run.ID)
	}
	if err != nil || run.State != conveyor.StateSucceeded {
		b.Errorf("run %v: %v", run, err)
	}
}

// BenchmarkWaiting measures runs that wait for room in two pipelines and for one slot of the driver of both steps. What a run
// costs must not grow with the number of those that wait.
func BenchmarkWaiting(b *testing.B) {
	for _, waiting := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			var reads int64
			for b.Loop() {
				reads += drainWaiting(b, waiting)
			}
			runs := float64(b.N * waiting)
			b.ReportMetric(runs/b.Elapsed().Seconds(), "runs/s")
			b.ReportMetric(float64(reads)/runs, "reads/run")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// drainWaiting applies resources, and then measures an engine until the runs have ended. It returns the number of reads of
// the store.
func drainWaiting(b *testing.B, waiting int) int64 {
	b.StopTimer()
	defer b.StartTimer()
	st := &countedReads{Store: memory.New()}
	ended := make(chan struct{})
	var calls atomic.Int64
	e, err := conveyor.New(st, conveyor.Options{})
	require.NoError(b, err)
	require.NoError(b, e.Register("d", conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		if calls.Add(1) == int64(2*waiting) {
			close(ended)
		}
		return conveyor.Done(), nil
	}), conveyor.Concurrency(1)))
	for _, name := range []string{"p", "q"} {
		p := rig.Named(name, rig.PipelineOf("d", "d"))
		p.MaxRuns = 2
		require.NoError(b, e.SavePipeline(b.Context(), p))
	}
	for i := range waiting {
		_, err := e.Apply(b.Context(), rig.Along([]string{"p", "q"}[i%2], fmt.Sprint("x", i)))
		require.NoError(b, err)
	}
	before := st.reads.Load()
	b.StartTimer()
	require.NoError(b, e.Start(b.Context()))
	<-ended
	b.StopTimer()
	require.NoError(b, e.Shutdown(context.Background()))
	return st.reads.Load() - before
}

// countedReads is a store that counts its reads.
type countedReads struct {
	store.Store
	reads atomic.Int64
}

func (s *countedReads) Get(ctx context.Context, key string) (store.Record, error) {
	s.reads.Add(1)
	return s.Store.Get(ctx, key)
}

func (s *countedReads) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	s.reads.Add(1)
	return s.Store.List(ctx, q)
}

// BenchmarkApplyUnchanged measures an apply that changes nothing, which is what a program that applies everything at
// each of its starts does most.
func BenchmarkApplyUnchanged(b *testing.B) {
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(b, err)
	require.NoError(b, e.SavePipeline(b.Context(), rig.PipelineOf("d")))
	o := rig.Object("x", map[string]any{"repository": "https://example.com/app.git"})
	_, err = e.Apply(b.Context(), o)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		o.Version = 0
		if _, err := e.Apply(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParsePipeline measures the strict reading of a document of Conveyor CI.
func BenchmarkParsePipeline(b *testing.B) {
	doc, err := os.ReadFile("tests/documents/testdata/docker-pipeline.json")
	require.NoError(b, err)
	b.ReportAllocs()
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, err := conveyor.ParsePipeline(bytes.NewReader(doc)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWatch measures an event from its publication to one watcher, on top of a run of one step.
func BenchmarkWatch(b *testing.B) {
	e, err := conveyor.New(memory.New(), conveyor.Options{})
	require.NoError(b, err)
	require.NoError(b, e.Register("d", new(rig.Recorder)))
	require.NoError(b, e.SavePipeline(b.Context(), rig.PipelineOf("d")))
	require.NoError(b, e.Start(b.Context()))
	b.Cleanup(func() { require.NoError(b, e.Shutdown(context.Background())) })
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		o := rig.Object(fmt.Sprint("x", n), nil)
		events := e.Watch(b.Context(), conveyor.WatchOptions{Resource: o.Key()})
		if _, err := e.Apply(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		for event, err := range events {
			if err != nil {
				b.Fatal(err)
			}
			if event.Kind == conveyor.EventRun && event.State.Final() {
				break
			}
		}
	}
}
