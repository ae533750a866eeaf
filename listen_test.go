package conveyor_test

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
				e := newEngine(t, conveyor.Options{Workers: c.workers}).start()
				d := recording(taking(time.Minute))
				for _, name := range []string{"b", "c", "a"} {
					e.driver(name, d, conveyor.Listen("other", "k"))
				}
				e.driver("deaf", new(recorder), conveyor.Listen("other"))
				e.driver("mute", new(recorder))
				began := time.Now()
				o := loose("k", "x", 1)
				run := e.finish(o)
				require.NoError(t, run.Err())
				require.Equal(t, c.took, time.Since(began))
				steps := d.steps()
				slices.Sort(steps)
				require.Equal(t, []string{"a", "b", "c"}, steps)
				require.Equal(t, []string{"succeeded", "succeeded", "succeeded"}, statesOf(run))
				require.Equal(t, run.ID, e.apply(o).ID, "unchanged, so not again")
				require.Equal(t, conveyor.StateSucceeded, e.resource(o).Status.Phase)
			})
		})
	}
}

func TestRule05OneFailingListenerDoesNotCancelTheOthers(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails driverFunc
		took  time.Duration
		calls int
	}{
		{"for good", always(conveyor.Done(), conveyor.Permanent(errBoom)), time.Minute, 1},
		{"after retries", always(conveyor.Done(), conveyor.RetryAfter(10*time.Minute, errBoom)), 20 * time.Minute, 3},
		{"by a panic", func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("ouch") }, time.Minute, 3},
		{"by a goexit", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			runtime.Goexit()
			return conveyor.Done(), nil
		}, time.Minute, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				bad, good := recording(c.fails), recording(taking(time.Minute))
				e.driver("bad", bad, conveyor.Listen("k"))
				e.driver("good", good, conveyor.Listen("k"))
				e.driver("zeal", good, conveyor.Listen("k"))
				began := time.Now()
				run := e.finish(loose("k", "x", 1))
				require.Equal(t, c.took, time.Since(began))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Equal(t, []string{"failed", "succeeded", "succeeded"}, statesOf(run))
				require.Len(t, bad.all(), c.calls)
				require.Len(t, good.all(), 2)
				var step *conveyor.StepError
				require.ErrorAs(t, run.Err(), &step)
				require.Equal(t, "bad", step.Driver)
			})
		})
	}
}

func TestRule05NobodyListensSkipsTheRunWithAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", new(recorder), conveyor.Listen("other"))
		o := loose("k", "x", 1)
		run := e.finish(o)
		require.Equal(t, conveyor.StateSkipped, run.State)
		require.Equal(t, `no driver listens to resources of type "k"`, run.Reason)
		require.NoError(t, run.Err())
		require.Equal(t, run, e.run(run.ID))
		require.Equal(t, []*conveyor.Run{run}, e.runs(o))
		require.Equal(t, conveyor.Status{
			Phase: conveyor.StateSkipped, ObservedGeneration: 1, Run: run.ID, Message: run.Reason,
		}, e.resource(o).Status)
	})
}

func TestRule05ADriverRegisteredAfterwardsIsTold(t *testing.T) {
	for _, c := range []struct {
		name string
		when func(e *rig, register func(*rig)) *rig
	}{
		{"in the running engine", func(e *rig, register func(*rig)) *rig {
			register(e)
			return e
		}},
		{"before the next start", func(e *rig, register func(*rig)) *rig {
			e = e.reborn(conveyor.Options{Workers: 2})
			register(e)
			return e.start()
		}},
		{"after the next start", func(e *rig, register func(*rig)) *rig {
			e = e.crashed(conveyor.Options{}).start()
			synctest.Wait()
			register(e)
			return e
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				for i := range 300 {
					e.apply(loose("k", fmt.Sprint("n", i), 1))
				}
				e.apply(loose("k", "n0", 2))
				e.apply(loose("kk", "other", 1))
				synctest.Wait()
				time.Sleep(time.Hour)
				d := new(recorder)
				e = c.when(e, func(e *rig) { e.driver("d", d, conveyor.Listen("k")) })
				time.Sleep(time.Second)
				synctest.Wait()
				require.Len(t, d.all(), 300)
				for i := range 300 {
					o := e.resource(loose("k", fmt.Sprint("n", i), nil))
					require.Equal(t, conveyor.StateSucceeded, o.Status.Phase)
					require.Equal(t, o.Generation, o.Status.ObservedGeneration)
				}
				require.Equal(t, conveyor.StateSkipped, e.resource(loose("kk", "other", nil)).Status.Phase)

				second := new(recorder)
				e.driver("second", second, conveyor.Listen("k"))
				e = e.reborn(conveyor.Options{})
				e.driver("d", d, conveyor.Listen("k"))
				e.start()
				time.Sleep(time.Second)
				require.Len(t, d.all(), 300, "they are told once")
				require.Empty(t, second.all())
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
				e := newEngine(t, c.opts).start()
				e.driver("busy", driverOf(taking(time.Second)), conveyor.Listen("other"))
				e.apply(loose("other", "x", 1))
				synctest.Wait()
				d := new(recorder)
				var registered atomic.Bool
				e.store.refusing(func(keys []string) error {
					if !registered.Load() && slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "unh/") }) {
						registered.Store(true)
						e.driver("d", d, conveyor.Listen("k"))
						time.Sleep(time.Second) // it looks around, and finds nothing yet
					}
					return nil
				})
				o := loose("k", "x", 1)
				e.apply(o)
				time.Sleep(time.Minute)
				require.True(t, registered.Load())
				require.Len(t, d.all(), 1)
				require.Equal(t, conveyor.StateSucceeded, e.resource(o).Status.Phase)
			})
		})
	}
}

