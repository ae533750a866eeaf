package engines_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
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
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// untilEnded waits until a run has ended, at most for some time.
func untilEnded(t *testing.T, e *conveyor.Engine, run string, within time.Duration) *conveyor.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ended, err := e.Wait(ctx, run)
	require.NoError(t, err)
	return ended
}

// inWorld runs a test with a world in a bubble. Processes are stopped at the end.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		test(t, w)
		time.Sleep(2 * time.Second)
		w.check()
	})
}

// begin starts a process that is stopped at the end of the test.
func (w *world) begin(name string, drivers map[string]rig.Func) *process {
	p := w.start(name, conveyor.Options{}, drivers, nil)
	w.t.Cleanup(func() { require.NoError(w.t, p.stop()) })
	return p
}

func (p *process) mustApply(o conveyor.Resource) *conveyor.Run {
	p.w.t.Helper()
	run, err := p.Apply(context.Background(), o)
	require.NoError(p.w.t, err)
	return run
}

func (p *process) mustSave(spec conveyor.PipelineSpec) {
	p.w.t.Helper()
	require.NoError(p.w.t, p.SavePipeline(context.Background(), spec))
}

// caused is a driver that keeps the cause with which its context ends.
func caused(cause *atomic.Value, d time.Duration) rig.Func {
	return func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
		select {
		case <-ctx.Done():
			cause.Store(context.Cause(ctx))
			return conveyor.Result{}, context.Cause(ctx)
		case <-time.After(d):
			return conveyor.Done(), nil
		}
	}
}

// long is how long a call or a run takes that is to outlast everything else: hundreds of leases, and no more, because each engine
// writes a heartbeat six times in a lease.
const long = 10 * time.Minute

func TestEngines07AnEngineThatIsCutOffStopsBeforeAnotherTakesOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var cause atomic.Value
		first := w.begin("first", map[string]rig.Func{"a": caused(&cause, long)})
		second := w.begin("second", map[string]rig.Func{"a": quick})
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a"))
		run := first.mustApply(rig.Object("x", 1))
		synctest.Wait()
		first.hold(4 * lease)
		time.Sleep(lease)
		require.ErrorIs(t, cause.Load().(error), conveyor.ErrLeaseLost)
		ended := untilEnded(t, second.Engine, run.ID, 2*lease)
		require.NoError(t, ended.Err())
		require.Equal(t, 1, ended.Steps[0].Attempt, "an interruption uses no attempt")
		time.Sleep(10 * lease)
		next := first.mustApply(rig.Object("y", 1))
		require.NoError(t, untilEnded(t, second.Engine, next.ID, 2*long).Err(), "it goes on under another id")
	})
}

func TestEngines06AStoreThatIsAwayInterruptsAndNothingElse(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var calls atomic.Int64
		slow := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			calls.Add(1)
			return rig.Taking(long)(ctx, req)
		}
		opts := conveyor.Options{Limits: conveyor.Limits{Interruptions: 1}}
		var all []*process
		for i := range 2 {
			p := w.start(fmt.Sprint("process-", i), opts, map[string]rig.Func{"a": slow}, nil)
			t.Cleanup(func() { require.NoError(t, p.stop()) })
			all = append(all, p)
		}
		time.Sleep(5 * lease)
		all[0].mustSave(rig.PipelineOf("a"))
		runs := []*conveyor.Run{all[0].mustApply(rig.Object("x", 1)), all[1].mustApply(rig.Object("y", 1))}
		for range 6 {
			time.Sleep(10 * lease)
			for _, p := range all {
				p.hold(3 * lease)
			}
			time.Sleep(10 * lease)
		}
		for i, run := range runs {
			ended := untilEnded(t, all[i].Engine, run.ID, 2*long)
			require.NoError(t, ended.Err(), "nothing counts as a death")
			require.Equal(t, 1, ended.Steps[0].Attempt)
		}
		require.EqualValues(t, 2*7, calls.Load())
		engines := 0
		for range w.disk.List(t.Context(), store.Query{Prefix: "eng/"}) {
			engines++
		}
		require.Equal(t, 2, engines)
		for key := range w.records() {
			require.False(t, strings.HasPrefix(key, "~own/"), key)
		}
	})
}

func TestEngines17ACreateWhoseAnswerIsLostGoesOn(t *testing.T) {
	for _, f := range []fault{unknownDone, unknownLater} {
		t.Run(string(f), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var struck, armed atomic.Bool
				first := w.start("first", conveyor.Options{}, map[string]rig.Func{"a": quick}, func(*process, int) fault {
					if armed.Load() && struck.CompareAndSwap(false, true) {
						return f
					}
					return fine
				})
				t.Cleanup(func() { require.NoError(t, first.stop()) })
				first.mustSave(rig.PipelineOf("a"))
				armed.Store(true)
				_, err := first.Apply(t.Context(), rig.Object("x", 1)) // and it is not called again
				if f == unknownLater {
					require.Error(t, err)
				} else {
					require.NoError(t, err)
				}
				time.Sleep(4 * lease)
				o, err := first.Get(t.Context(), rig.Object("x", nil).Key())
				require.NoError(t, err)
				require.Equal(t, conveyor.StateSucceeded, o.Status.Phase)
			})
		})
	}
}

