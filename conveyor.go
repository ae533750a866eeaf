// Package conveyor moves resources along ordered pipelines of drivers, durably, inside your own program.
//
// A resource is desired state: a type, a name and a spec. A driver is Go code with a Reconcile method. A pipeline
// names, for one type of resource, the drivers that reconcile it, step by step. When a resource is applied, its
// drivers are called in step order, each only after the one before it succeeded; a resource that names no pipeline
// is reconciled by every driver that listens to its type, all at once. There is no server: an [Engine] does the work
// in your process, and keeps every step of it in a store of your choice.
//
//	st, err := file.Open(ctx, "conveyor.db", file.Options{})    // or memory.New(), for tests
//	engine, err := conveyor.New(st, conveyor.Options{})
//	err = engine.Register("git-cloner", Cloner{})
//	err = engine.Register("test-runner", Tester{})
//	err = engine.SavePipeline(ctx, conveyor.PipelineSpec{
//		Name: "ci", Resource: "build",
//		Steps: []conveyor.Step{{Driver: "git-cloner"}, {Driver: "test-runner"}},
//	})
//	err = engine.Start(ctx)
//	run, err := engine.Apply(ctx, &Build{Meta: conveyor.Meta{Name: "app", Type: "build", Pipeline: "ci"}})
//	run, err = engine.Wait(ctx, run.ID)
//	err = engine.Shutdown(ctx)
//
// # The path of a resource
//
// [Engine.Apply] checks it (document.go, resource.go) and commits it together with a run and, if a worker is free,
// with the start of the first step (apply.go). The worker calls the driver (attempt.go). What the driver answers goes
// to the run's journey (journey.go), where the pure rules (pipeline.go, retry.go) say what comes next; the outcome of
// a step and the start of the one after it are one commit. A run that has to wait leaves memory but for its place in
// the scheduler's heap of due times (scheduler.go) and is read again when it goes on (ledger.go, records.go).
//
// # What is guaranteed
//
// A step starts only after those before it have a recorded success or skip, or a failure that is tolerated (see
// [Step].ContinueOnError). The start of an attempt is on record before its driver is called, and its outcome before
// anything else happens to the run. A resource never has two attempts at once, outside parallel steps and the drivers
// that listen to it together. A finished step is never called again. A step that was under way when the process died
// is called again, with the same [Request.IdempotencyKey]: at least once per step, exactly one recorded outcome. What
// Apply has acknowledged is reconciled, at last in its newest generation.
//
// # What is not
//
// A driver is not called exactly once: nothing outside a database can promise that. One engine uses a store at a
// time. Go code that ignores its context cannot be stopped; it can only be kept from doing harm.
//
// # Crash and shutdown
//
// After a crash, [Engine.Start] takes up every unfinished run where the record stands, whatever program wrote it; a
// step whose driver is not registered leaves its run blocked until it is. [Engine.Shutdown] lets attempts finish,
// then ends their contexts, and returns by its deadline; an attempt cut short so counts for nothing, and comes again.
package conveyor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ids"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Engine moves resources along pipelines. Make one with [New], give it drivers and pipelines, [Engine.Start] it, and
// apply resources. All its methods may be called concurrently, by drivers too, and before Start unless they say
// otherwise: what is applied before Start is on record and begins with it.
type Engine struct {
	opts   Options
	ledger *ledger
	sched  *scheduler
	events *feed
	ids    ids.IDs
	clock  ids.Clock
}

// Options change how an engine works. The zero value works.
type Options struct {
	// Workers is how many drivers may be called at once, without the calls that were given up (see [Driver]). 0 means 32.
	Workers int
	// Retry is the policy of steps, field by field, where step, pipeline and driver do not say otherwise.
	Retry RetryPolicy
	// StepTimeout limits an attempt where neither step nor driver has a timeout. 0 means no limit.
	StepTimeout time.Duration
	// ShutdownGrace is how long [Engine.Run] takes to shut down after its context has ended, and how long a
	// [Engine.Shutdown] without a deadline waits for a store. 0 means 10s.
	ShutdownGrace time.Duration
	// Limits bound what is accepted and kept.
	Limits Limits
	// Retention bounds what is kept of ended runs and earlier generations. The zero value keeps everything.
	Retention Retention
	// Logger gets what the engine has to say, and the lines that drivers log. nil means silence. The engine's own lines
	// name resources, runs, steps, drivers, keys of records and errors of the store. What is in a spec, metadata, settings,
	// an output, a signal or a checkpoint is never logged, nor is what a driver, a [Planner], Admission or Validate
	// returned as an error or panicked with: that is on record with the run, or was returned. Only of a panic that nobody
	// else would learn of, of an Observer or of a release, the type is logged.
	// A handler that is slow, blocks or panics holds up nothing of the engine, which leaves lines out then, and counts
	// them; the line of a driver is handled while that waits, as part of the call.
	Logger *slog.Logger
	// Observer, if set, is told of every event.
	Observer Observer
	// Admission, if set, is asked for room on the host before each call of a driver.
	Admission Admission
	// Validate, if set, may refuse a resource before anything is stored; the call that applied it returns the error.
	// It gets a copy, and may be called concurrently.
	Validate func(ctx context.Context, o *Object) error
}

