package features_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// TestWaitOfADriverThatCannotEndIsRefused has drivers wait for runs, each in another circle.
func TestWaitOfADriverThatCannotEndIsRefused(t *testing.T) {
	type world struct {
		*rig.Engine
		wait func(ctx context.Context, name string) error // applies a resource along "leaf" or what the name says, and waits for its run
	}
	const own, later = "it is the run of the call itself", "it is a later run of the same resource"
	for _, c := range []struct {
		name string
		opts conveyor.Options
		max  int // MaxRuns of pipeline "p"
		slot int // Concurrency of driver "d"
		call func(w world, ctx context.Context, req *conveyor.Request) error
		says string // empty if the wait ends
		at   time.Duration
	}{
		{"its own run", conveyor.Options{}, 0, 0, func(w world, ctx context.Context, req *conveyor.Request) error {
			_, err := w.Wait(ctx, req.Run)
			return err
		}, own, 0},
		{"its own run, with a limit", conveyor.Options{}, 0, 0, func(w world, ctx context.Context, req *conveyor.Request) error {
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			_, err := w.Wait(ctx, req.Run)
			return err
		}, own, 0},
		{"the log of its own run", conveyor.Options{}, 0, 0, func(w world, ctx context.Context, req *conveyor.Request) error {
			for _, err := range w.Logs(ctx, req.Run, conveyor.LogOptions{Follow: true}) {
				if err != nil {
					return err
				}
			}
			return nil
		}, own, 0},
		{"a later run of its resource", conveyor.Options{}, 0, 0, func(w world, ctx context.Context, req *conveyor.Request) error {
			run, err := w.Trigger(ctx, req.Resource.Key())
			require.NoError(w.T, err)
			_, err = w.Wait(ctx, run.ID)
			return err
		}, later, 0},
		{"the run of another resource", conveyor.Options{}, 0, 0, func(w world, ctx context.Context, _ *conveyor.Request) error {
			return w.wait(ctx, "leaf")
		}, "", time.Minute},
		{"a run that needs its worker", conveyor.Options{Workers: 1}, 0, 0, func(w world, ctx context.Context, _ *conveyor.Request) error {
			return w.wait(ctx, "leaf")
		}, "all 1 workers are taken by calls that wait for runs", 0},
		{"a run that needs its slot", conveyor.Options{}, 0, 1, func(w world, ctx context.Context, req *conveyor.Request) error {
			return w.wait(ctx, "p")
		}, `the slots of driver "d" are taken by calls that wait for runs`, 0},
		{"a run that needs its place in the pipeline", conveyor.Options{}, 1, 0, func(w world, ctx context.Context, req *conveyor.Request) error {
			return w.wait(ctx, "p")
		}, `the places of pipeline "p" are taken by runs that wait for runs`, 0},
		{"a run that needs its slot at a later step", conveyor.Options{}, 0, 1, func(w world, ctx context.Context, req *conveyor.Request) error {
			return w.wait(ctx, "late")
		}, `the slots of driver "d" are taken by calls that wait for runs`, time.Minute + 30*time.Second},
		{"a run that waits for its own", conveyor.Options{}, 0, 0, func(w world, ctx context.Context, req *conveyor.Request) error {
			return w.wait(ctx, "back")
		}, `its driver "d" waits for a run that waits for this call`, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, c.opts).MustStart()
				w := world{Engine: e}
				n := 0
				w.wait = func(ctx context.Context, pipeline string) error {
					n++
					run, err := e.Apply(ctx, &conveyor.Object{Meta: conveyor.Meta{Type: "r", Name: fmt.Sprint("other", n), Pipeline: pipeline}})
					require.NoError(t, err)
					ended, err := e.Wait(ctx, run.ID)
					if err != nil {
						return err
					}
					return ended.Err()
				}
				var err error
				var took time.Duration
				first := true
				var origin string // the run of the first call
				e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if !first {
						return conveyor.Done(), nil
					}
					first, origin = false, req.Run
					began := time.Now()
					err = c.call(w, ctx, req)
					took = time.Since(began)
					return conveyor.Done(), nil
				}), conveyor.Concurrency(c.slot))
				e.Driver("back", rig.DriverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
					time.Sleep(time.Second) // until the first call waits, so that it is this call that closes the circle
					_, err := e.Wait(ctx, origin)
					return conveyor.Done(), conveyor.Permanent(err)
				}))
				e.Driver("leaf", rig.DriverOf(rig.Taking(time.Minute)))
				e.PipelineNamed("leaf", "leaf")
				e.PipelineNamed("late", "leaf", "d")
				e.PipelineNamed("back", "back")
				e.Save(rig.AtMost(rig.PipelineOf("d"), c.max))
				o := rig.Object("a", nil)
				synctest.Wait()
				run := e.MustApply(o)
				require.NoError(t, e.Ended(run.ID).Err())
				if c.says == "" {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, conveyor.ErrConflict)
					require.ErrorContains(t, err, c.says)
				}
				require.LessOrEqual(t, took, c.at)
				time.Sleep(time.Hour)
			})
		})
	}
}