func TestEngines06ATakenOverRunKeepsItsDueTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.start("first", conveyor.Options{}, map[string]rig.Func{"a": rig.Always(conveyor.RequeueAfter(time.Minute), nil)}, nil)
		second := w.begin("second", map[string]rig.Func{"a": quick})
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a"))
		run := first.mustApply(rig.Object("x", 1))
		began := time.Now()
		synctest.Wait()
		first.kill()
		require.NoError(t, first.stop())
		require.NoError(t, untilEnded(t, second.Engine, run.ID, time.Hour).Err())
		require.InDelta(t, time.Minute, time.Since(began), float64(100*time.Millisecond))
	})
}

func TestEngines05AListenerThatIsDownIsWaitedFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var deleted atomic.Int64
		first := w.begin("first", map[string]rig.Func{"listens to loose": quick})
		second := w.start("second", conveyor.Options{}, map[string]rig.Func{"b": quick}, nil)
		third := w.start("third", conveyor.Options{}, nil, nil)
		listener := rig.Undoing(rig.Recording(nil), rig.Recording(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			deleted.Add(1)
			return conveyor.Done(), nil
		}))
		require.NoError(t, third.Register("late", listener, conveyor.Listen("loose")))
		time.Sleep(5 * lease)
		require.NoError(t, third.stop()) // it restarts, and its listener is not forgotten
		time.Sleep(2 * lease)
		run := first.mustApply(rig.Loose("loose", "x", 1))
		time.Sleep(10 * lease)
		got, err := second.GetRun(t.Context(), run.ID)
		require.NoError(t, err)
		require.False(t, got.State.Final(), "it waits for the listener that is down")
		require.Equal(t, conveyor.StateBlocked, got.State)

		again := w.start("third-again", conveyor.Options{}, nil, nil)
		require.NoError(t, again.Register("late", listener, conveyor.Listen("loose")))
		ended := untilEnded(t, second.Engine, run.ID, 10*lease)
		require.NoError(t, ended.Err())
		require.Len(t, ended.Steps, 2)
		require.NoError(t, again.stop())

		gone, err := second.Delete(t.Context(), rig.Loose("loose", "x", 1).Key())
		require.NoError(t, err)
		time.Sleep(10 * lease)
		require.Zero(t, deleted.Load())
		last := w.start("third-at-last", conveyor.Options{}, nil, nil)
		require.NoError(t, last.Register("late", listener, conveyor.Listen("loose")))
		require.NoError(t, untilEnded(t, second.Engine, gone.ID, 10*lease).Err())
		require.EqualValues(t, 1, deleted.Load())
		require.NoError(t, last.stop())
		require.NoError(t, second.stop())
	})
}

func TestEngines18ADriverThatDoesNotReturnKeepsItsResource(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		deaf := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Resource.Name == "y" { // which either engine can begin
				return quick(ctx, req)
			}
			return rig.Deaf(2*long, conveyor.Done(), nil)(ctx, req)
		}
		first := w.begin("first", map[string]rig.Func{"a": deaf})
		var calls atomic.Int64
		second := w.begin("second", map[string]rig.Func{"a": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			calls.Add(1)
			return quick(ctx, req)
		}})
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a"))
		run := first.mustApply(rig.Object("x", 1))
		synctest.Wait()
		began := time.Now()
		require.NoError(t, second.Cancel(t.Context(), run.ID, "enough"))
		require.Equal(t, conveyor.StateCanceled, untilEnded(t, second.Engine, run.ID, time.Minute).State)
		next := second.mustApply(rig.Object("x", 2))
		time.Sleep(long)
		require.Zero(t, calls.Load(), "the first driver still works")
		other := second.mustApply(rig.Object("y", 1))
		require.NoError(t, untilEnded(t, second.Engine, other.ID, time.Minute).Err(), "other resources go on")
		require.NoError(t, untilEnded(t, second.Engine, next.ID, 6*long).Err())
		require.GreaterOrEqual(t, time.Since(began), 2*long-time.Minute)
	})
}

