package features_test

import (
	"context"
	"fmt"
	"runtime"
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
)

func TestRule05AllListenersWorkAtOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		took    time.Duration
	}{
		{"with workers enough", 0, time.Minute},
		{"with one worker", 1, 3 * time.Minute},
		{"with two workers", 2, 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: c.workers}).MustStart()
				d := rig.Recording(rig.Taking(time.Minute))
				for _, name := range []string{"b", "c", "a"} {
					e.Driver(name, d, conveyor.Listen("other", "k"))
				}
				e.Driver("deaf", new(rig.Recorder), conveyor.Listen("other"))
				e.Driver("mute", new(rig.Recorder))
				began := time.Now()
				o := rig.Loose("k", "x", 1)
				run := e.Finish(o)
				require.NoError(t, run.Err())
				require.Equal(t, c.took, time.Since(began))
				steps := d.Steps()
				slices.Sort(steps)
				require.Equal(t, []string{"a", "b", "c"}, steps)
				require.Equal(t, []string{"succeeded", "succeeded", "succeeded"}, rig.StatesOf(run))
				require.Equal(t, run.ID, e.MustApply(o).ID, "unchanged, so not again")
				require.Equal(t, conveyor.StateSucceeded, e.MustGet(o).Status.Phase)
			})
		})
	}
}

func TestRule05OneFailingListenerDoesNotCancelTheOthers(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails rig.Func
		took  time.Duration
		calls int
	}{
		{"for good", rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), time.Minute, 1},
		{"after retries", rig.Always(conveyor.Done(), conveyor.RetryAfter(10*time.Minute, rig.ErrBoom)), 20 * time.Minute, 3},
		{"by a panic", func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("ouch") }, time.Minute, 3},
		{"by a goexit", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			runtime.Goexit()
			return conveyor.Done(), nil
		}, time.Minute, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				bad, good := rig.Recording(c.fails), rig.Recording(rig.Taking(time.Minute))
				e.Driver("bad", bad, conveyor.Listen("k"))
				e.Driver("good", good, conveyor.Listen("k"))
				e.Driver("zeal", good, conveyor.Listen("k"))
				began := time.Now()
				run := e.Finish(rig.Loose("k", "x", 1))
				require.Equal(t, c.took, time.Since(began))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Equal(t, []string{"failed", "succeeded", "succeeded"}, rig.StatesOf(run))
				require.Len(t, bad.All(), c.calls)
				require.Len(t, good.All(), 2)
				var step *conveyor.StepError
				require.ErrorAs(t, run.Err(), &step)
				require.Equal(t, "bad", step.Driver)
			})
		})
	}
}

func TestRule05NobodyListensSkipsTheRunWithAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder), conveyor.Listen("other"))
		o := rig.Loose("k", "x", 1)
		run := e.Finish(o)
		require.Equal(t, conveyor.StateSkipped, run.State)
		require.Equal(t, `no driver listens to resources of type "k", and the resource names no pipeline: its Meta.Pipeline is empty`, run.Reason)
		require.NoError(t, run.Err())
		require.Equal(t, run, e.MustGetRun(run.ID))
		require.Equal(t, []*conveyor.Run{run}, e.RunsOf(o))
		require.Equal(t, conveyor.Status{
			Phase: conveyor.StateSkipped, ObservedGeneration: 1, Run: run.ID, Message: run.Reason,
		}, e.MustGet(o).Status)
	})
}

func TestRule05ADriverRegisteredAfterwardsIsTold(t *testing.T) {
	for _, c := range []struct {
		name string
		when func(e *rig.Engine, register func(*rig.Engine)) *rig.Engine
	}{
		{"in the running engine", func(e *rig.Engine, register func(*rig.Engine)) *rig.Engine {
			register(e)
			return e
		}},
		{"before the next start", func(e *rig.Engine, register func(*rig.Engine)) *rig.Engine {
			e = e.Reborn(conveyor.Options{Workers: 2})
			register(e)
			return e.MustStart()
		}},
		{"after the next start", func(e *rig.Engine, register func(*rig.Engine)) *rig.Engine {
			e = e.Crashed(conveyor.Options{}).MustStart()
			synctest.Wait()
			register(e)
			return e
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				for i := range 300 {
					e.MustApply(rig.Loose("k", fmt.Sprint("n", i), 1))
				}
				e.MustApply(rig.Loose("k", "n0", 2))
				e.MustApply(rig.Loose("kk", "other", 1))
				synctest.Wait()
				time.Sleep(time.Hour)
				d := new(rig.Recorder)
				e = c.when(e, func(e *rig.Engine) { e.Driver("d", d, conveyor.Listen("k")) })
				time.Sleep(time.Second)
				synctest.Wait()
				require.Len(t, d.All(), 300)
				for i := range 300 {
					o := e.MustGet(rig.Loose("k", fmt.Sprint("n", i), nil))
					require.Equal(t, conveyor.StateSucceeded, o.Status.Phase)
					require.Equal(t, o.Generation, o.Status.ObservedGeneration)
				}
				require.Equal(t, conveyor.StateSkipped, e.MustGet(rig.Loose("kk", "other", nil)).Status.Phase)

				second := new(rig.Recorder)
				e.Driver("second", second, conveyor.Listen("k"))
				e = e.Reborn(conveyor.Options{})
				e.Driver("d", d, conveyor.Listen("k"))
				e.MustStart()
				time.Sleep(time.Second)
				require.Len(t, d.All(), 300, "they are told once")
				require.Empty(t, second.All())
			})
		})
	}
}