// TestWaitsOfManyDriversEndOrAreRefused has drivers take all workers, and then wait for runs that need one.
func TestWaitsOfManyDriversEndOrAreRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		working int // drivers that do something else for a minute
		refused bool
	}{{"all of them wait", 0, true}, {"one of them works", 1, false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 40
				e := rig.New(t, conveyor.Options{Workers: n}).MustStart()
				e.Driver("leaf", new(rig.Recorder))
				e.PipelineNamed("leaf", "leaf")
				var taken sync.WaitGroup
				taken.Add(n)
				var refused, ended, number atomic.Int64
				e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					taken.Done()
					taken.Wait() // all workers are taken now
					if int(number.Add(1)) <= c.working {
						return rig.Taking(time.Minute)(ctx, req)
					}
					run, err := e.Apply(ctx, rig.Along("leaf", "of-"+req.Resource.Name))
					require.NoError(t, err)
					if _, err = e.Wait(ctx, run.ID); errors.Is(err, conveyor.ErrConflict) {
						refused.Add(1)
					} else {
						require.NoError(t, err)
						ended.Add(1)
					}
					return conveyor.Done(), nil
				}))
				e.Pipeline("d")
				for i := range n {
					e.MustApply(rig.Object(fmt.Sprint("o", i), nil))
				}
				time.Sleep(time.Hour)
				require.EqualValues(t, n-c.working, refused.Load()+ended.Load(), "no wait hangs")
				require.Equal(t, c.refused, refused.Load() > 0)
				require.Positive(t, ended.Load(), "as soon as one worker is free, the others end")
			})
		})
	}
}

// TestWaitsOfDriversBehindOthers has drivers wait for runs that wait for others, which wait in turn.
func TestWaitsOfDriversBehindOthers(t *testing.T) {
	for _, c := range []struct {
		name    string
		opts    conveyor.Options
		set     func(w *waits)
		refused int      // waits of drivers
		says    string   // why they are refused
		ended   []string // the resources whose waits end
		took    time.Duration
	}{
		{"for the second run of a resource, and the first needs the worker", conveyor.Options{Workers: 1}, func(w *waits) {
			w.Save(rig.Named("other", rig.Queueing(rig.PipelineOf("quick"))))
			w.pipeline("p", 0, 0, func(ctx context.Context) error {
				w.apply(ctx, "other", "b", 1)
				return w.wait(ctx, w.apply(ctx, "other", "b", 2))
			})
			w.start("p", "a")
		}, 1, "all 1 workers are taken by calls that wait for runs", nil, 0},
		{"for a place that a run has while it waits for the slot", conveyor.Options{}, func(w *waits) {
			w.pipeline("p", 1, 1, nil)
			w.PipelineNamed("q", "p")
			w.driver["p"] = func(ctx context.Context) error {
				w.apply(ctx, "p", "b", 1)
				time.Sleep(time.Second)
				return w.wait(ctx, w.apply(ctx, "p", "c", 1))
			}
			w.start("q", "a")
		}, 1, `the places of pipeline "p" are taken by runs that wait for runs`, nil, 0},
		{"for a place that becomes free when another call returns", conveyor.Options{}, func(w *waits) {
			w.pipeline("p", 2, 2, nil)
			w.PipelineNamed("q", "p")
			w.driver["p"] = func(ctx context.Context) error { // is called for other, then for a
				if w.calls.Load() == 1 {
					return taking(ctx, time.Minute)
				}
				w.apply(ctx, "p", "b", 1) // takes the second place, and waits for the slot of other
				time.Sleep(time.Second)
				return w.wait(ctx, w.apply(ctx, "p", "c", 1))
			}
			w.start("q", "other")
			w.start("p", "a")
		}, 0, "", []string{"a"}, 59 * time.Second},
		{"for a slot that is kept for a run that needs a worker", conveyor.Options{Workers: 2}, func(w *waits) {
			w.pipeline("slow", 0, 1, func(ctx context.Context) error { return taking(ctx, time.Minute) })
			var c atomic.Pointer[conveyor.Run]
			w.pipeline("z", 0, 0, func(ctx context.Context) error { return w.wait(ctx, c.Load()) })
			w.Driver("later", rig.DriverOf(rig.InTurn(rig.Always(conveyor.RequeueAfter(30*time.Second), nil), rig.Always(conveyor.Done(), nil))))
			w.PipelineNamed("z", "later", "z")
			w.pipeline("p", 0, 0, func(ctx context.Context) error {
				w.apply(ctx, "slow", "b", 1)
				c.Store(w.apply(ctx, "slow", "c", 1))
				return w.wait(ctx, c.Load())
			})
			w.start("z", "z")
			w.start("slow", "x")
			w.start("p", "a")
		}, 1, "are taken by calls that wait for runs", nil, time.Hour},
		{"for a worker, and one that waits was abandoned", conveyor.Options{Workers: 2, Retry: conveyor.RetryPolicy{MaxAttempts: 1}}, func(w *waits) {
			var e atomic.Pointer[conveyor.Run]
			w.pipeline("leaf", 0, 0, func(ctx context.Context) error { return taking(ctx, time.Minute) })
			w.pipeline("abandoned", 0, 0, func(ctx context.Context) error { return w.wait(context.WithoutCancel(ctx), e.Load()) })
			p := rig.PipelineOf("abandoned")
			p.Steps[0].Timeout = conveyor.Duration(time.Second)
			w.Save(rig.Named("abandoned", p))
			w.pipeline("p", 0, 0, func(ctx context.Context) error {
				time.Sleep(20 * time.Second)
				return w.wait(ctx, w.apply(ctx, "leaf", "f", 1))
			})
			e.Store(w.start("p", "e"))
			w.start("abandoned", "a")
			time.Sleep(10 * time.Second)
			w.start("leaf", "busy")
		}, 0, "", []string{"a", "e"}, 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &waits{Engine: rig.New(t, c.opts).MustStart(), driver: map[string]func(context.Context) error{}}
				w.Driver("quick", rig.DriverOf(rig.Always(conveyor.Done(), nil)))
				c.set(w)
				time.Sleep(24 * time.Hour)
				w.mu.Lock()
				defer w.mu.Unlock()
				require.Len(t, w.refused, c.refused)
				for _, err := range w.refused {
					require.ErrorIs(t, err, conveyor.ErrConflict)
					require.ErrorContains(t, err, c.says)
				}
				if c.refused == 0 {
					require.ElementsMatch(t, c.ended, w.ended)
				}
				require.LessOrEqual(t, w.longest, c.took)
				require.Zero(t, w.MustStats().Runs[conveyor.StateRunning], "nothing hangs")
				require.Zero(t, w.MustStats().Runs[conveyor.StateQueued], "nothing hangs")
			})
		})
	}
}