func TestEngines10PausesHoldOverAllEngines(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var calls atomic.Int64
		count := func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			calls.Add(1)
			return quick(ctx, req)
		}
		first, second := w.begin("first", map[string]rig.Func{"a": count}), w.begin("second", map[string]rig.Func{"a": count})
		first.mustSave(rig.PipelineOf("a"))
		time.Sleep(5 * lease)
		require.NoError(t, first.Pause(t.Context(), conveyor.Target{Pipeline: "p"}, "freeze"))
		var runs []*conveyor.Run
		for i, p := range []*process{first, second} { // the second one has perhaps not heard of the pause
			runs = append(runs, p.mustApply(rig.Object(fmt.Sprint("x", i), 1)))
		}
		time.Sleep(10 * lease)
		require.Zero(t, calls.Load())
		for _, p := range []*process{first, second} {
			got, err := p.GetRun(t.Context(), runs[1].ID)
			require.NoError(t, err)
			require.NotEqual(t, conveyor.StateRunning, got.State)
		}
		require.NoError(t, second.Resume(t.Context(), conveyor.Target{Pipeline: "p"}))
		for _, run := range runs {
			require.NoError(t, untilEnded(t, first.Engine, run.ID, lease).Err())
		}
		require.EqualValues(t, 2, calls.Load())
	})
}

// TestEngines10NoStepStartsAfterAPauseOfAnotherEngine has an engine stand still in the commit that starts a step, while another engine
// pauses the pipeline.
func TestEngines10NoStepStartsAfterAPauseOfAnotherEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var calls atomic.Int64
		var armed atomic.Bool
		drivers := map[string]rig.Func{"a": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			calls.Add(1)
			return quick(ctx, req)
		}}
		first := w.start("first", conveyor.Options{}, drivers, func(*process, int) fault {
			if armed.CompareAndSwap(true, false) {
				return slow
			}
			return fine
		})
		t.Cleanup(func() { require.NoError(t, first.stop()) })
		second := w.begin("second", nil)
		first.mustSave(rig.PipelineOf("a"))
		time.Sleep(5 * lease)
		armed.Store(true)
		var run *conveyor.Run
		applied := make(chan struct{})
		go func() {
			defer close(applied)
			run = first.mustApply(rig.Object("x", 1))
		}()
		time.Sleep(lease / 10)
		require.NoError(t, second.Pause(t.Context(), conveyor.Target{Pipeline: "p"}, "freeze"))
		<-applied
		time.Sleep(10 * lease)
		require.Zero(t, calls.Load())
		require.NoError(t, second.Resume(t.Context(), conveyor.Target{Pipeline: "p"}))
		require.NoError(t, untilEnded(t, second.Engine, run.ID, lease).Err())
	})
}

func TestEngines04WhatCanGoOnElsewhereDoesNotWaitForWhatWaitsHere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.begin("first", map[string]rig.Func{"a": rig.InTurn(rig.Always(conveyor.RequeueAfter(time.Hour), nil), quick)})
		second := w.begin("second", map[string]rig.Func{"b": quick})
		time.Sleep(5 * lease)
		p := rig.PipelineOf("a", "b")
		p.Steps[0].After, p.Steps[1].After = conveyor.AtOnce(), conveyor.AtOnce()
		first.mustSave(p)
		run := first.mustApply(rig.Object("x", 1))
		time.Sleep(2 * lease)
		got, err := first.GetRun(t.Context(), run.ID)
		require.NoError(t, err)
		require.Equal(t, conveyor.StateSucceeded, got.Steps[1].State)
		require.False(t, got.State.Final())
		began := time.Now()
		require.NoError(t, untilEnded(t, second.Engine, run.ID, 2*time.Hour).Err())
		require.InDelta(t, time.Hour, time.Since(began), float64(5*time.Second))
	})
}

func TestEngines04ARunWhoseDriverIsNowhereIsShownAsBlocked(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first, second := w.begin("first", map[string]rig.Func{"a": quick}), w.begin("second", nil)
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a", "nowhere"))
		first.mustSave(rig.Named("q", rig.PipelineOf("nowhere")))
		begun, unbegun := first.mustApply(rig.Object("x", 1)), first.mustApply(rig.Along("q", "y"))
		time.Sleep(2 * lease)
		for _, p := range []*process{first, second} {
			for id, reason := range map[string]string{begun.ID: `step 2: driver "nowhere" is not registered`, unbegun.ID: `step 1: driver "nowhere" is not registered`} {
				got, err := p.GetRun(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, conveyor.StateBlocked, got.State)
				require.Equal(t, reason, got.Reason)
			}
		}
		require.NoError(t, second.Register("nowhere", rig.DriverOf(quick)))
		for _, id := range []string{begun.ID, unbegun.ID} {
			require.NoError(t, untilEnded(t, first.Engine, id, 5*lease).Err())
		}
	})
}

