package engines_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

const maxRuns = 10

// TestEngines10PlacesOutliveTheirEngines has four engines work on a pipeline of steps that do nothing, of which ten runs can be active. Two
// of the engines go wrong between the begin and the end of runs. There are never more than ten at once, and at the end as many as ten.
func TestEngines10PlacesOutliveTheirEngines(t *testing.T) {
	var tried, most atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, f := range []fault{diesBefore, diesAfter, pauses, answersLate} {
			t.Run(string(f), func(t *testing.T) {
				t.Parallel()
				first, stride := places(t, 15, f, "places")
				for n := first; ; n += stride {
					struck := false
					inWorld(t, func(t *testing.T, w *world) { struck = fillPlaces(t, w, f, n, &most) })
					if t.Failed() || !struck {
						require.Greater(t, n, 10)
						break
					}
					tried.Add(1)
				}
			})
		}
	})
	require.EqualValues(t, maxRuns, most.Load())
	testenv.Figure(t, "MaxRuns of %d over 4 engines, two of which go wrong in the middle, %d times: never more than %d at once, and %d in the end", maxRuns, tried.Load(), most.Load(), maxRuns)
}

// fillPlaces has the first two of four processes go wrong, the first one at commit n, and reports whether there was such a commit.
func fillPlaces(t *testing.T, w *world, f fault, n int, most *atomic.Int64) (struck bool) {
	var slow, hit, hitAgain atomic.Bool
	var commits atomic.Int64 // of the second process since the first one went wrong
	step := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if slow.Load() {
			return rig.Taking(lease)(ctx, req)
		}
		return conveyor.Done(), nil
	}
	start := func(name string, strike func(p *process, at int) fault) *process {
		return w.start(name, conveyor.Options{Workers: 5}, map[string]rig.Func{"a": step}, func(p *process, at int) fault {
			w.mu.Lock() // nobody commits meanwhile
			active := w.active()
			if active > maxRuns {
				w.blame("%d runs are active when %s makes commit %d", active, p.name, at)
			}
			most.Store(max(most.Load(), int64(active))) // of one of the worlds
			w.mu.Unlock()
			return strike(p, at)
		})
	}
	harmless := func(*process, int) fault { return fine }
	all := []*process{
		start("process-0", func(_ *process, at int) fault {
			if at == n && !slow.Load() && hit.CompareAndSwap(false, true) {
				return f
			}
			return fine
		}),
		start("process-1", func(*process, int) fault {
			if hit.Load() && !slow.Load() && commits.Add(1) == 3 && hitAgain.CompareAndSwap(false, true) {
				return f
			}
			return fine
		}),
		start("process-2", harmless), start("process-3", harmless),
	}
	var old []*process
	revive := func() {
		for i, p := range all {
			if p.isDead() {
				old = append(old, p)
				all[i] = start(p.name+"-again", harmless)
			}
		}
	}
	save := func(drivers ...string) {
		w.insist(revive, func() error {
			return all[3].SavePipeline(context.Background(), rig.AtMost(rig.PipelineOf(drivers...), maxRuns))
		})
	}
	save("a", "a")
	time.Sleep(lease)
	var clients sync.WaitGroup
	for i := range all {
		clients.Go(func() {
			for k := range 4 {
				w.insist(func() {}, func() error {
					p := all[i]
					if p.isDead() {
						p = all[3]
					}
					return applying(p, fmt.Sprint("x", i, "-", k), 1)(context.Background())
				})
			}
		})
	}
	clients.Wait()
	w.settle(revive)
	for _, run := range rig.Drain(t, all[3].Runs(t.Context(), conveyor.RunFilter{})) {
		require.NoError(t, run.Err())
	}

	slow.Store(true)
	save("a")
	time.Sleep(4 * lease) // whoever was dead is known to be
	for i := range maxRuns + 4 {
		w.insist(revive, func() error { return applying(all[i%4], fmt.Sprint("y", i), 1)(context.Background()) })
	}
	time.Sleep(lease / 2)
	require.Equal(t, maxRuns, w.active(), "a place is lost")
	w.settle(revive)
	for _, p := range append(all, old...) {
		require.NoError(t, p.stop())
	}
	for key := range w.records() {
		require.False(t, strings.HasPrefix(key, "~slt/"), key)
	}
	return hit.Load()
}

// active counts the runs that have begun and not ended.
func (w *world) active() (n int) {
	for r := range w.disk.List(context.Background(), store.Query{Prefix: "~act/"}) {
		run, err := w.disk.Get(context.Background(), "run/"+strings.TrimPrefix(r.Key, "~act/"))
		if err == nil && strings.Contains(string(run.Value), `"state":"running"`) {
			n++
		}
	}
	return n
}