func TestRule05ADriverThatJoinsDuringARunIsPartOfTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		first, late := recording(taking(time.Minute)), new(recorder)
		e.driver("first", first, conveyor.Listen("k"))
		run := e.apply(loose("k", "x", 1))
		synctest.Wait()
		e.driver("late", late, conveyor.Listen("k"))
		queued := e.apply(loose("k", "x", 2))
		require.Len(t, e.ended(run.ID).Steps, 1)
		require.Equal(t, []string{"succeeded", "succeeded"}, statesOf(e.ended(queued.ID)))
		require.Len(t, late.all(), 1)
		require.Equal(t, "2", late.last().Spec)
	})
}

func TestRule05AfterARestartOnlyTheListenersThatHadNotFinishedAreCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("quick", driverOf(taking(time.Second)), conveyor.Listen("k"))
		e.driver("slow", driverOf(taking(time.Hour)), conveyor.Listen("k"))
		e.driver("retry", driverOf(always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom))), conveyor.Listen("k"))
		run := e.apply(loose("k", "x", 1))
		time.Sleep(time.Minute)
		e = e.crashed(conveyor.Options{})
		d := new(recorder)
		for _, name := range []string{"quick", "slow", "retry", "new"} {
			e.driver(name, d, conveyor.Listen("k"))
		}
		e.start()
		require.NoError(t, e.ended(run.ID).Err())
		require.Equal(t, []string{"slow+", "retry/2"}, d.steps())
	})
}

func TestRule05ACancelEndsAllListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		d := recording(taking(time.Hour))
		for _, name := range []string{"a", "b", "c"} {
			e.driver(name, d, conveyor.Listen("k"))
		}
		e.driver("done", new(recorder), conveyor.Listen("k"))
		run := e.apply(loose("k", "x", 1))
		time.Sleep(time.Minute)
		require.NoError(t, e.Cancel(t.Context(), run.ID, "enough"))
		ended := e.ended(run.ID)
		require.Equal(t, conveyor.StateCanceled, ended.State)
		require.Equal(t, []string{"canceled", "canceled", "canceled", "succeeded"}, statesOf(ended))
		for _, c := range d.all() {
			require.Equal(t, c.Began.Add(time.Minute), c.Ended)
		}
	})
}

// TestRegisterWhileAResourceIsPassedOver registers a driver when it is settled that nobody listens to a resource, and
// not on record yet.
func TestRegisterWhileAResourceIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		var late recorder
		var once sync.Once
		e.store.refusing(func(keys []string) error {
			if slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, "unh/") }) {
				once.Do(func() {
					e.driver("late", &late, conveyor.Listen("loose"))
					time.Sleep(time.Second) // it has looked for what nobody listened to
				})
			}
			return nil
		})
		run := e.finish(loose("loose", "x", 1))
		require.Equal(t, conveyor.StateSkipped, run.State)
		time.Sleep(time.Second)
		require.Equal(t, []string{"late"}, late.steps())
		require.Equal(t, conveyor.StateSucceeded, e.resource(loose("loose", "x", nil)).Status.Phase)
	})
}