func TestRule05ADriverRegisteredWhileTheResourceIsAppliedIsTold(t *testing.T) {
	for _, c := range []struct {
		name string
		opts conveyor.Options
	}{
		{"started with the apply", conveyor.Options{}},
		{"started from the queue", conveyor.Options{Workers: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, c.opts).MustStart()
				e.Driver("busy", rig.DriverOf(rig.Taking(time.Second)), conveyor.Listen("other"))
				e.MustApply(rig.Loose("other", "x", 1))
				synctest.Wait()
				d := new(rig.Recorder)
				var registered atomic.Bool
				e.Store.Refusing(func(keys []string) error {
					if !registered.Load() && slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "unh/") }) {
						registered.Store(true)
						e.Driver("d", d, conveyor.Listen("k"))
						time.Sleep(time.Second) // it looks around, and finds nothing yet
					}
					return nil
				})
				o := rig.Loose("k", "x", 1)
				e.MustApply(o)
				time.Sleep(time.Minute)
				require.True(t, registered.Load())
				require.Len(t, d.All(), 1)
				require.Equal(t, conveyor.StateSucceeded, e.MustGet(o).Status.Phase)
			})
		})
	}
}

func TestRule05ADriverThatJoinsDuringARunIsPartOfTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		first, late := rig.Recording(rig.Taking(time.Minute)), new(rig.Recorder)
		e.Driver("first", first, conveyor.Listen("k"))
		run := e.MustApply(rig.Loose("k", "x", 1))
		synctest.Wait()
		e.Driver("late", late, conveyor.Listen("k"))
		queued := e.MustApply(rig.Loose("k", "x", 2))
		require.Len(t, e.Ended(run.ID).Steps, 1)
		require.Equal(t, []string{"succeeded", "succeeded"}, rig.StatesOf(e.Ended(queued.ID)))
		require.Len(t, late.All(), 1)
		require.Equal(t, "2", late.Last().Spec)
	})
}

func TestRule05AfterARestartOnlyTheListenersThatHadNotFinishedAreCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("quick", rig.DriverOf(rig.Taking(time.Second)), conveyor.Listen("k"))
		e.Driver("slow", rig.DriverOf(rig.Taking(time.Hour)), conveyor.Listen("k"))
		e.Driver("retry", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom))), conveyor.Listen("k"))
		run := e.MustApply(rig.Loose("k", "x", 1))
		time.Sleep(time.Minute)
		e = e.Crashed(conveyor.Options{})
		d := new(rig.Recorder)
		for _, name := range []string{"quick", "slow", "retry", "new"} {
			e.Driver(name, d, conveyor.Listen("k"))
		}
		e.MustStart()
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, []string{"slow+", "retry/2"}, d.Steps())
	})
}

func TestRule05ACancelEndsAllListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.Taking(time.Hour))
		for _, name := range []string{"a", "b", "c"} {
			e.Driver(name, d, conveyor.Listen("k"))
		}
		e.Driver("done", new(rig.Recorder), conveyor.Listen("k"))
		run := e.MustApply(rig.Loose("k", "x", 1))
		time.Sleep(time.Minute)
		require.NoError(t, e.Cancel(t.Context(), run.ID, "enough"))
		ended := e.Ended(run.ID)
		require.Equal(t, conveyor.StateCanceled, ended.State)
		require.Equal(t, []string{"canceled", "canceled", "canceled", "succeeded"}, rig.StatesOf(ended))
		for _, c := range d.All() {
			require.Equal(t, c.Began.Add(time.Minute), c.Ended)
		}
	})
}

// TestRegisterWhileAResourceIsPassedOver registers a driver when it is settled that nobody listens to a resource, and
// not on record yet.
func TestRegisterWhileAResourceIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		var late rig.Recorder
		var once sync.Once
		e.Store.Refusing(func(keys []string) error {
			if slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, "unh/") }) {
				once.Do(func() {
					e.Driver("late", &late, conveyor.Listen("loose"))
					time.Sleep(time.Second) // it has looked for what nobody listened to
				})
			}
			return nil
		})
		run := e.Finish(rig.Loose("loose", "x", 1))
		require.Equal(t, conveyor.StateSkipped, run.State)
		time.Sleep(time.Second)
		require.Equal(t, []string{"late"}, late.Steps())
		require.Equal(t, conveyor.StateSucceeded, e.MustGet(rig.Loose("loose", "x", nil)).Status.Phase)
	})
}
