package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
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
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// shredder is a store that forgets what the engine does not need to go on, so that what is in memory is the engine's part.
type shredder struct {
	store.Store
	revision atomic.Uint64
}

// Commit keeps the records of pipelines, and of the resource "first", which is at work.
func (s *shredder) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	for _, op := range ops {
		if strings.HasPrefix(op.Key(), "pip/") || strings.HasPrefix(op.Key(), "res/r/first") {
			return s.Store.Commit(ctx, ops...)
		}
	}
	return store.Revision(1<<40 + s.revision.Add(1)), nil
}

// waitingRun is what a run that waits may hold in the engine: about 430 bytes, and what its queues are too large by.
const waitingRun = 1 << 10

func TestAMillionAppliesToWhatIsStuckHoldOneKilobyteEach(t *testing.T) {
	many, some := testenv.Bound(t, "CONVEYOR_APPLIES", testenv.Some(t, 50_000, 1_000_000), 5_000), testenv.Bound(t, "CONVEYOR_APPLIES", testenv.Some(t, 10_000, 100_000), 5_000)
	for _, c := range []struct {
		name   string
		runs   int
		opts   []conveyor.DriverOption
		absent bool // the driver
		paused bool // the pipeline, once one run is under way
		change func(conveyor.PipelineSpec) conveyor.PipelineSpec
	}{
		{"a pipeline that has one run at a time", many, nil, false, false, func(p conveyor.PipelineSpec) conveyor.PipelineSpec { return rig.AtMost(p, 1) }},
		{"a driver with one slot", some, []conveyor.DriverOption{conveyor.Concurrency(1)}, false, false, nil},
		{"an engine whose workers are all taken", some, nil, false, false, nil},
		{"a driver that is not registered", some, nil, true, false, nil},
		{"a pipeline that is paused", some, nil, false, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			release, entered := make(chan struct{}), make(chan struct{}, 1)
			e, err := conveyor.New(&shredder{Store: memory.New()}, conveyor.Options{Workers: 2, ShutdownGrace: time.Millisecond})
			require.NoError(t, err)
			if !c.absent {
				require.NoError(t, e.Register("stuck", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					select {
					case entered <- struct{}{}:
					default: // not the first call
					}
					<-release
					return conveyor.Done(), nil
				}), c.opts...))
			}
			p := rig.PipelineOf("stuck")
			if c.change != nil {
				p = c.change(p)
			}
			require.NoError(t, e.SavePipeline(t.Context(), p))
			require.NoError(t, e.Start(t.Context()))
			_, err = e.Apply(t.Context(), rig.Object("first", nil))
			require.NoError(t, err)
			if !c.absent {
				<-entered
			}
			if c.paused {
				require.NoError(t, e.Pause(t.Context(), conveyor.Target{Pipeline: "p"}, "freeze"))
			}
			goroutines, before := runtime.NumGoroutine(), rig.HeapInUse()
			for i := range c.runs {
				_, err := e.Apply(t.Context(), rig.Object(fmt.Sprint("n", i), nil))
				require.NoError(t, err)
			}
			each := (int64(rig.HeapInUse()) - int64(before)) / int64(c.runs)
			testenv.Figure(t, "%s: %d bytes of heap for each of %d runs", c.name, each, c.runs)
			require.Positive(t, each)
			require.LessOrEqual(t, each, int64(waitingRun))
			require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+2, "waiting needs no goroutine")
			st, err := e.Stats(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.runs+1, st.Unfinished)

			close(release)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = e.Shutdown(ctx) // the store has forgotten what it was told
			runtime.KeepAlive(e)
		})
	}
}

func TestAMillionAppliesToOneStuckResourceHoldNoMore(t *testing.T) {
	applies := testenv.Bound(t, "CONVEYOR_APPLIES", testenv.Some(t, 10_000, 50_000), 3_000)
	const line = 1_000 // Limits.Queue
	for _, policy := range []conveyor.ChangePolicy{conveyor.Coalesce, conveyor.Supersede, conveyor.Queue} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newBareEngine(t, conveyor.Options{
					Workers: 2, Limits: conveyor.Limits{Queue: line}, Retention: conveyor.Retention{Runs: 3, Revisions: 3},
				}).MustStart()
				release := make(chan struct{})
				e.Driver("stuck", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
					<-release
					return conveyor.Done(), nil
				}))
				p := rig.PipelineOf("stuck")
				p.OnChange = policy
				e.Save(p)
				e.MustApply(rig.Object("x", -1))
				time.Sleep(time.Second)
				before := rig.HeapInUse()
				refused, last := 0, 0
				most := 0
				for i := range applies {
					_, err := e.Apply(t.Context(), rig.Object("x", i))
					switch {
					case err == nil:
						last = i
					default:
						require.Equal(t, conveyor.Queue, policy)
						require.ErrorIs(t, err, conveyor.ErrTooLarge)
						require.ErrorContains(t, err, fmt.Sprintf("queue: %d pending runs, more than the limit of %d (Limits.Queue)", line+1, line))
						refused++
					}
					if i%(applies/10) == 0 {
						time.Sleep(time.Minute) // for what is done beside
						most = max(most, len(rig.Dump(t, e.Store.Store)))
					}
				}
				time.Sleep(time.Minute)
				grown := int64(rig.HeapInUse()) - int64(before)
				t.Logf("%d bytes of heap more, and %d records at most", grown, most)
				kept := 1
				if policy == conveyor.Queue {
					kept = line + 1
					require.Equal(t, applies-line, refused)
				}
				require.LessOrEqual(t, grown, int64(2<<20+kept*4<<10))
				require.LessOrEqual(t, most, 20+2*256+kept*8)
				st := e.MustStats()
				require.LessOrEqual(t, st.Unfinished, kept+1)
				close(release)
				time.Sleep(time.Hour)
				require.JSONEq(t, fmt.Sprint(last), string(e.MustGet(rig.Object("x", nil)).Spec), "what was acknowledged last")
				require.Equal(t, e.MustGet(rig.Object("x", nil)).Generation, e.MustGet(rig.Object("x", nil)).Status.ObservedGeneration)
				require.Zero(t, e.MustStats().Unfinished)
				require.LessOrEqual(t, len(e.RunsOf(rig.Object("x", nil))), 3)
				require.Len(t, rig.Drain(t, e.Revisions(t.Context(), rig.Object("x", nil).Key())), 3)
			})
		})
	}
}

