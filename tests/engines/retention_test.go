package engines_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// during makes a call, and calls fn before the nth call of the store until it returns. It reports whether there were so many.
func (o *odd) during(call func(), n int64, fn func()) (reached bool) {
	var calls atomic.Int64
	var hit atomic.Bool
	next := func() error {
		if calls.Add(1) == n {
			hit.Store(true)
			fn()
		}
		return nil
	}
	o.onGet(func(string) error { return next() })
	o.onList(func(string) error { return next() })
	o.onCommit(func([]store.Op) error { return next() })
	call()
	calls.Store(n) // what comes later is another call
	return hit.Load()
}

// TestEngines12RetryAgainstRetention has one engine remove the runs of the past at each store call of another one that repeats one of
// them, and the other way round. The run is removed, or it is repeated.
func TestEngines12RetryAgainstRetention(t *testing.T) {
	for _, c := range []struct {
		name   string
		during func(n int64, prune, retry func(), pruner, retrier *odd) (reached bool)
	}{
		{"a removal during a retry", func(n int64, prune, retry func(), _, retrier *odd) bool { return retrier.during(retry, n, prune) }},
		{"a retry during a removal", func(n int64, prune, retry func(), pruner, _ *odd) bool { return pruner.during(prune, n, retry) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			removed, repeated := 0, 0
			for n := int64(1); ; n++ {
				struck := false
				synctest.Test(t, func(t *testing.T) {
					disk := memory.NewShared()
					var done atomic.Int64
					drivers := map[string]rig.Func{
						"a": func(context.Context, *conveyor.Request) (conveyor.Result, error) {
							done.Add(1)
							return conveyor.DoneWith("kept"), nil
						},
						"b": rig.InTurn(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), quick, rig.Taking(lease)),
					}
					first, pruner := startOdd(t, disk, conveyor.Options{}, drivers)
					second, retrier := startOdd(t, disk, conveyor.Options{}, drivers)
					require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a", "b")))
					time.Sleep(lease)
					old, err := first.Apply(t.Context(), rig.Object("x", 1))
					require.NoError(t, err)
					require.Equal(t, conveyor.StateFailed, untilEnded(t, first, old.ID, lease).State)
					newer, err := first.Trigger(t.Context(), rig.Object("x", nil).Key())
					require.NoError(t, err)
					require.NoError(t, untilEnded(t, first, newer.ID, 5*lease).Err())
					after(3 * lease) // nobody else calls the store meanwhile
					require.EqualValues(t, 2, done.Load())

					var run *conveyor.Run
					var refused error
					prune := func() {
						_, err := first.Prune(t.Context(), conveyor.PruneOptions{Retention: conveyor.Retention{Runs: 1}})
						require.NoError(t, err)
					}
					retry := func() { run, refused = second.Retry(t.Context(), old.ID, conveyor.RetryFrom{}) }
					struck = c.during(n, prune, retry, pruner, retrier)
					if run == nil && refused == nil { // there were not so many calls
						return
					}
					_, err = second.GetRun(t.Context(), old.ID)
					if refused != nil {
						removed++
						require.ErrorIs(t, refused, conveyor.ErrNotFound)
						require.ErrorIs(t, err, conveyor.ErrNotFound)
						return
					}
					repeated++
					require.NoError(t, err)
					prune()
					_, err = second.GetRun(t.Context(), old.ID)
					require.NoError(t, err, "it is kept until its repetition has ended")
					ended := untilEnded(t, first, run.ID, 5*lease)
					require.NoError(t, ended.Err())
					require.Equal(t, `"kept"`, string(ended.Steps[0].Output))
					require.EqualValues(t, 2, done.Load(), "its first step is not done again")
				})
				if t.Failed() || !struck {
					break
				}
			}
			require.Positive(t, removed)
			require.Positive(t, repeated)
		})
	}
}

// TestEngines11WhatIsRemovedSoonIsSeenElsewhere has an engine keep one run of each resource, while another engine, whose store is slow now
// and then, waits for each run, watches the resource, and follows and reads the logs.
func TestEngines11WhatIsRemovedSoonIsSeenElsewhere(t *testing.T) {
	const runs = 12
	inWorld(t, func(t *testing.T, w *world) {
		first := w.start("first", conveyor.Options{Retention: conveyor.Retention{Runs: 1}}, map[string]rig.Func{"a": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("begins", "run", req.Run)
			defer req.Log.Info("ends", "run", req.Run)
			return rig.Taking(lease/10)(ctx, req)
		}}, nil)
		t.Cleanup(func() { require.NoError(t, first.stop()) })
		second := w.begin("second", nil)
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var readers sync.WaitGroup
		finals := map[string]int{} // by run; w.mu guards it
		events := second.Watch(ctx, conveyor.WatchOptions{Resource: rig.Object("x", nil).Key()})
		readers.Go(func() {
			for e, err := range events {
				if err != nil {
					return
				}
				if e.Kind == conveyor.EventRun && e.State.Final() {
					w.mu.Lock()
					finals[e.Run]++
					w.mu.Unlock()
				}
			}
		})
		logs := func(run string, follow bool) {
			var messages []string
			for l, err := range second.Logs(t.Context(), run, conveyor.LogOptions{Follow: follow}) {
				if err != nil {
					messages = append(messages, err.Error())
				} else {
					messages = append(messages, l.Message)
				}
			}
			if fmt.Sprint(messages) != "[begins ends]" {
				w.mu.Lock()
				w.blame("the lines of run %s, followed %v, are %q", run, follow, messages)
				w.mu.Unlock()
			}
		}
		var all []string
		for i := range runs {
			run := first.mustApply(rig.Object("x", i)).ID
			all = append(all, run)
			if i%3 == 0 {
				second.hold(lease / 2)
			}
			readers.Go(func() {
				ended, err := second.Wait(t.Context(), run)
				if err != nil || ended.State != conveyor.StateSucceeded {
					w.mu.Lock()
					w.blame("run %s is waited for: %v", run, err)
					w.mu.Unlock()
				}
				time.Sleep(lease)
				logs(run, false) // long after the end
			})
			readers.Go(func() { logs(run, true) })
			time.Sleep(lease / 5)
		}
		time.Sleep(10 * lease)
		cancel()
		readers.Wait()
		for _, run := range all {
			require.Equal(t, 1, finals[run], "the end of a run is seen once")
		}
		require.Len(t, rig.Drain(t, second.Runs(t.Context(), conveyor.RunFilter{})), 1)
	})
}