const (
	defaultWorkers       = 32
	maxWorkers           = 1 << 20
	defaultShutdownGrace = 10 * time.Second
)

func (o Options) validate(f *fault.Fields) {
	if o.Workers < 0 || o.Workers > maxWorkers {
		f.Add(fault.Invalidf("Workers", "%d is not between 0 and %d", o.Workers, maxWorkers))
	}
	if o.StepTimeout < 0 {
		f.Add(fault.Invalidf("StepTimeout", "%s is negative", o.StepTimeout))
	}
	if o.ShutdownGrace < 0 {
		f.Add(fault.Invalidf("ShutdownGrace", "%s is negative", o.ShutdownGrace))
	}
	o.Retry.validate("Retry", f)
	o.Limits.validate(f)
	o.Retention.validate(f)
}

func (o Options) withDefaults() Options {
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	if o.ShutdownGrace == 0 {
		o.ShutdownGrace = defaultShutdownGrace
	}
	o.Limits = o.Limits.withDefaults()
	return o
}

// New returns an engine on a store. It starts nothing and reads nothing; it returns an [ErrInvalid] that names every
// bad option. The store stays the caller's, to be closed after [Engine.Shutdown].
//
// One engine uses a store at a time: two on one store do not know of each other's runs.
func New(st store.Store, opts Options) (*Engine, error) {
	var f fault.Fields
	if isNilPointer(st) {
		f.Add(fault.Invalidf("store", "is nil"))
	}
	opts.validate(&f)
	if err := fieldErrors(f.List()); err != nil {
		return nil, err
	}
	e := &Engine{opts: opts.withDefaults(), ledger: newLedger(st)}
	e.events = newFeed(e.opts.Limits.WatchBuffer, e.ids.Next(time.Now()))
	e.sched = newScheduler(e.opts, e.ledger, e.events)
	e.sched.heard = func(kind string) { e.hearOut([]string{kind}) }
	e.sched.resync = e.resyncDue
	return e, nil
}

// Register makes a driver known under a name, at any time before Shutdown. Steps that name it and are blocked because
// it was not there go on; resources of the types it listens to that no driver had listened to are reconciled.
//
// It returns [ErrExists] if the name is taken, an [ErrInvalid] for a bad name, a nil driver or a bad option, and
// [ErrClosed] after Shutdown.
func (e *Engine) Register(name string, d Driver, opts ...DriverOption) error {
	var f fault.Fields
	f.Name("driver", name)
	if isNilPointer(d) {
		f.Add(fault.Invalidf("driver", "%q is nil", text.Truncate(name, text.MaxName)))
	}
	var o driverOptions
	for _, option := range opts {
		if option == nil {
			f.Add(fault.Invalidf("option", "is nil"))
			continue
		}
		option(&o)
	}
	f.Add(o.validate()...)
	if err := fieldErrors(f.List()); err != nil {
		return err
	}
	if err := e.sched.register(&driver{name: name, impl: d, opts: o, slots: slots{limit: o.concurrency}}); err != nil {
		return err
	}
	e.hearOut(o.listen)
	return nil
}

// Start takes up every unfinished run in the store and begins to work; it returns when that is done, and ctx has no
// meaning after that. A run whose due time passed meanwhile goes on at once, and a step that was under way when the
// former process ended is called again.
//
// It returns [ErrClosed] after Shutdown, [ErrConflict] when called twice, and an error of the store; after that last
// one it may be called again. The records of a newer format are a [store.ErrCorrupt].
func (e *Engine) Start(ctx context.Context) error {
	if err := e.checkFormat(ctx); err != nil {
		return fmt.Errorf("conveyor: start: %w", err)
	}
	if err := e.sched.start(ctx); err != nil {
		return fmt.Errorf("conveyor: start: %w", err)
	}
	e.hearOut(e.sched.listened())
	return nil
}

