// Package conveyortest helps with the unit tests of programs that use Conveyor. It provides an engine in one call, a
// record of the calls of its drivers, assertions about runs and calls, and crashes on demand.
//
// [New] returns a started engine on the memory store. The engine is shut down when the test ends. Inside a bubble of
// testing/synctest an hour between two attempts takes no time:
//
//	synctest.Test(t, func(t *testing.T) {
//		e := conveyortest.New(t, conveyor.Options{}, conveyortest.Drivers{"cloner": Cloner{}, "tester": nil})
//		err := e.SavePipeline(t.Context(), ci) // steps "1" by cloner, "2" by tester
//		run := e.Finish(build)
//		conveyortest.AssertRun(t, run, conveyor.StateSucceeded)
//		conveyortest.AssertCalls(t, e.Calls(), "cloner", "tester")
//	})
//
// [Attempt] calls one driver once and needs no pipeline of your own. It gives the driver all that a run can give: outputs,
// a signal, a checkpoint, an interruption, the outcome of the steps before a cleanup. [Engine.CrashAt] and
// [Engine.Reopen] show what becomes of a run when the process dies.
package conveyortest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Engine is a started [conveyor.Engine] that records the calls of its drivers and can crash. Make one with [New]. Start
// it again after a crash with [Engine.Reopen].
type Engine struct {
	*conveyor.Engine
	t         testing.TB
	opts      conveyor.Options
	records   *memory.Store
	store     *crashStore
	calls     Recorder
	began     time.Time      // by the clock of the bubble in which the engine was made, if there is one
	shutdowns sync.WaitGroup // the goroutine that shuts the engine down after a crash
}

// Drivers are the drivers of an engine by the names that steps use. A nil driver is replaced by one that always returns
// [conveyor.Done] at once.
type Drivers map[string]conveyor.Driver

// New starts an engine on a new memory store. When the test ends, the engine is shut down. The test fails if a driver
// does not return within opts.ShutdownGrace after that; 0 means 2s here. If the test uses a bubble of testing/synctest,
// New must be called inside the bubble, and t must be that of the bubble.
func New(t testing.TB, opts conveyor.Options, drivers Drivers) *Engine {
	t.Helper()
	records := memory.New()
	t.Cleanup(func() { _ = records.Close() }) // it returns nil
	return open(t, records, opts, drivers)
}

func open(t testing.TB, records *memory.Store, opts conveyor.Options, drivers Drivers) *Engine {
	t.Helper()
	e := &Engine{t: t, opts: opts, records: records, began: time.Now()}
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

// Register calls [conveyor.Engine.Register], for a driver with options or for a driver that is registered after the
// start. The calls of the driver are recorded too.
func (e *Engine) Register(name string, d conveyor.Driver, opts ...conveyor.DriverOption) error {
	return e.Engine.Register(name, e.calls.Record(d), opts...)
}

// Calls returns the calls of the drivers of this engine so far, in the order in which the calls began.
func (e *Engine) Calls() []Call { return e.calls.Calls() }

// CrashAt makes the engine crash at its nth commit from now, counted from 1. This commit and all later ones do not
// happen. If the commit was to record what a driver has returned, the driver is called again after [Engine.Reopen]. A
// run of N steps that all succeed at once makes N+1 commits.
//
// Calls of drivers that are under way at the crash go on until they return. Their contexts end with
// [conveyor.ErrShutdown], and what they return is lost. After the crash, every method of the engine that needs the
// store returns an error.
func (e *Engine) CrashAt(n int) { e.store.crashAt(n) }

// Crash makes the engine crash now, in the same way as [Engine.CrashAt]. A driver can call Crash.
func (e *Engine) Crash() { e.store.crash() }

// Crashed reports whether the engine has crashed.
func (e *Engine) Crashed() bool { return e.store.isCrashed() }

// Reopen starts a new engine on the same records, as the next start of a program does. The new engine has the same
// options, the given drivers, and no recorded calls yet. A pipeline that is a [conveyor.Planner] must be saved anew, as
// in every start of a program.
//
// The old engine crashes first, unless it has crashed or was shut down already. Afterwards only its Calls are of use.
// Calls of drivers that are under way have a moment to return, so that they do not overlap with the calls of the new
// engine. Reopen does not wait longer for a driver that ignores its context.
func (e *Engine) Reopen(drivers Drivers) *Engine {
	e.t.Helper()
	e.checkBubble()
	e.Crash()
	e.shutdowns.Wait()
	return open(e.t, e.records, e.opts, drivers)
}

// checkBubble fails the test if the caller is in a bubble of testing/synctest and the engine was made outside of it. The
// first goroutine that the engine then started from inside would end the process with an error of the runtime. A bubble
// has a clock of its own, which begins in the year 2000.
func (e *Engine) checkBubble() {
	e.t.Helper()
	const set = 24 * time.Hour // more than somebody may have set the clock of the machine back during a test
	if time.Now().Round(0).Before(e.began.Round(0).Add(-set)) {
		e.t.Fatalf("conveyortest: the engine was made outside of the bubble of testing/synctest; call New inside it")
	}
}

// abandon ends the goroutines of an engine that has crashed. Nothing that they still do reaches the store. abandon does
// not wait for them, because a driver or a commit of the same engine can be its caller.
func (e *Engine) abandon() {
	e.shutdowns.Go(func() { abandon(e.Engine) })
}

// abandon ends the goroutines of an engine whose store has crashed.
func abandon(e *conveyor.Engine) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	cancel()            // ends the contexts of attempts at once; drivers have the rest of the time to return
	_ = e.Shutdown(ctx) // the error names drivers that have not returned; a process that died does not wait for them
}

// stop shuts the engine down at the end of the test.
func (e *Engine) stop() {
	defer e.shutdowns.Wait() // last, because a shutdown makes commits, and one of them can be the one of a crash
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
