package engines_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// commitCount counts the commits of all engines that wrote something, and those that met a conflict.
type commitCount struct{ done, lost atomic.Int64 }

// counted is a handle of a shared store whose commits are counted.
type counted struct {
	*memory.Shared
	*commitCount
}

var _ store.Watcher = counted{}

func (c counted) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	rev, err := c.Shared.Commit(ctx, ops...)
	switch {
	case errors.Is(err, store.ErrConflict):
		c.lost.Add(1)
	case err == nil && len(ops) > 0:
		c.done.Add(1)
	}
	return rev, err
}

// BenchmarkEngines measures runs of five no-op steps on one, two and four engines that share a store, a hundred in flight, from Apply to the
// return of Wait. The engine that is asked begins a run itself if it can. With a client that has no drivers, any of the engines finds the run and
// begins it. With MaxRuns, all engines want the same ten places.
func BenchmarkEngines(b *testing.B) {
	for _, engines := range []int{1, 2, 4} {
		for _, c := range []struct {
			name    string
			client  bool
			maxRuns int
		}{{"begun where it is applied", false, 0}, {"applied by a client", true, 0}, {"MaxRuns=10", false, 10}} {
			b.Run(fmt.Sprintf("engines=%d/%s", engines, c.name), func(b *testing.B) { benchmarkEngines(b, engines, c.client, c.maxRuns) })
		}
	}
}

func benchmarkEngines(b *testing.B, engines int, client bool, maxRuns int) {
	const inFlight = 100
	disk, count := memory.NewShared(), new(commitCount)
	start := func(register bool) *conveyor.Engine {
		e, err := conveyor.New(counted{disk.Join(), count}, conveyor.Options{Workers: inFlight})
		require.NoError(b, err)
		if register {
			require.NoError(b, e.Register("none", rig.DriverOf(rig.Always(conveyor.Done(), nil))))
		}
		require.NoError(b, e.Start(b.Context()))
		b.Cleanup(func() { require.NoError(b, e.Shutdown(context.Background())) })
		return e
	}
	var asked []*conveyor.Engine
	for range engines {
		asked = append(asked, start(true))
	}
	require.NoError(b, asked[0].SavePipeline(b.Context(), rig.AtMost(rig.PipelineOf("none", "none", "none", "none", "none"), maxRuns)))
	if client {
		asked = []*conveyor.Engine{start(false)}
	}
	var names atomic.Int64
	count.done.Store(0)
	count.lost.Store(0)
	b.SetParallelism(max(inFlight/runtime.GOMAXPROCS(0), 1))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := names.Add(1)
			e := asked[n%int64(len(asked))]
			run, err := e.Apply(b.Context(), rig.Object(fmt.Sprint("x", n), nil))
			if err == nil {
				run, err = e.Wait(b.Context(), run.ID)
			}
			if err != nil || run.State != conveyor.StateSucceeded {
				b.Errorf("run %v: %v", run, err)
			}
		}
	})
	b.StopTimer()
	runs := float64(b.N)
	b.ReportMetric(runs/b.Elapsed().Seconds(), "runs/s")
	b.ReportMetric(float64(count.done.Load())/runs, "commits/run")
	b.ReportMetric(float64(count.lost.Load())/runs, "conflicts/run")
	b.ReportMetric(0, "ns/op")
}
