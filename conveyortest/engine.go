// Package conveyortest is for the unit tests of programs that use Conveyor: an engine in one call, a record of what its
// drivers were asked, assertions about it, and crashes on demand.
//
// [New] returns an engine on the memory store, started, and shut down with the test. Inside a bubble of testing/synctest
// an hour between two attempts takes no time:
//
//	synctest.Test(t, func(t *testing.T) {
//		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"cloner": Cloner{}, "tester": nil})
//		err := e.SavePipeline(t.Context(), ci) // steps "1" by cloner, "2" by tester
//		run := e.Finish(build)
//		conveyortest.AssertRun(t, run, conveyor.StateSucceeded)
//		conveyortest.AssertCalls(t, e.Calls(), "cloner", "tester")
//	})
//
// [Attempt] calls one driver once, without a pipeline of your own. [Engine.CrashAt] and [Engine.Reopen] show what
// becomes of a run when the process dies.
package conveyortest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Engine is a started [conveyor.Engine] that records the calls of its drivers and can crash. Make one with [New], and
// the next life of it with [Engine.Reopen].
type Engine struct {
	*conveyor.Engine
	t         testing.TB
	opts      conveyor.Options
	records   *memory.Store
	store     *crashStore
	calls     Recorder
	shutdowns sync.WaitGroup // the shutdown that follows a crash
}

// Drivers are the drivers of an engine by the names that steps use. One that is nil is done at once, always.
type Drivers map[string]conveyor.Driver

// New starts an engine on a new memory store. When the test ends, it is shut down, which fails the test if a driver does
// not return within opts.ShutdownGrace after that; 0 means 2s here. Inside a bubble of testing/synctest, call it there.
func New(t testing.TB, opts conveyor.Options, drivers Drivers) *Engine {
	t.Helper()
	records := memory.New()
	t.Cleanup(func() { _ = records.Close() }) // it returns nil
	return open(t, records, opts, drivers)
}

func open(t testing.TB, records *memory.Store, opts conveyor.Options, drivers Drivers) *Engine {
	t.Helper()
	e := &Engine{t: t, opts: opts, records: records}
	e.store = &crashStore{Store: records, onCrash: e.abandon}
	var err error
	if e.Engine, err = conveyor.New(e.store, opts); err != nil {
		t.Fatalf("conveyortest: %v", err)
	}
	t.Cleanup(e.stop)
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		d := drivers[name]
		if d == nil {
			d = InTurn()
		}
		if err := e.Register(name, d); err != nil {
			t.Fatalf("conveyortest: register %s: %v", name, err)
		}
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatalf("conveyortest: %v", err)
	}
	return e
}

// Register is [conveyor.Engine.Register], for a driver with options or one that comes late. Its calls are recorded too.
func (e *Engine) Register(name string, d conveyor.Driver, opts ...conveyor.DriverOption) error {
	return e.Engine.Register(name, e.calls.Record(d), opts...)
}

// Calls returns what the drivers of this engine were called with so far, in the order in which the calls began.
func (e *Engine) Calls() []Call { return e.calls.Calls() }

// Finish applies a resource and returns its run when that has ended, however it ended. It fails the test if that cannot
// be done, and when the run becomes blocked, on a driver with a misspelt name, say. But when the engine crashes first,
// it returns nil, and the resource may be on record or not. For a run that needs something from the test meanwhile, such
// as a signal, call Apply and Wait instead.
func (e *Engine) Finish(r conveyor.Resource) *conveyor.Run {
	e.t.Helper()
	run, err := e.finish(r)
	if err != nil && !e.Crashed() {
		e.t.Fatalf("conveyortest: finish: %v", err)
	}
	return run
}

func (e *Engine) finish(r conveyor.Resource) (*conveyor.Run, error) {
	ctx, cancel := context.WithCancelCause(e.t.Context())
	events := e.Watch(ctx, conveyor.WatchOptions{})
	run, err := e.Apply(ctx, r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	id := run.ID
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		for event, err := range events {
			if err == nil && event.Run == id && event.State == conveyor.StateBlocked {
				cancel(fmt.Errorf("run %s of %s is blocked: %s", id, event.Resource, event.Reason))
				return
			}
		}
	})
	return e.Wait(ctx, id)
}

// CrashAt has the engine crash at its nth commit from now, counted from 1: that commit and all later ones do not happen.
// So a driver whose outcome was to be committed has been called in vain, and is called again after [Engine.Reopen]. A
// run of N steps that all succeed at once is N+1 commits.
//
// Calls that are under way at the crash go on until they return; their contexts end with [conveyor.ErrShutdown], and
// what they return is lost. What needs the store of a crashed engine answers with an error.
func (e *Engine) CrashAt(n int) { e.store.crashAt(n) }

// Crash has the engine crash now, as [Engine.CrashAt] says. A driver may call it.
func (e *Engine) Crash() { e.store.crash() }

// Crashed reports whether the engine has crashed.
func (e *Engine) Crashed() bool { return e.store.isCrashed() }

// Reopen starts an engine on the same records with other drivers, as the next start of a program does: with the same
// options, and no call recorded yet. The old engine crashes first, unless it has crashed or was shut down; it is of no
// use afterwards, but for its calls. Those under way have a moment to return in, so that they do not go on beside the
// new ones; a driver that ignores its context is left behind. A pipeline that is a [conveyor.Planner] must be saved anew,
// as in every start of a program.
func (e *Engine) Reopen(drivers Drivers) *Engine {
	e.t.Helper()
	e.Crash()
	e.shutdowns.Wait()
	return open(e.t, e.records, e.opts, drivers)
}

// abandon ends the goroutines of an engine that has crashed: nothing of what they still do reaches the store. It does
// not wait, because a driver or a commit of that very engine may call it.
func (e *Engine) abandon() {
	e.shutdowns.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		cancel()            // ends the contexts of attempts at once, and leaves drivers the rest of the time to return in
		_ = e.Shutdown(ctx) // names drivers that have not returned; a process that died does not wait for them
	})
}

// stop is the end of the test.
func (e *Engine) stop() {
	defer e.shutdowns.Wait() // last, because a shutdown commits and may so reach a crash
	if e.Crashed() {
		return
	}
	grace := e.opts.ShutdownGrace
	if grace == 0 {
		grace = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := e.Shutdown(ctx); err != nil && !e.Crashed() {
		e.t.Errorf("conveyortest: %v", err)
	}
}
