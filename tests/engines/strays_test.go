package engines_test

import (
	"context"
	"strings"
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

// TestEngines08AShutdownThatTheStoreDoesNotAnswerEndsTheHeartbeat has a call of the store hang while an engine is shut down. The process
// lives on.
func TestEngines08AShutdownThatTheStoreDoesNotAnswerEndsTheHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, o := oddEngine(t, disk, conveyor.Options{}, map[string]rig.Func{"a": rig.Taking(long)})
		require.NoError(t, first.Start(t.Context()))
		second, _ := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": quick})
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		run, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		hang := true
		o.onCommit(func(ops []store.Op) error {
			if strings.HasPrefix(ops[0].Key(), "stp/") && hang {
				hang = false
				time.Sleep(long) // one call of the store hangs
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*lease)
		defer cancel()
		require.ErrorContains(t, first.Shutdown(ctx), "the store has not answered")
		again, cancel := context.WithTimeout(t.Context(), lease)
		defer cancel()
		require.ErrorContains(t, first.Shutdown(again), "the store has not answered", "nothing has changed")
		untilEnded(t, second, run.ID, 30*lease)
		time.Sleep(2 * long)
	})
}

func TestEngines18ARunIsReleasedWhenTheStrayHasReturned(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.begin("first", map[string]rig.Func{"a": rig.Deaf(10*time.Second, conveyor.Done(), nil)})
		second := w.begin("second", map[string]rig.Func{"b": quick})
		time.Sleep(5 * lease)
		p := rig.PipelineOf("a")
		p.Finally = []conveyor.Step{{Driver: "b"}}
		first.mustSave(p)
		run := first.mustApply(rig.Object("x", 1))
		synctest.Wait()
		require.NoError(t, first.Cancel(t.Context(), run.ID, "enough"))
		require.Equal(t, conveyor.StateCanceled, untilEnded(t, second.Engine, run.ID, long).State)
	})
}

// TestEngines18AnEngineThatBeginsAnewDoesNotCallBesideItsOwnCall has a driver not return when its engine was marked dead.
func TestEngines18AnEngineThatBeginsAnewDoesNotCallBesideItsOwnCall(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		deaf := rig.Deaf(4*time.Second, conveyor.Done(), nil)
		first := w.begin("first", map[string]rig.Func{"a": rig.InTurn(deaf, quick)})
		second := w.begin("second", nil)
		time.Sleep(5 * lease)
		first.mustSave(rig.PipelineOf("a"))
		run := first.mustApply(rig.Object("x", 1))
		synctest.Wait()
		next := second.mustApply(rig.Object("x", 2))
		require.NoError(t, second.Cancel(t.Context(), run.ID, "enough"))
		first.hold(3 * lease / 2)
		require.NoError(t, untilEnded(t, second.Engine, next.ID, 20*lease).Err())
	})
}

// TestEngines09ASignalOfAnotherEngineEndsWithItsRun has a signal come between the decision that ends a run and its commit.
func TestEngines09ASignalOfAnotherEngineEndsWithItsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		first, o := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": quick})
		second, _ := startOdd(t, disk, conveyor.Options{}, nil)
		require.NoError(t, first.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		var asked atomic.Bool
		o.onCommit(func(ops []store.Op) error {
			for _, op := range ops {
				if run, is := strings.CutPrefix(op.Key(), "~act/"); is && op.Removes() && asked.CompareAndSwap(false, true) {
					require.NoError(t, second.Signal(t.Context(), run, "go", nil))
				}
			}
			return nil
		})
		run, err := first.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		untilEnded(t, second, run.ID, 10*lease)
		require.True(t, asked.Load())
		time.Sleep(long)
		require.Empty(t, rig.Drain(t, disk.List(t.Context(), store.Query{Prefix: "~sig/"})))
	})
}

// TestEngines07WhatIsDueWhileTheFenceIsClosedForAMomentGoesOn has a run come due while the fence is closed for so short a time that nobody
// is told.
func TestEngines07WhatIsDueWhileTheFenceIsClosedForAMomentGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		back := make(chan struct{})
		e, o := startOdd(t, disk, conveyor.Options{}, map[string]rig.Func{"a": rig.InTurn(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			<-back
			return conveyor.RequeueAfter(675 * time.Millisecond), nil
		}, quick)})
		require.NoError(t, e.SavePipeline(t.Context(), rig.PipelineOf("a")))
		time.Sleep(5 * lease)
		run, err := e.Apply(t.Context(), rig.Object("x", 1))
		require.NoError(t, err)
		var heartbeats, looks atomic.Int64
		o.onCommit(func(ops []store.Op) error {
			if strings.HasPrefix(ops[0].Key(), "~hbt/") {
				switch heartbeats.Add(1) {
				case 1:
					time.Sleep(33 * time.Millisecond)
				case 2: // it is answered just before the fence closes by its beginning, and after the fence has closed by the one before
					close(back)
					time.Sleep(660 * time.Millisecond)
				}
			}
			return nil
		})
		o.onList(func(prefix string) error {
			if prefix == "eng/" && heartbeats.Load() == 2 && looks.Add(1) == 1 {
				time.Sleep(10 * time.Millisecond) // the fence closes meanwhile, and nobody is told
			}
			return nil
		})
		untilEnded(t, e, run.ID, long)
	})
}