func TestEngines02TheLaneOfARunFollowsItsChanges(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, p *process)
		state  conveyor.State
	}{
		{"another pipeline", func(t *testing.T, p *process) { p.mustApply(rig.Along("q", "x")) }, conveyor.StateSucceeded},
		{"another definition", func(t *testing.T, p *process) { p.mustSave(rig.PipelineOf("here")) }, conveyor.StateSucceeded},
		{"no pipeline any more", func(t *testing.T, p *process) { require.NoError(t, p.DeletePipeline(t.Context(), "p")) }, conveyor.StateFailed},
		{"a deletion", func(t *testing.T, p *process) {
			gone, err := p.Delete(t.Context(), rig.Object("x", nil).Key())
			require.NoError(t, err)
			require.NoError(t, untilEnded(t, p.Engine, gone.ID, 5*lease).Err())
		}, conveyor.StateCanceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				first := w.begin("first", map[string]rig.Func{"here": quick})
				second := w.begin("second", nil)
				time.Sleep(5 * lease)
				first.mustSave(rig.PipelineOf("nowhere"))
				first.mustSave(rig.Named("q", rig.PipelineOf("here")))
				run := second.mustApply(rig.Object("x", 1))
				time.Sleep(5 * lease)
				c.change(t, second)
				ended := untilEnded(t, second.Engine, run.ID, 5*lease)
				require.Equal(t, c.state, ended.State, ended.Reason)
			})
		})
	}
}

func TestEngines18TimesOfRunsWithoutAnOwner(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.begin("first", map[string]rig.Func{"a": quick})
		time.Sleep(5 * lease)
		p := rig.PipelineOf("a", "nowhere")
		p.Timeout = conveyor.Duration(time.Minute)
		first.mustSave(p)
		run := first.mustApply(rig.Object("x", 1))
		began := time.Now()
		ended := untilEnded(t, first.Engine, run.ID, 10*time.Minute)
		require.ErrorIs(t, ended.Err(), conveyor.ErrTimeout)
		require.InDelta(t, time.Minute, time.Since(began), float64(time.Second))
	})
}

func TestEngines16WhoRunsWhatIsBehindACanceledRun(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.begin("first", map[string]rig.Func{"a": rig.Taking(10 * lease)})
		second := w.begin("second", nil)
		time.Sleep(5 * lease)
		first.mustSave(rig.Queueing(rig.PipelineOf("a")))
		var runs []*conveyor.Run
		for i := range 4 {
			runs = append(runs, second.mustApply(rig.Object("x", i)))
			synctest.Wait()
		}
		require.NoError(t, second.Cancel(t.Context(), runs[1].ID, "not this one"))
		for i, run := range runs {
			want := conveyor.StateSucceeded
			if i == 1 {
				want = conveyor.StateCanceled
			}
			require.Equal(t, want, untilEnded(t, second.Engine, run.ID, 100*lease).State)
		}
	})
}

func TestEngines13RunsStayForWhoWaitsElsewhere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.start("first", conveyor.Options{Retention: conveyor.Retention{Runs: 1}}, map[string]rig.Func{"a": quick}, nil)
		t.Cleanup(func() { require.NoError(t, first.stop()) })
		second := w.begin("second", nil)
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a"))
		var runs []*conveyor.Run
		for i := range 20 {
			run := second.mustApply(rig.Object("x", i))
			require.NoError(t, untilEnded(t, second.Engine, run.ID, 2*lease).Err())
			runs = append(runs, run)
		}
		time.Sleep(lease)
		for _, run := range runs { // whoever comes late still finds it
			require.NoError(t, untilEnded(t, second.Engine, run.ID, lease).Err())
		}
		time.Sleep(10 * lease)
		require.Len(t, rig.Drain(t, second.Runs(t.Context(), conveyor.RunFilter{})), 1)
	})
}

// TestEngines05CheckpointsOfAnEngineThatWasTakenOverAreRefused has an engine stand still just before its checkpoint reaches the store, and
// while it does not know yet that it was taken over. The engine that has taken over has not the driver, so that the record of the step
// stays as it was.
func TestEngines05CheckpointsOfAnEngineThatWasTakenOverAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		late time.Duration // until the driver saves its checkpoint
		at   fault         // of the commit of the checkpoint
	}{{"on its way", lease / 10, pauses}, {"not begun", 6 * lease, fine}} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var armed atomic.Bool
				var refused atomic.Value
				first := w.start("first", conveyor.Options{}, map[string]rig.Func{"a": rig.InTurn(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					time.Sleep(c.late) // it does not look at its context, as if the process stood still
					armed.Store(true)
					err := req.Checkpoint(context.Background(), "late")
					refused.Store(err)
					return conveyor.Done(), nil
				}, quick)}, func(*process, int) fault {
					if armed.CompareAndSwap(true, false) {
						return c.at
					}
					return fine
				})
				t.Cleanup(func() { require.NoError(t, first.stop()) })
				time.Sleep(5 * lease)
				first.mustSave(rig.PipelineOf("a"))
				run := first.mustApply(rig.Object("x", 1))
				second := w.begin("second", nil)
				if c.at == fine {
					first.hold(5 * lease)
				}
				require.NoError(t, untilEnded(t, second.Engine, run.ID, time.Minute).Err())
				require.ErrorIs(t, refused.Load().(error), conveyor.ErrLeaseLost)
			})
		})
	}
}

