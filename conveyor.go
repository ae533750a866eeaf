// Package conveyor moves resources along ordered pipelines of drivers. The work is durable and runs inside your own
// program.
//
// A resource is desired state: a type, a name and a spec. A driver is Go code with a Reconcile method. A pipeline
// names, for one type of resource, the drivers that reconcile it, step by step. When a resource is applied, the
// drivers of its pipeline are called in the order of the steps. A driver is called only after the step before it has
// succeeded. A resource that names no pipeline is reconciled by every driver that listens to its type, all at once.
// There is no server: an [Engine] does the work in your process and records every step in a store of your choice.
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
// [Engine.Apply] checks the resource (resource.go, internal/document) and decides what has changed (apply.go). It
// commits the resource together with a run and, if a worker is free, with the start of the first step (decision.go).
//
// The worker calls the driver (attempt.go, internal/call). The lines that the driver logs are kept with the run
// (internal/runlog). The outcome of the call goes to the run in memory (runner.go). Pure rules decide from the steps
// of the run (internal/plan) what comes next (internal/run). A step that starts needs a worker and a slot of its
// driver, which the engine grants (decision.go). The outcome of a step and the start of the next step are one commit
// (internal/record, internal/ledger).
//
// A run that has to wait keeps only its due time in memory (scheduler.go, internal/sched). Its records are read again
// when the run continues. Resyncs and the removal of old records happen in the background (upkeep.go). The values of
// this package are converted to and from those of the packages below in one place (convert.go).
//
// # What is guaranteed
//
// A step starts only after the steps before it have a recorded success, a recorded skip, or a tolerated failure (see
// [Step].ContinueOnError). The start of an attempt is recorded before its driver is called. The outcome of an attempt
// is recorded before anything else happens to the run. A resource never has two attempts at once, except for parallel
// steps and for drivers that listen to its type together. A finished step is never called again. A step that was
// running when the process died is called again, with the same [Request.IdempotencyKey]. Each step is therefore
// called at least once and has exactly one recorded outcome. Every change that Apply has accepted is reconciled. A
// later change can replace an earlier one, and the newest generation is always reconciled in the end.
//
// # What is not guaranteed
//
// A driver is not called exactly once: nothing outside a database can promise this. Two engines must not use the same
// store at the same time, unless it is shared (see below). Go code that ignores its context cannot be stopped. The engine only keeps such code from
// doing harm.
//
// # Crash and shutdown
//
// After a crash, [Engine.Start] continues every unfinished run from what is recorded, whichever program recorded it.
// A step whose driver is not registered blocks its run until the driver is registered. [Engine.Shutdown] lets running
// attempts finish, then ends the contexts of the others, and returns by its deadline. An attempt that was cut short
// in this way is not counted. Its driver is called again after the next start.
//
// # Several engines
//
// A store that implements [store.Watcher] is shared: several engines, in one process or in many, work on it together. Each
// unfinished run is owned by one engine at a time, which alone starts its steps. Any engine can be asked for anything. An engine
// renews a lease, and its runs are taken over when it could not (see [Options].Lease). [PipelineSpec].MaxRuns and pauses hold over all
// engines; [Options].Workers and [Concurrency] are those of one engine. Runs without an owner are in the store, so that it makes
// no difference which engine has made them.
package conveyor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ids"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/internal/shortlived"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Engine moves resources along pipelines. Create one with [New], register drivers, save pipelines, call
// [Engine.Start], and apply resources.
//
// All methods can be called concurrently, by drivers too. All methods can be called before Start unless they say
// otherwise: what is applied before Start is recorded, and its work begins with Start.
type Engine struct {
	opts    Options
	ledger  *ledger.Ledger
	sched   *scheduler
	upkeep  *upkeep
	events  *feed
	ids     ids.IDs
	stamps  ids.Clock   // of changes
	follows atomic.Bool // the ids go on from those on record

	starting chan struct{} // holds a value while Start works
}