// waits is an engine whose drivers wait for runs.
type waits struct {
	*rig.Engine
	driver map[string]func(ctx context.Context) error // what a driver does, by its name; nil for a driver that does nothing
	calls  atomic.Int64

	mu      sync.Mutex // guards what follows
	ended   []string   // the resources whose call has waited to the end
	refused []error
	longest time.Duration
}

// pipeline makes a driver, and a pipeline of the same name that consists of it.
func (w *waits) pipeline(name string, runs, slots int, does func(ctx context.Context) error) {
	w.driver[name] = does
	w.Driver(name, rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		w.calls.Add(1)
		if does := w.driver[name]; does != nil && req.Resource.Spec == nil {
			return conveyor.Done(), does(context.WithValue(ctx, waiterKey{}, req.Resource.Name))
		}
		return conveyor.Done(), nil
	}), conveyor.Concurrency(slots))
	w.Save(rig.AtMost(rig.Named(name, rig.PipelineOf(name)), runs))
}

// waiterKey is for the name of the resource in the context of a call.
type waiterKey struct{}

// start applies a resource whose driver does what it is there for.
func (w *waits) start(pipeline, name string) *conveyor.Run {
	run := w.MustApply(rig.Along(pipeline, name))
	time.Sleep(time.Millisecond)
	return run
}

// apply applies a resource whose driver does nothing.
func (w *waits) apply(ctx context.Context, pipeline, name string, spec int) *conveyor.Run {
	o := rig.Along(pipeline, name)
	o.Spec = rig.JSON(spec)
	run, err := w.Apply(ctx, o)
	require.NoError(w.T, err)
	return run
}

// wait waits for a run, and notes what came of it.
func (w *waits) wait(ctx context.Context, run *conveyor.Run) error {
	began := time.Now()
	_, err := w.Wait(ctx, run.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = max(w.longest, time.Since(began))
	if err != nil {
		w.refused = append(w.refused, err)
	} else {
		w.ended = append(w.ended, ctx.Value(waiterKey{}).(string))
	}
	return nil
}

func taking(ctx context.Context, d time.Duration) error {
	_, err := rig.Taking(d)(ctx, nil)
	return err
}