func TestEngines11EventsOfOtherEnginesAreSeen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := map[string]rig.Func{"a": rig.Taking(100 * time.Millisecond)}
		first, second := w.begin("first", a), w.begin("second", map[string]rig.Func{
			"b": rig.Taking(100 * time.Millisecond),
			"skip": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
				_, err := rig.Taking(100*time.Millisecond)(ctx, req)
				return conveyor.Skip("not needed"), err
			},
		})
		watcher := w.begin("watcher", nil)
		pure, err := conveyor.New(line{&process{disk: w.disk.Join(), w: w, name: "pure"}}, conveyor.Options{}) // never started
		require.NoError(t, err)
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a", "skip", "b"))
		var want []string
		for _, e := range []*conveyor.Engine{watcher.Engine, first.Engine, second.Engine, pure} {
			name := fmt.Sprint("x", len(want))
			ctx, cancel := context.WithTimeout(t.Context(), 4*lease)
			defer cancel()
			events := e.Watch(ctx, conveyor.WatchOptions{Resource: rig.Object(name, nil).Key()})
			synctest.Wait()
			run := first.mustApply(rig.Object(name, 1))
			var seen []string
			for event, err := range events {
				if err != nil {
					break
				}
				if event.Run == run.ID {
					seen = append(seen, strings.TrimSpace(fmt.Sprint(event.Kind, " ", event.Step, " ", event.State, " ", event.ErrorKind)))
				}
			}
			require.Equal(t, []string{
				"run  running", "step 1 running", "step 1 succeeded", "step 2 running", "step 2 skipped skip", "step 3 running", "step 3 succeeded", "run  succeeded",
			}, seen)
			want = append(want, name)
		}
		require.NoError(t, pure.Shutdown(t.Context()))
	})
}

// endsDuringRead is a handle of an engine. The first read of a run waits until the commit that ends the run is made. The engine learns
// of this commit a second later.
type endsDuringRead struct {
	*memory.Shared
	once           sync.Once
	reading, ended chan struct{} // closed when the read begins and when the commit is made
}

func (s *endsDuringRead) Get(ctx context.Context, key string) (store.Record, error) {
	if strings.HasPrefix(key, "run/") {
		s.once.Do(func() {
			close(s.reading)
			<-s.ended
		})
	}
	return s.Shared.Get(ctx, key)
}

func (s *endsDuringRead) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	rev, err := s.Shared.Commit(ctx, ops...)
	for _, op := range ops {
		if strings.HasPrefix(op.Key(), "run/") && bytes.Contains(op.Value(), []byte(`"state":"succeeded"`)) {
			close(s.ended)
			time.Sleep(time.Second)
		}
	}
	return rev, err
}

func TestEngines11TheEndOfAnOwnRunIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &endsDuringRead{Shared: memory.NewShared().Join(), reading: make(chan struct{}), ended: make(chan struct{})}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			<-st.reading // for the events of other engines
			return conveyor.Done(), nil
		}))
		e.Pipeline("d")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		events := e.Watch(ctx, conveyor.WatchOptions{Resource: rig.Object("a", nil).Key()})
		e.MustApply(rig.Object("a", nil))
		var seen []string
		for event, err := range events {
			if err != nil {
				break
			}
			if event.Kind != conveyor.EventResource {
				seen = append(seen, strings.TrimSpace(fmt.Sprint(event.Step, " ", event.State)))
			}
		}
		require.Equal(t, []string{"running", "1 running", "1 succeeded", "succeeded"}, seen)
	})
}

// readsForLong is a handle of an engine. The engine learns of the changes of runs when it is about to begin one, which it does when it has
// read the run for the events of other engines. This read takes until goOn is closed.
type readsForLong struct {
	*memory.Shared
	begin, read              sync.Once
	beginning, reading, goOn chan struct{}
}