// Options configure an engine. The zero value works.
type Options struct {
	// Workers is the maximum number of driver calls at once. Abandoned calls (see [Driver]) are not counted. 0 means
	// 32.
	Workers int
	// Retry is the retry policy of all steps. Each field applies where the step, the pipeline and the driver leave
	// the same field unset.
	Retry RetryPolicy
	// StepTimeout limits each attempt of a step if neither the step nor its driver has a timeout. 0 means no limit.
	StepTimeout time.Duration
	// ShutdownGrace is the time that [Engine.Run] has to shut down after its context has ended. It is also the time
	// that [Engine.Shutdown] waits for the store if its context has no deadline. 0 means 10s.
	ShutdownGrace time.Duration
	// Name tells people which engine is which, where several work on a shared store (see [Engine.Engines]). It need not be
	// unique. It is a name of at most 253 bytes, such as that of a host or a pod; empty means none.
	Name string
	// Lease is how long an engine on a shared store must have been silent before another engine takes its runs over. An engine
	// renews its lease every sixth of this time. If it cannot for two thirds of it, it starts nothing any more, and the contexts
	// of its attempts end with [ErrLeaseLost]. Choose it more than twice as long as the longest failover of the store. The engines
	// on a store can have different leases. 0 means 30s. It has no effect on a store that is not shared.
	Lease time.Duration
	// Poll is how often an engine on a shared store looks for changes while the watch of the store does not work, and for runs that
	// it had to leave alone. 0 means 1s. It has no effect on a store that is not shared.
	Poll time.Duration
	// Letters has the engine apply the resources that [NewLetter] has put into a shared store. The letters are divided among the live
	// engines that have this option. [New] returns an [ErrInvalid] if the store is not shared.
	Letters bool
	// LetterAge is how long a letter is tried again that cannot be applied yet: because its pipeline has not been saved, its resource is
	// being deleted, or too many runs wait. Then it is refused. 0 means 24h. It has no effect without Letters.
	LetterAge time.Duration
	// Limits bound what the engine accepts and keeps.
	Limits Limits
	// Retention bounds how many ended runs and earlier generations are kept. The zero value keeps everything.
	Retention Retention
	// Logger receives the engine's own log lines and the lines that drivers log. nil means that nothing is logged. The page
	// docs/log.md of the repository lists the messages, their levels and their keys.
	//
	// The engine's own lines contain the names of resources, runs, steps and drivers, actors, the kind of an error and the
	// reason that a driver gave to [Reason], the reasons of pauses, the keys of records, and errors of the store. The engine never logs the content of a spec, of metadata, of settings, of an output, of a signal
	// or of a checkpoint. It never logs the error or the panic value of a driver, a [Planner], Admission or Validate
	// either: these are recorded with the run or returned to the caller. When an Observer or the release function of
	// an Admission panics, the engine logs the type of the value and nothing else of it.
	//
	// A slow, blocked or panicking handler never delays the engine: lines that do not fit are dropped, and the number
	// of dropped lines is logged. Lines that a driver writes to [Request].Log are passed to the handler
	// synchronously, inside the driver's call.
	Logger *slog.Logger
	// Observer, if set, is called for every event.
	Observer Observer
	// Admission, if set, decides before each call of a driver whether the host has capacity for the call.
	Admission Admission
	// Wrap is middleware around every call of user code for a step: of Reconcile, Finalize and Plan. [Request].Kind says which
	// of them it is. The first element is the outermost one. [New] calls each element once, with the next call inwards, and
	// the returned [Call] is then called for each attempt, concurrently.
	//
	// A middleware is part of the attempt: a panic in it fails the attempt, its time is that of the attempt, its context ends
	// with that of the attempt, and it is abandoned with the call that it wraps. It can call next once, with the Request that
	// it got or a copy of it, and a context derived from the one that it got. It returns only after next has returned. A
	// second call of next, a call with the context or the Request of another attempt, and a return before next are errors
	// that are not retried. It need not call next: what it returns is the outcome of the attempt in any case. The Result of a
	// Plan must be returned as it came.
	// A panic of the driver comes out of next as an error that is a [*PanicError].
	//
	// A driver that is a [Finalizer] stays one, and a [Planner] too. Admission is asked before the outermost middleware, and
	// is not wrapped.
	Wrap []func(next Call) Call
	// Carry, if set, returns what a call of the program gives to the run that it asks for: the identifiers of a trace, or the
	// name of a tenant. It is called by Apply, Create, Trigger, Retry, Rollback, Delete and Signal with the context of the
	// call, in the goroutine of the caller, before anything is read or stored. It can be called concurrently. A panic in it
	// is the caller's.
	//
	// What Carry returned is kept with the run, and each call of a driver gets it in [Request].Carried. If a queued run takes
	// up the change of a later Apply, it has what that Apply carried. What a Signal carries stays with the signal (see
	// [Request.SignalFrom]). A resync, and a run for a driver that began to listen, carry nothing. It is never logged.
	//
	// The map is copied. Names and values are UTF-8, and together they have at most [Limits].Carried bytes as JSON.
	// Otherwise the call returns an [ErrInvalid] or [ErrTooLarge], and does nothing.
	Carry func(ctx context.Context) map[string]string
	// Validate, if set, can reject a resource before anything is stored. It is called by each call of the program that
	// can store a spec or metadata: [Engine.Apply], [Engine.Create] and [Engine.Rollback], whether something has changed
	// or not. That call returns the error, and stores nothing. An engine with Letters calls it for each letter: an error refuses the letter,
	// and so does a panic; an error that wraps [context.Canceled], [context.DeadlineExceeded], [store.ErrUnavailable] or [store.ErrUnknown] has the letter
	// tried again, until LetterAge. Nothing else calls Validate: [Engine.Trigger],
	// [Engine.Retry], a resync and the registration of a driver run a spec again that is stored already, and
	// [Engine.Delete] must be possible for every resource. Validate gets a copy of the resource, with the spec, the
	// pipeline and the metadata that would be stored. It can be called concurrently, and more than once by one call.
	Validate func(ctx context.Context, o *Object) error
}

