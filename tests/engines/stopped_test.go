package engines_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
)

// TestEngines01NothingIsWrittenByAnEngineThatWasStopped stops an engine for three leases at each of its commits, while its driver saves a
// checkpoint, logs a line and returns, again and again. Another engine takes the run over and has no worker for it until the first one
// goes on, so that the record of the step stays as it was. Nothing of the first one may be written from the takeover on, and no number of a
// line may be given twice, whoever has seen it.
func TestEngines01NothingIsWrittenByAnEngineThatWasStopped(t *testing.T) {
	var stops, takeovers, refusals int
	for _, stop := range []fault{pauses, answersLate} {
		stride := testenv.Some(t, 4, 1)
		for n := stride; ; n += stride {
			struck := false
			inWorld(t, func(t *testing.T, w *world) {
				var taken bool
				var refused int
				struck, taken, refused = stopInLoop(t, w, stop, n)
				refusals += refused
				if taken {
					takeovers++
				}
			})
			if t.Failed() || !struck {
				require.Greater(t, n, 20, "with %q at commit %d", stop, n)
				break
			}
			stops++
		}
	}
	require.Positive(t, refusals)
	require.GreaterOrEqual(t, takeovers, stops-2, "all but those at the end of the run")
	testenv.Figure(t, "an engine stopped for three leases %d times, at a commit of a checkpoint, a line or an outcome: %d takeovers, 0 stale writes, %d checkpoints refused", stops, takeovers, refusals)
}

// stopInLoop stops the first of two engines at a commit. It reports whether there was such a commit, whether the second one has taken the
// run over, and how many checkpoints were refused.
func stopInLoop(t *testing.T, w *world, stop fault, n int) (struck, taken bool, refusals int) {
	const rounds = 8
	var armed, hit atomic.Bool
	var commits, calls, saved atomic.Int64
	var mu sync.Mutex // guards refused
	var refused []error
	first := w.start("first", conveyor.Options{}, map[string]rig.Func{"a": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		armed.Store(true)
		i := calls.Add(1)
		if err := req.Checkpoint(context.Background(), i); err == nil {
			saved.Store(i)
		} else {
			mu.Lock()
			refused = append(refused, err)
			mu.Unlock()
		}
		req.Log.Info(fmt.Sprint("first ", i))
		if i%4 == 0 {
			time.Sleep(5 * time.Second / 4) // the line is written before the outcome
		}
		if i < rounds {
			return conveyor.RequeueAfter(lease / 20), nil
		}
		return conveyor.Done(), nil
	}}, func(*process, int) fault {
		if armed.Load() && int(commits.Add(1)) == n {
			hit.Store(true)
			return stop
		}
		return fine
	})
	t.Cleanup(func() { require.NoError(t, first.stop()) })
	var restored atomic.Int64
	again := rig.InTurn(
		func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var i int64
			_, err := req.Restore(&i)
			restored.Store(i)
			req.Log.Info("second 0")
			return conveyor.RequeueAfter(lease / 20), err
		},
		func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("second 1")
			return conveyor.Done(), nil
		},
	)
	second := w.start("second", conveyor.Options{}, nil, nil)
	require.NoError(t, second.Register("a", rig.DriverOf(w.around(second, func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if req.Resource.Name == "y" { // it has the only slot
			return rig.Taking(12*lease)(ctx, req)
		}
		return again(ctx, req)
	})), conveyor.Concurrency(1)))
	t.Cleanup(func() { require.NoError(t, second.stop()) })
	time.Sleep(lease)
	first.mustSave(rig.PipelineOf("a"))
	busy := second.mustApply(rig.Object("y", 1))
	synctest.Wait()
	run := first.mustApply(rig.Object("x", 1))
	seen := map[int64]string{} // what followers have seen, of both engines
	var followers sync.WaitGroup
	for _, p := range []*process{first, second} {
		followers.Go(func() {
			last := int64(0)
			for l, err := range p.Logs(context.Background(), run.ID, conveyor.LogOptions{Follow: true}) {
				w.mu.Lock()
				switch before, known := seen[l.Seq]; {
				case err != nil:
					w.blame("the lines cannot be followed by %s: %v", p.name, err)
				case l.Seq <= last:
					w.blame("line %d of %q follows line %d in %s", l.Seq, l.Message, last, p.name)
				case known && before != l.Message:
					w.blame("line %d is %q and %q", l.Seq, before, l.Message)
				}
				seen[l.Seq], last = l.Message, l.Seq
				w.mu.Unlock()
			}
		})
	}
	ended := untilEnded(t, second.Engine, run.ID, time.Minute)
	require.NoError(t, ended.Err())
	require.NoError(t, untilEnded(t, second.Engine, busy.ID, time.Minute).Err())
	followers.Wait()
	time.Sleep(2 * lease)

	lines := rig.Drain(t, second.Logs(t.Context(), run.ID, conveyor.LogOptions{}))
	var messages []string
	for i, l := range lines {
		require.True(t, i == 0 || l.Seq > lines[i-1].Seq)
		require.Equal(t, l.Message, seen[l.Seq])
		messages = append(messages, l.Message)
	}
	var want []string
	for i := range slices.IndexFunc(append(messages, "second"), func(m string) bool { return strings.HasPrefix(m, "second") }) {
		want = append(want, fmt.Sprint("first ", i+1)) // none of those that were written is missing
	}
	taken = w.refuseAfterTakeover(first, second, run.ID)
	if taken {
		want = append(want, "second 0", "second 1")
		require.GreaterOrEqual(t, restored.Load(), saved.Load(), "a checkpoint that was acknowledged is lost")
	} else {
		require.Len(t, want, rounds)
	}
	require.Equal(t, want, messages)
	for _, err := range refused {
		require.ErrorIs(t, err, conveyor.ErrLeaseLost)
	}
	return hit.Load(), taken, len(refused)
}

// refuseAfterTakeover fails the test if the first process has written anything of a run after the second one has taken it over, and reports
// whether it has.
func (w *world) refuseAfterTakeover(first, second *process, run string) (taken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.lines {
		_, rest, _ := strings.Cut(line, " ")
		by, keys, _ := strings.Cut(rest, " ")
		switch {
		case !strings.Contains(keys, run):
		case by == second.name && strings.Contains(keys, "~own/"):
			taken = true
		case by == first.name && taken && !strings.Contains(keys, "~ask/"):
			w.blame("%s writes %s after the takeover", by, keys)
		}
	}
	return taken
}