func (s *readsForLong) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range s.Shared.Watch(ctx, prefix, after) {
			if prefix == "run/" && err == nil {
				<-s.beginning
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

func (s *readsForLong) Get(ctx context.Context, key string) (store.Record, error) {
	r, err := s.Shared.Get(ctx, key)
	if strings.HasPrefix(key, "run/") && bytes.Contains(debug.Stack(), []byte("conveyor.(*mirror).changed")) {
		s.read.Do(func() {
			close(s.reading)
			<-s.goOn
		})
	}
	return r, err
}

func (s *readsForLong) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if slices.ContainsFunc(ops, func(op store.Op) bool { return bytes.Contains(op.Value(), []byte(`"state":"running"`)) }) {
		s.begin.Do(func() {
			close(s.beginning)
			<-s.reading
		})
	}
	return s.Shared.Commit(ctx, ops...)
}

func TestEngines11WhatWasReadBeforeIsNotToldAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &readsForLong{Shared: memory.NewShared().Join(), beginning: make(chan struct{}), reading: make(chan struct{}), goOn: make(chan struct{})}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Pipeline("d")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		events := e.Watch(ctx, conveyor.WatchOptions{Resource: rig.Object("a", nil).Key()})
		e.MustApply(rig.Object("a", nil))
		time.Sleep(time.Second)
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), nil))) // the run goes on
		var after []conveyor.State                                    // the run has succeeded
		ended := false
		for event, err := range events {
			switch {
			case err != nil:
			case ended:
				after = append(after, event.State)
			case event.Kind == conveyor.EventRun && event.State == conveyor.StateSucceeded:
				ended = true
				close(st.goOn)
			}
		}
		require.Empty(t, after)
	})
}

func TestEngines11LogsOfOtherEnginesAreFollowed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.begin("first", map[string]rig.Func{"a": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for i := range 5 {
				req.Log.Info(fmt.Sprint("line ", i))
				time.Sleep(time.Second)
			}
			return conveyor.Done(), nil
		}})
		second := w.begin("second", nil)
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a"))
		run := first.mustApply(rig.Object("x", 1))
		began := time.Now()
		var lines []string
		for l, err := range second.Logs(t.Context(), run.ID, conveyor.LogOptions{Follow: true}) {
			require.NoError(t, err)
			lines = append(lines, l.Message)
			require.LessOrEqual(t, time.Since(l.Time), 2*time.Second+time.Millisecond)
		}
		require.Equal(t, []string{"line 0", "line 1", "line 2", "line 3", "line 4"}, lines)
		require.LessOrEqual(t, time.Since(began), 7*time.Second)
	})
}

func TestEngines13EnginesAndTheirListenersAreListed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.begin("first", map[string]rig.Func{"a": quick})
		time.Sleep(time.Millisecond)
		second := w.start("second", conveyor.Options{Workers: 3, StepTimeout: time.Hour}, map[string]rig.Func{"listens to loose": quick}, nil)
		pure, err := conveyor.New(w.disk.Join(), conveyor.Options{}) // never started
		require.NoError(t, err)
		time.Sleep(5 * lease)
		for _, e := range []*conveyor.Engine{first.Engine, pure} {
			engines, err := e.Engines(t.Context())
			require.NoError(t, err)
			require.Len(t, engines, 2)
			one, two := engines[0], engines[1]
			require.Equal(t, []string{"first", "second"}, []string{one.Name, two.Name})
			require.Equal(t, e == first.Engine, one.Self)
			require.False(t, two.Self || one.OtherOptions)
			require.True(t, two.OtherOptions)
			require.Equal(t, []string{"listens-to-loose"}, two.Drivers)
			require.Equal(t, 3, two.Free)
			require.WithinDuration(t, time.Now(), two.Heartbeat, lease/6)
			require.InDelta(t, 0, two.Ahead, float64(lease/3))
			require.Zero(t, two.Dead)
		}
		listeners, err := pure.Listeners(t.Context())
		require.NoError(t, err)
		require.Len(t, listeners, 1)
		require.Len(t, listeners[0].Engines, 1)
		require.ErrorIs(t, first.Forget(t.Context(), "listens-to-loose"), conveyor.ErrConflict)
		require.ErrorIs(t, first.Forget(t.Context(), "nobody"), conveyor.ErrNotFound)
		require.ErrorIs(t, first.Forget(t.Context(), "no/name"), conveyor.ErrInvalid)

		second.kill()
		require.NoError(t, second.stop())
		time.Sleep(3 * lease)
		require.ErrorIs(t, first.Forget(t.Context(), "listens-to-loose", "other"), conveyor.ErrNotFound)
		waits := first.mustApply(rig.Loose("loose", "x", 1))
		time.Sleep(3 * lease)
		got, err := first.GetRun(t.Context(), waits.ID)
		require.NoError(t, err)
		require.Contains(t, got.Reason, "Engine.Forget")
		require.NoError(t, first.Forget(t.Context(), "listens-to-loose", "loose"))
		listeners, err = pure.Listeners(t.Context())
		require.NoError(t, err)
		require.Empty(t, listeners)
		skipped := first.mustApply(rig.Loose("loose", "y", 1))
		require.Equal(t, conveyor.StateSkipped, untilEnded(t, first.Engine, skipped.ID, 3*lease).State)
		require.Equal(t, conveyor.StateSkipped, untilEnded(t, first.Engine, waits.ID, 3*lease).State, "it has not begun")
		require.NoError(t, pure.Shutdown(t.Context()))
	})
}