const (
	defaultWorkers       = 32
	maxWorkers           = 1 << 20
	defaultShutdownGrace = 10 * time.Second
	defaultLease         = 30 * time.Second
	leastLease           = time.Second
	longestLease         = time.Hour
	defaultPoll          = time.Second
	leastPoll            = 10 * time.Millisecond
	defaultLetterAge     = 24 * time.Hour
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
	if o.Name != "" {
		f.Name("Name", o.Name)
	}
	if o.Lease != 0 && (o.Lease < leastLease || o.Lease > longestLease) {
		f.Add(fault.Invalidf("Lease", "%s is not between %s and %s", o.Lease, leastLease, longestLease))
	}
	if o.Poll != 0 && (o.Poll < leastPoll || o.Poll > longestLease) {
		f.Add(fault.Invalidf("Poll", "%s is not between %s and %s", o.Poll, leastPoll, longestLease))
	}
	if o.LetterAge < 0 {
		f.Add(fault.Invalidf("LetterAge", "%s is negative", o.LetterAge))
	}
	validateRetry(o.Retry, "Retry", f)
	o.Limits.validate(f)
	o.Retention.validate(f)
}

func (o Options) withDefaults(accepts store.Limits) Options {
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	if o.ShutdownGrace == 0 {
		o.ShutdownGrace = defaultShutdownGrace
	}
	if o.Lease == 0 {
		o.Lease = defaultLease
	}
	if o.Poll == 0 {
		o.Poll = defaultPoll
	}
	if o.LetterAge == 0 {
		o.LetterAge = defaultLetterAge
	}
	o.Limits = o.Limits.withDefaults(accepts)
	return o
}

