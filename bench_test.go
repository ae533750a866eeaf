package conveyor_test

import (
	"bytes"
	"context"
	"fmt"
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