// TestEngines03AnIdleEngineAsksLittle counts what engines ask of the store while nothing is to do, and how many claims of a run are lost
// to another engine.
func TestEngines03AnIdleEngineAsksLittle(t *testing.T) {
	const engines, minutes = 10, 60
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{T: t, disk: memory.NewShared()}
		var all []*rig.Engine
		for range engines {
			all = append(all, f.engine(conveyor.Options{}, map[string]conveyor.Driver{"a": rig.DriverOf(quick), "b": rig.DriverOf(quick)}))
		}
		after(time.Minute)
		asked := func() (n int) {
			for _, e := range all {
				for _, reads := range e.Store.TakeReads() {
					n += reads
				}
			}
			return n
		}
		asked()
		commits := func() (n int) {
			for _, e := range all {
				n += e.Store.Commits()
			}
			return n
		}
		before := commits()
		time.Sleep(minutes * time.Minute)
		perSecond := float64(asked()+commits()-before) / (engines * minutes * 60)
		require.Less(t, perSecond, 2.0)

		all[0].Pipeline("a", "b")
		for i := range 100 {
			all[i%engines].MustApply(rig.Object(fmt.Sprint("x", i), 1))
			time.Sleep(time.Second)
		}
		rig.RequireAtRest(t, f.disk)
		perRun := float64(asked()) / 100
		testenv.Figure(t, "%d idle engines: %.2f calls of the store a second each; with a run a second: %.0f reads a run by all of them together", engines, perSecond, perRun)
	})
}

// TestEngines03APlainRunReadsLittle counts the reads of an engine that applies a resource, works on its run alone, and waits for its end.
// A run can need a few more, if its end is told by the store before the engine has told it itself. It is seldom.
func TestEngines03APlainRunReadsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.NewOn(t, memory.NewShared().Join(), conveyor.Options{}).MustStart()
		e.Driver("a", rig.DriverOf(rig.Taking(time.Millisecond)))
		e.Pipeline("a", "a", "a", "a", "a")
		e.Finish(rig.Object("first", nil)) // Wait begins to follow the runs of other engines
		time.Sleep(3 * time.Second)
		least := map[string]int{}
		for i := range 50 {
			e.Store.TakeReads()
			e.Finish(rig.Object(fmt.Sprint("x", i), nil))
			kinds := map[string]int{}
			for key, n := range e.Store.TakeReads() {
				kind, _, _ := strings.Cut(key, "/")
				kinds[kind] += n
			}
			if i == 0 || len(kinds) < len(least) {
				least = kinds
			}
		}
		require.Equal(t, map[string]int{"res": 1, "tmb": 1, "pip": 1}, least)
	})
}

func TestEngines12AResyncIsDoneByAnyEngineOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var calls atomic.Int64
		count := map[string]rig.Func{"a": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			calls.Add(1)
			return quick(ctx, req)
		}}
		first := w.start("first", conveyor.Options{}, count, nil)
		second, third := w.begin("second", count), w.begin("third", count)
		time.Sleep(5 * lease)
		p := rig.PipelineOf("a")
		p.Resync = conveyor.Duration(time.Minute)
		first.mustSave(p)
		require.NoError(t, untilEnded(t, second.Engine, first.mustApply(rig.Object("x", 1)).ID, lease).Err())
		first.kill() // its alarm goes with it
		require.NoError(t, first.stop())
		for n := range 5 {
			time.Sleep(time.Minute + 2*lease)
			require.EqualValues(t, 2+n, calls.Load(), "once, and not later than a lease")
		}
		require.Len(t, rig.Drain(t, third.Runs(t.Context(), conveyor.RunFilter{})), 6)
	})
}

// TestEngines12AListenerThatComesDuringASkipIsNotMissed registers a listener in one engine at each commit of another one that applies a
// resource, to which nobody has listened. The search that follows the registration comes before that commit or beside it, and the
// other engine goes on after the commit, or dies of it.
func TestEngines12AListenerThatComesDuringASkipIsNotMissed(t *testing.T) {
	for _, dies := range []fault{fine, diesAfter} {
		for _, searched := range []bool{false, true} {
			t.Run(fmt.Sprintf("dies %q, searched before %v", dies, searched), func(t *testing.T) {
				n := 1
				for listensDuringCommit(t, n, searched, dies) {
					n++
				}
				require.Greater(t, n, 1)
			})
		}
	}
}