// meaning returns a hash of the options that give runs a meaning: engines on one store should have the same.
func (o Options) meaning() string {
	h := sha256.Sum256(fmt.Appendf(nil, "%+v %v %+v %+v", o.Retry, o.StepTimeout, o.Limits, o.Retention))
	return hex.EncodeToString(h[:8])
}

// New returns an engine that uses the store st. New starts nothing and reads nothing. It returns an [ErrInvalid] that
// names every invalid option. The caller keeps the ownership of st and must close it after [Engine.Shutdown].
//
// Two engines must not use the same store at the same time, unless it implements [store.Watcher]: they do not know of each other's runs.
func New(st store.Store, opts Options) (*Engine, error) {
	var f fault.Fields
	var accepts store.Limits
	if isNilPointer(st) {
		f.Add(fault.Invalidf("store", "is nil"))
	} else {
		accepts = store.LimitsOf(st)
	}
	opts.validate(&f)
	opts.Limits.validateStore(accepts, &f)
	if _, shared := st.(store.Watcher); opts.Letters && !shared {
		f.Add(fault.Invalidf("Letters", "needs a store that is shared (a store.Watcher); leave it out"))
	}
	wrapped := wrap(opts.Wrap, &f)
	if err := fieldErrors(f.List()); err != nil {
		return nil, err
	}
	kept := shortlived.On(st)
	e := &Engine{opts: opts.withDefaults(accepts), ledger: ledger.New(kept), starting: make(chan struct{}, 1)}
	e.events = newFeed(e.opts.Limits.WatchBuffer, e.ids.Next(clock.Now()))
	e.sched = newScheduler(st, e.opts, e.ledger, e.events)
	e.sched.wrapped = wrapped
	e.sched.joinFleet(kept, func() string { return e.ids.Next(clock.Now()) })
	e.upkeep = newUpkeep(e)
	e.sched.upkeep = e.upkeep
	if e.opts.Letters {
		e.sched.postbox = &postbox{engine: e, mail: make(chan struct{}, 1)}
	}
	return e, nil
}