func TestAStormOfAppliesOnOneKeyKeepsWhatRetentionSays(t *testing.T) {
	applies := testenv.Bound(t, "CONVEYOR_STORM", testenv.Some(t, 10_000, 50_000), 2_000)
	const writers = 16
	synctest.Test(t, func(t *testing.T) {
		e := newBareEngine(t, conveyor.Options{Retention: conveyor.Retention{Runs: 5, Revisions: 5}}).MustStart()
		newest := int64(0) // of the generations seen; a resource has one call at a time
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Resource.Generation < newest {
				return conveyor.Done(), conveyor.Permanent(fmt.Errorf("generation %d after %d", req.Resource.Generation, newest))
			}
			newest = req.Resource.Generation
			return conveyor.Done(), nil
		}))
		e.Pipeline("d", "d")
		e.Finish(rig.Object("x", "first"))
		before := rig.HeapInUse()
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for i := range applies / writers {
					if _, err := e.Apply(t.Context(), rig.Object("x", fmt.Sprint(w, "-", i))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		last := e.Ended(e.MustApply(rig.Object("x", "last")).ID)
		require.NoError(t, last.Err())
		found := e.MustGet(rig.Object("x", nil))
		require.Equal(t, found.Generation, found.Status.ObservedGeneration)
		require.EqualValues(t, applies/writers*writers+2, found.Generation, "every one was a generation")
		synctest.Wait()
		require.Equal(t, found.Generation, newest)
		require.LessOrEqual(t, len(e.RunsOf(rig.Object("x", nil))), 5)
		require.Len(t, rig.Drain(t, e.Revisions(t.Context(), rig.Object("x", nil).Key())), 5)
		require.LessOrEqual(t, len(rig.Dump(t, e.Store.Store)), 5*6+5+10, "runs with their steps, revisions, and what there is once")
		require.LessOrEqual(t, int64(rig.HeapInUse())-int64(before), int64(4<<20))
	})
}

// newBareEngine is [rig.New], but nothing takes note of the commits.
func newBareEngine(t *testing.T, opts conveyor.Options) *rig.Engine {
	t.Helper()
	r := &rig.Engine{T: t, Store: &rig.Tap{Store: memory.New()}}
	var err error
	r.Engine, err = conveyor.New(r.Store.Store, opts)
	require.NoError(t, err)
	t.Cleanup(r.Stop)
	return r
}

// eventHeap is the most that the events of an engine hold, as WatchOptions says.
func eventHeap(l conveyor.Limits) int64 { return int64(l.WatchBuffer) * int64(l.ErrorText+2<<10) }

func TestSilentWatchersHoldNoMoreThanTheBuffer(t *testing.T) {
	events := testenv.Bound(t, "CONVEYOR_EVENTS", testenv.Some(t, 100_000, 1_000_000), 20_000)
	limits := conveyor.Limits{WatchBuffer: 1_024, ErrorText: 8 << 10, Attempts: 1}
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		told := 0
		e := newBareEngine(t, conveyor.Options{Limits: limits, Observer: conveyor.ObserverFunc(func(context.Context, conveyor.Event) {
			told++
			<-release
		})}).MustStart()
		text := strings.Repeat("x", limits.ErrorText-10)
		calls := events / 2 // each call makes two
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			switch calls--; {
			case calls == 0:
				return conveyor.Done(), nil
			case calls > 2*limits.WatchBuffer:
				return conveyor.RequeueAfter(0), nil
			}
			return conveyor.Done(), conveyor.RetryAfter(0, errors.New(fmt.Sprint(calls)+text)) // as large as an event gets
		}), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: -1}))
		e.Pipeline("d")
		before := rig.HeapInUse()
		type pull = func() (conveyor.Event, error, bool)
		var silent []pull
		for range 100 {
			next, stop := iter.Pull2(e.Watch(t.Context(), conveyor.WatchOptions{}))
			defer stop()
			silent = append(silent, next)
		}
		run := e.MustApply(rig.Object("x", nil))
		for _, next := range silent {
			_, err, ok := next()
			require.NoError(t, err)
			require.True(t, ok)
		}
		require.NoError(t, e.Ended(run.ID).Err())
		grown := int64(rig.HeapInUse()) - int64(before)
		testenv.Figure(t, "%d events, %d bytes of heap more", events, grown)
		require.LessOrEqual(t, grown, 2*eventHeap(limits))
		require.Greater(t, grown, eventHeap(limits)/4, "the events are there")
		for _, next := range silent {
			_, err, ok := next()
			require.True(t, ok)
			require.ErrorIs(t, err, conveyor.ErrGap)
			_, _, ok = next()
			require.False(t, ok)
		}
		require.Equal(t, 1, told)
		close(release)
		synctest.Wait()
		require.Equal(t, limits.WatchBuffer+2, told, "the first, the gap, and what is kept")
	})
}