// listensDuringCommit reports whether there was a commit n.
func listensDuringCommit(t *testing.T, n int, searched bool, dies fault) (struck bool) {
	inWorld(t, func(t *testing.T, w *world) {
		var late *process
		var armed atomic.Bool
		var commits atomic.Int64
		first := w.start("first", conveyor.Options{}, nil, func(*process, int) fault {
			if !armed.Load() || int(commits.Add(1)) != n {
				return fine
			}
			struck = true
			require.NoError(t, late.Register("late", rig.DriverOf(quick), conveyor.Listen("loose")))
			if searched {
				time.Sleep(lease / 100)
			}
			return dies
		})
		t.Cleanup(func() { _ = first.stop() })
		late = w.begin("late", nil)
		time.Sleep(5 * lease)
		armed.Store(true)
		_, err := first.Apply(t.Context(), rig.Loose("loose", "x", 1))
		if dies == fine {
			require.NoError(t, err)
		}
		time.Sleep(3 * lease)
		armed.Store(false)
		if o, err := late.Get(t.Context(), rig.Loose("loose", "x", 1).Key()); struck && !errors.Is(err, conveyor.ErrNotFound) {
			require.NoError(t, err)
			require.Equal(t, conveyor.StateSucceeded, o.Status.Phase, "commit %d", n)
		}
	})
	return struck && !t.Failed()
}

func TestEngines05AListenerWaitsForTheSignalOfAnotherEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.begin("first", map[string]rig.Func{"listens to loose": rig.Awaiting(0)})
		var second *process
		second = w.start("second", conveyor.Options{}, nil, nil)
		t.Cleanup(func() { require.NoError(t, second.stop()) })
		require.NoError(t, second.Register("sends", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), second.Signal(ctx, req.Run, "go", "from the other one")
		}), conveyor.Listen("loose")))
		time.Sleep(5 * lease)
		for _, p := range []*process{first, second} {
			run := p.mustApply(rig.Loose("loose", p.name, 1))
			require.NoError(t, untilEnded(t, p.Engine, run.ID, 5*lease).Err())
		}
	})
}

func TestEngines08ARunThatAwaitsASignalWhenItsEngineIsShutDown(t *testing.T) {
	for _, signaled := range []bool{true, false} {
		t.Run(fmt.Sprint("signaled ", signaled), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				first := w.start("first", conveyor.Options{}, map[string]rig.Func{"s": rig.Awaiting(time.Minute)}, nil)
				second := w.begin("second", map[string]rig.Func{"s": rig.Awaiting(time.Minute)})
				client, err := conveyor.New(line{&process{disk: w.disk.Join(), w: w, name: "client"}}, conveyor.Options{}) // never started
				require.NoError(t, err)
				time.Sleep(5 * lease)
				first.mustSave(rig.PipelineOf("s"))
				run := first.mustApply(rig.Object("x", 1))
				began := time.Now()
				time.Sleep(lease)
				require.NoError(t, first.stop())
				if signaled {
					require.NoError(t, client.Signal(t.Context(), run.ID, "go", "yes"))
				}
				ended := untilEnded(t, second.Engine, run.ID, 2*time.Minute)
				require.NoError(t, ended.Err())
				require.Equal(t, signaled, string(ended.Steps[0].Output) == `"yes"`)
				if !signaled {
					require.InDelta(t, time.Minute, time.Since(began), float64(100*time.Millisecond))
				}
				require.NoError(t, client.Shutdown(t.Context()))
			})
		})
	}
}

// TestEngines06ManyWaitingRunsAreTakenOver kills an engine that has very many runs which wait for a time, and the engine that takes them
// over in the middle of it.
func TestEngines06ManyWaitingRunsAreTakenOver(t *testing.T) {
	runs := testenv.Some(t, 300, 3000)
	inWorld(t, func(t *testing.T, w *world) {
		waits := map[string]rig.Func{"a": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if time.Since(req.Resource.CreatedAt) < long {
				return conveyor.RequeueAfter(2 * long), nil
			}
			return conveyor.Done(), nil
		}}
		disk := w.disk
		first, one := startOdd(t, disk, conveyor.Options{}, waits)
		second, two := startOdd(t, disk, conveyor.Options{}, waits)
		third, _ := startOdd(t, disk, conveyor.Options{}, waits)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		for i := range runs {
			_, err := first.Apply(t.Context(), rig.Object(fmt.Sprint("x", i), 1))
			require.NoError(t, err)
		}
		die := func(o *odd) {
			o.onGet(func(string) error { return rig.ErrDied })
			o.onList(func(string) error { return rig.ErrDied })
			o.onCommit(func([]store.Op) error { return rig.ErrDied })
		}
		var taken atomic.Int64
		two.onCommit(func(ops []store.Op) error {
			for _, op := range ops {
				if strings.HasPrefix(op.Key(), "~own/") && op.Removes() {
					taken.Add(1)
				}
			}
			if taken.Load() > int64(runs/4) {
				return rig.ErrDied
			}
			return nil
		})
		die(one)
		time.Sleep(2 * lease)
		die(two)
		time.Sleep(4 * lease)
		stats, err := third.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, runs, stats.Unfinished, "all of them, within two leases of the second death")
		for _, e := range []*conveyor.Engine{first, second} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
			_ = e.Shutdown(ctx)
			cancel()
		}
		time.Sleep(3 * long)
		rig.RequireAtRest(t, disk)
	})
}