// Register registers the driver d under a name. It can be called at any time before Shutdown. Steps that are blocked
// because no driver had this name continue. Resources without a pipeline, to whose type no driver had listened, are
// reconciled if d listens to their type.
//
// Register returns [ErrExists] if the name is taken, an [ErrInvalid] for an invalid name, a nil driver or an invalid
// option, and [ErrClosed] after Shutdown.
func (e *Engine) Register(name string, d Driver, opts ...DriverOption) error {
	var f fault.Fields
	f.Name("driver", name)
	if isNilPointer(d) {
		f.Add(fault.Invalidf("driver", "%s is nil", text.Quote(name)))
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
	if err := e.sched.accepting(); err != nil {
		return err
	}
	if err := e.sched.drivers.register(name, d, o); err != nil {
		return err
	}
	if len(o.listen) > 0 {
		e.sched.pauses.recheck()
	}
	if e.sched.fleet != nil {
		e.sched.fleet.claimer().registered(name, func() { e.upkeep.reconcileUnlistened(o.listen...) })
		return nil
	}
	e.upkeep.reconcileUnlistened(o.listen...)
	return nil
}

// Start continues every unfinished run in the store and begins to work. It returns when all unfinished runs have been
// taken up. On a shared store it returns when the engine is on record, and the runs that nobody owns are taken up afterwards. After it has returned, ctx has no effect. A run whose due time has passed in the meantime continues at
// once. A step that was running when the former process ended is called again.
//
// Start returns [ErrClosed] after Shutdown, [ErrConflict] if the engine has been started already or if another engine that was
// started on the same store has not been shut down, or an error of the store. After an error of the store, Start can be called
// again. Records with a newer format than this program knows are a [store.ErrCorrupt].
func (e *Engine) Start(ctx context.Context) (err error) {
	select {
	case e.starting <- struct{}{}: // a second call finds that the engine was started, or tries again what the first one could not do
		defer func() { <-e.starting }()
	case <-ctx.Done():
		return fmt.Errorf("conveyor: start: %w", context.Cause(ctx))
	}
	if err := e.sched.own(); err != nil {
		return fmt.Errorf("conveyor: start: %w", err)
	}
	defer func() {
		if phase := e.sched.pool.Phase(); err != nil && (phase == sched.New || phase == sched.Stopped) {
			e.sched.disown()
		}
	}()
	if err := e.checkFormat(ctx); err != nil {
		return fmt.Errorf("conveyor: start: %w", err)
	}
	if err := e.followRuns(ctx); err != nil {
		return fmt.Errorf("conveyor: start: %w", err)
	}
	if err := e.sched.start(ctx); err != nil {
		return fmt.Errorf("conveyor: start: %w", err)
	}
	e.upkeep.reconcileUnlistened(e.sched.drivers.listened()...)
	return nil
}

// followRuns makes the ids of runs that the engine makes greater than those on record. It reads the records only once.
func (e *Engine) followRuns(ctx context.Context) error {
	if e.follows.Load() {
		return nil
	}
	err := e.followIDs(ctx, record.RunPrefix, runOfKey)
	e.follows.CompareAndSwap(false, err == nil)
	return err
}

// runOfKey returns the id of the run whose record has a key.
func runOfKey(key string) string { return strings.TrimPrefix(key, record.RunPrefix) }

// followIDs makes the next id of the engine greater than those in the keys under a prefix. The clock can have
// been set back since they were made.
func (e *Engine) followIDs(ctx context.Context, prefix string, idOf func(key string) string) error {
	for r, err := range e.ledger.Store.List(ctx, store.Query{Prefix: prefix, Reverse: true, Limit: 1}) {
		if err != nil {
			return err
		}
		e.ids.After(idOf(r.Key))
	}
	return nil
}

// checkFormat checks that this program knows the format of the records. An empty store gets the format of this
// program, and so does a store with an older one, which this program reads and an older program must not continue.
func (e *Engine) checkFormat(ctx context.Context) error {
	version := record.Version
	if e.sched.fleet != nil {
		version = record.SharedVersion
	}
	format, rev, err := ledger.Load[record.Format](ctx, e.ledger, record.FormatKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	case format.Format > version:
		return fmt.Errorf("%w: records have format %d, and this program knows %d", store.ErrCorrupt, format.Format, version)
	case format.Format == version:
		return nil
	}
	_, err = e.ledger.Commit(ctx, []store.Op{store.Put(record.FormatKey, record.Encode(record.Format{Format: version})).If(rev)})
	if errors.Is(err, store.ErrConflict) {
		return e.checkFormat(ctx)
	}
	return err
}

// Shutdown stops the engine. It starts nothing new. Running attempts can finish until shortly before the deadline of
// ctx: Shutdown reserves the last quarter of the time, at most one second. If ctx has no deadline, attempts can
// finish until ctx ends. Then the contexts of the attempts end with [ErrShutdown]. An attempt that then returns an
// error, or does not return, is recorded as interrupted, and its driver is called again after the next start.
//
// Shutdown returns when everything that the engine started has stopped, and at the latest at the deadline. If drivers
// have not returned by then, the error names their steps, and what these drivers return later is discarded. Half of the
// reserved time is for these drivers, and half is for recording.
//
// Resyncs, [Engine.Prune] and the removal of old records stop at once. The next Start takes them up.
//
// A store that fails or blocks does not delay Shutdown beyond the following times:
//
//   - If the deadline of ctx is in the future, Shutdown returns by the deadline. If the deadline is less than 50ms away,
//     Shutdown can miss it by 5ms.
//   - If ctx has a deadline and ended before the call, Shutdown returns within a quarter of a second.
//   - If ctx ends otherwise, Shutdown returns within two seconds after the end of ctx.
//   - If ctx has no deadline and does not end, Shutdown returns within twice [Options].ShutdownGrace plus one second
//     after the last driver has returned.
//
// The error of Shutdown then names the runs that are not completely recorded. A step whose outcome is missing is
// called again after the next start.
//
// What is recorded stays recorded, and the next Start on the store continues it. Shutdown can be called more than
// once, and before Start. A driver can call Shutdown with its own context. Shutdown then does not wait for this
// driver. After Shutdown, methods that only read still work as long as the store is open. All other methods return
// [ErrClosed].
func (e *Engine) Shutdown(ctx context.Context) error { return e.sched.shutdown(ctx) }

// Run starts the engine, waits until ctx ends, and shuts the engine down within [Options].ShutdownGrace. It returns
// the error of Start or of Shutdown, and nil if both succeeded.
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

// actorKey is the key of the actor of a context.
type actorKey struct{}

// As returns a context that names the actor of the calls that get it: the person, the service or the job on whose behalf
// the program calls the engine. The actor is on record with what the call has done: with the run ([Run].By), the cancel
// ([Run].StoppedBy), the signal ([Wait].By), the generation ([Meta].UpdatedBy) and the pause ([Pause].By). It is in the
// events of that run ([Event].By) and in the requests to its drivers ([Request].By). A pipeline that is saved or deleted
// shows its actor in the event only.
//
// An actor has at most 253 bytes of UTF-8 without control characters, and is not "conveyor", which is the actor of what the
// engine does by itself: a resync, and the run of a resource to whose type a driver begins to listen. A call with any other
// actor returns an [ErrInvalid] or [ErrTooLarge], and does nothing. An empty actor names nobody, as if As had not been
// called. The engine does not check that an actor is who it says.
//
// The context that a driver gets names no actor: what a driver does with the engine is done by nobody, unless the driver
// calls As. [Request].By tells it for whom it works.
func As(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// engineActor is the actor of what the engine does by itself.
const engineActor = "conveyor"

// byEngine is the origin of the runs that the engine makes by itself.
var byEngine = record.Origin{By: engineActor}

// actorOf returns the actor of a context, or the fault of a name that no actor can have.
func actorOf(ctx context.Context) (string, error) {
	actor, _ := ctx.Value(actorKey{}).(string)
	var f fault.Fields
	switch f.Text("actor", actor); {
	case len(actor) > text.MaxName:
		f.Add(fault.Larger("actor", len(actor), text.MaxName, "bytes", text.FixedLimit))
	case strings.ContainsFunc(actor, unicode.IsControl):
		f.Add(fault.Invalidf("actor", "%s has a control character", text.Quote(actor)))
	case actor == engineActor:
		f.Add(fault.Invalidf("actor", "%q is the engine itself; choose another name", actor))
	}
	return actor, fieldErrors(f.List())
}

// origin returns who makes a call of the engine with this context, and what [Options].Carry gives it to carry.
func (e *Engine) origin(ctx context.Context) (o record.Origin, err error) {
	if o.By, err = actorOf(ctx); err != nil || e.opts.Carry == nil {
		return o, err
	}
	o.Carried = maps.Clone(e.opts.Carry(ctx))
	var f fault.Fields
	checkCarried(&f, "Carry", o.Carried, e.opts.Limits)
	if len(o.Carried) == 0 {
		o.Carried = nil
	}
	return o, fieldErrors(f.List())
}

// checkCarried adds to f what is wrong with what a run is to carry, under the name of the field.
func checkCarried(f *fault.Fields, field string, carried map[string]string, limits Limits) {
	var own fault.Fields
	own.Labels(field, carried)
	if size := len(record.Encode(carried)); len(carried) > 0 && len(own.List()) == 0 && size > limits.Carried {
		own.Add(fault.Larger(field, size, limits.Carried, "bytes as JSON", "Limits.Carried"))
	}
	f.Add(own.List()...)
}