// checkFormat makes sure that the records are of a format that this program understands.
func (e *Engine) checkFormat(ctx context.Context) error {
	format, _, err := load[formatRecord](ctx, e.ledger, formatKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, err = e.ledger.commit(ctx, []store.Op{store.Put(formatKey, encode(formatRecord{Format: recordFormat})).IfAbsent()})
		if errors.Is(err, store.ErrConflict) {
			return e.checkFormat(ctx)
		}
		return err
	case err != nil:
		return err
	case format.Format > recordFormat:
		return fmt.Errorf("%w: records have format %d, and this program knows %d", store.ErrCorrupt, format.Format, recordFormat)
	}
	return nil
}

// Shutdown stops the engine. Nothing new starts; attempts under way may finish until shortly before the deadline of
// ctx (the last quarter of the time, at most one second), or until ctx ends if it has none. Then their contexts end
// with [ErrShutdown], and those that answer with an error, or not at all, are recorded as interrupted and called
// again after the next start. It returns when everything it started has stopped, by the deadline in any case, and
// then with an error that names the steps whose drivers have not returned. Their late results are discarded.
//
// A store that fails, or does not answer, does not hold it up either: it returns by the deadline, or a quarter of a second
// after one that had passed before; without a deadline, two seconds after ctx ended, or when twice [Options].ShutdownGrace
// and a second have passed since the last driver returned. The error then names the runs of which something is not on
// record; a step whose outcome is missing is called again after the next start.
//
// What is on record stays so, and is taken up by the next Start on the store. Calling it twice, or before Start, is
// fine. A driver may call it with its own context, and is not waited for. Afterwards calls that read work on as long
// as the store is open; others return [ErrClosed].
func (e *Engine) Shutdown(ctx context.Context) error { return e.sched.shutdown(ctx) }

// Run starts the engine, waits until ctx ends, and shuts down within [Options].ShutdownGrace. It returns an error of
// Start or of Shutdown, and nil when all went well.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-e.sched.done:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.opts.ShutdownGrace)
	defer cancel()
	return e.Shutdown(end)
}

// Wait returns the run when it has ended, however it ended; [Run.Err] tells. It returns [ErrNotFound] if there is no
// such run, the cause of ctx if that ends first, [ErrClosed] if the engine is shut down first, and an error of the store
// if the run cannot go on because that is closed or must be reopened.
func (e *Engine) Wait(ctx context.Context, runID string) (*Run, error) {
	ended, known, giveUp := e.sched.wait(runID)
	defer giveUp()
	if !known {
		if text.NameFault(runID) != "" {
			return e.GetRun(ctx, runID)
		}
		rec, _, err := load[runRecord](ctx, e.ledger, runKey(runID))
		if err != nil || rec.State.Final() {
			return e.GetRun(ctx, runID) // which says what is wrong
		}
	}
	select {
	case run := <-ended:
		if run != nil {
			return run, nil
		}
		return e.GetRun(ctx, runID)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-e.sched.done:
		return nil, ErrClosed
	}
}

// Cancel ends a run. When it returns nil, that is on record and survives a crash. The contexts of attempts under way
// end with [ErrCanceled]; when they have returned, and at once if there are none, its Finally is run, and then it is
// canceled. Nothing else of it starts any more. The reason is for people.
//
// Canceling a run twice is fine as long as it has not ended, and ends its Finally too; a run that has ended is an [ErrConflict], and one that
// is not there [ErrNotFound]. If ctx ends first, the run may or may not be canceled.
func (e *Engine) Cancel(ctx context.Context, runID, reason string) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	run, err := e.ledger.run(ctx, runID)
	if err != nil {
		return err
	}
	if run.rec.State.Final() {
		return fmt.Errorf("%w: run %s is %s", ErrConflict, runID, run.rec.State)
	}
	cause := fmt.Errorf("%w: %s", ErrCanceled, text.Truncate(reason, e.opts.Limits.ErrorText))
	if reason == "" {
		cause = ErrCanceled
	}
	return e.sched.stopRun(ctx, run, stopCancel, cause, reason)
}
