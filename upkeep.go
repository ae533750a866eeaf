package conveyor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// upkeep does the work that no call of the program asks for. It runs resources again that are due for a resync, removes
// old records, and reconciles the resources to whose type no driver had listened. [New] makes it, and the scheduler
// calls it.
type upkeep struct {
	sched *scheduler
	// rerun makes a run of an unchanged resource if wanted returns true for the resource's record.
	rerun func(ctx context.Context, k record.Key, cause record.Cause, origin record.Origin, wanted func(*record.Resource) bool) (*Run, error)

	// ctx is for the store. It ends when Shutdown begins, at whatever phase: what is left is taken up at the next start.
	ctx context.Context
	end context.CancelFunc

	resync alarm // rings when a resource must be run again
	aging  alarm // rings when all resources must be looked at, because Age may cover another run
	swept  bool  // the first sweep is done; owned by the work of aging

	misdated atomic.Bool // some resyncs may have been recorded at a time that has not come

	mu            sync.Mutex          // guards what follows
	pruneQueue    map[record.Key]int  // resources that wait to be pruned, with the number of times that this was asked for
	taken         map[record.Key]bool // resources that are being pruned
	asked         int                 // the sum of the numbers of both: about the number of runs that are to be removed
	progress      chan struct{}       // is closed and replaced when resources have been pruned
	pruning       bool                // a goroutine of the upkeep prunes
	earliestSweep time.Time           // when the next sweep can be
}

func newUpkeep(e *Engine) *upkeep {
	u := &upkeep{sched: e.sched, rerun: e.rerun, pruneQueue: map[record.Key]int{}, taken: map[record.Key]bool{}, progress: make(chan struct{})}
	u.ctx, u.end = context.WithCancel(e.sched.base)
	u.resync.work, u.resync.start = u.resyncAll, u.goBackground
	u.aging.work, u.aging.start = u.sweep, u.goBackground
	look := func() { u.sched.now() }
	u.resync.wall, u.aging.wall = look, look
	return u
}

// start begins with the upkeep. The first look at the index of the resyncs also sets the time of the next look. It is
// called with the lock of the pool held.
func (u *upkeep) start() {
	u.misdated.Store(true) // by an earlier process, perhaps
	u.ring()
}

// ring has everything looked at that waits for a time.
func (u *upkeep) ring() {
	u.resync.set(clock.Now())
	if u.prunes() {
		u.aging.set(clock.Now())
	}
}

// clockSet makes up for a clock that was set. It does not wait for this.
func (u *upkeep) clockSet() {
	u.misdated.Store(true)
	if u.sched.pool.Phase() == sched.Running {
		u.ring()
	}
}

// prunes reports whether Options.Retention limits what is kept.
func (u *upkeep) prunes() bool { return u.sched.opts.Retention != (Retention{}) }

// takeUpLeftovers deletes the checkpoints and signals that ended runs of an earlier process have left.
func (u *upkeep) takeUpLeftovers() {
	u.retryStore("delete what ended runs have left", u.deleteAllLeftovers)
}

// stop ends the upkeep. A commit that has begun is finished, and nothing is begun any more.
func (u *upkeep) stop() {
	u.end()
	u.resync.stop()
	u.aging.stop()
}

// goBackground runs work in a goroutine that Shutdown waits for. It returns false, and does not run work, if Shutdown has
// begun.
func (u *upkeep) goBackground(work func()) bool {
	return u.sched.background.goBefore(sched.Draining, work)
}

// retryStore calls do until do succeeds, until do returns a permanent error, or until Shutdown begins.
func (u *upkeep) retryStore(what string, do func() error) {
	for pause := firstDelay; ; pause = min(2*pause, longestDelay) {
		err := do()
		if err == nil || ledger.Permanent(err) || u.ctx.Err() != nil {
			return
		}
		u.sched.log.Warn("store failed; trying again", "work", what, "error", err, "after", pause)
		select {
		case <-time.After(pause):
		case <-u.ctx.Done():
			return
		}
	}
}

// deleteLeftovers deletes the checkpoints and signals of a run that has ended.
func (u *upkeep) deleteLeftovers(run string) {
	u.goBackground(func() {
		u.retryStore("delete what is left of run "+run, func() error { return u.sched.ledger.RemoveAll(u.ctx, ledger.Leftovers(run)...) })
	})
}

// deleteAllLeftovers deletes the checkpoints and signals of all runs that have ended.
func (u *upkeep) deleteAllLeftovers() error { return u.sched.ledger.RemoveLeftovers(u.ctx) }

// resyncAt arranges that the index of due resources is read at a time; 0 means never.
func (u *upkeep) resyncAt(at record.Time) {
	if at != 0 {
		u.resync.set(at.Time())
	}
}

// resyncAll makes the runs that are due, one after the other, and arranges the next look at the index.
func (u *upkeep) resyncAll() {
	var next record.Time
	u.retryStore("resync", func() (err error) {
		if u.misdated.Swap(false) {
			if err := u.correctResyncs(); err != nil {
				u.misdated.Store(true)
				return err
			}
		}
		next, err = u.resyncDue()
		return err
	})
	u.resyncAt(next)
}

// correctResyncs corrects the resyncs that were recorded at a time that has not come, because the clock was set back. Such
// a resource is due when its delay has passed from now on. A resource whose records are damaged is logged and left as it
// is. correctResyncs returns an error only if the store fails.
func (u *upkeep) correctResyncs() error {
	now := record.TimeOf(clock.Now())
	for r, err := range u.sched.ledger.Store.List(u.ctx, store.Query{Prefix: record.ResyncPrefix, After: record.ResyncKey(now, record.Key{})}) {
		if err != nil {
			return err
		}
		due, k, err := record.ParseResyncKey(r.Key)
		var rest record.Resync
		if err == nil {
			err = record.Decode(r, &rest)
		}
		if err == nil && rest.Delay > 0 && due.Add(-rest.Delay) > now+record.ClockTolerance {
			err = u.moveResync(u.ctx, k, due, now, rest)
		}
		switch {
		case err == nil:
		case ledger.Permanent(err):
			u.sched.log.Error("resource cannot be run again", "resource", text.Plain(k.String()), "error", err)
		default:
			return err
		}
	}
	return nil
}

// moveResync moves a due resync to the time at which its delay has passed from now on.
func (u *upkeep) moveResync(ctx context.Context, k record.Key, due, now record.Time, rest record.Resync) error {
	for {
		head, rev, err := u.sched.ledger.Resource(ctx, k)
		if err != nil || head == nil || head.Resync != due || record.Rewritable(head.Needs) != nil {
			return err
		}
		next := *head
		ops := next.CancelResync(k)
		next.Resync = now.Add(rest.Delay)
		ops = append(ops, store.Put(record.ResyncKey(next.Resync, k), record.Encode(rest)), store.Put(record.ResourceKey(k), record.Encode(&next)).If(rev))
		if _, err := u.sched.ledger.Commit(ctx, ops); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// resyncDue makes the runs that are due, and returns the time of the next one, or 0 if there is none. A resource whose
// records are damaged is logged and left as it is. resyncDue returns an error only if the store fails.
func (u *upkeep) resyncDue() (next record.Time, err error) {
	for r, err := range u.sched.ledger.Store.List(u.ctx, store.Query{Prefix: record.ResyncPrefix}) {
		if err != nil {
			return 0, err
		}
		due, k, err := record.ParseResyncKey(r.Key)
		if err == nil {
			if due > record.TimeOf(clock.Now()) {
				return due, nil
			}
			err = u.resyncOne(u.ctx, due, k)
		}
		switch {
		case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict), errors.Is(err, ErrUnsupported): // done, removed, being deleted, or left to newer programs
		case ledger.Permanent(err), errors.Is(err, ErrInvalid):
			u.sched.log.Error("resource cannot be run again", "resource", k.String(), "error", err)
		default:
			return 0, err
		}
	}
	return 0, nil
}

// resyncOne makes one run, unless the pipeline has no Resync any more. In both cases the index entry is deleted.
func (u *upkeep) resyncOne(ctx context.Context, due record.Time, k record.Key) error {
	head, rev, err := u.sched.ledger.Resource(ctx, k)
	if err != nil {
		return err
	}
	if head == nil || head.Resync != due {
		_, err := u.sched.ledger.Commit(ctx, []store.Op{store.Delete(record.ResyncKey(due, k))})
		return err
	}
	if err := record.Rewritable(head.Needs); err != nil {
		return err
	}
	pipeline, _, err := u.sched.ledger.Pipeline(ctx, head.Pipeline)
	switch {
	case err == nil && pipeline.Resync > 0 && pipeline.Resource == k.Type && head.Deleted == 0:
		_, err := u.rerun(ctx, k, record.Resynced, byEngine, func(head *record.Resource) bool { return head.Resync == due })
		return err
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	}
	next := *head
	ops := next.CancelResync(k)
	ops = append(ops, store.Put(record.ResourceKey(k), record.Encode(&next)).If(rev))
	if _, err = u.sched.ledger.Commit(ctx, ops); errors.Is(err, store.ErrConflict) {
		return u.resyncOne(ctx, due, k)
	}
	return err
}

// reconcileUnlistened makes runs for the resources of these types whose newest run was skipped because no driver
// listened to the type, if one does now.
func (u *upkeep) reconcileUnlistened(types ...string) {
	if len(types) == 0 || u.sched.pool.Phase() != sched.Running {
		return
	}
	u.goBackground(func() {
		for _, kind := range types {
			u.retryStore("reconcile resources of type "+kind, func() error { return u.reconcileType(kind) })
		}
	})
}

// reconcileType does the work of reconcileUnlistened for one type. A resource whose records are damaged is logged and
// left as it is. reconcileType returns an error only if the store fails.
func (u *upkeep) reconcileType(kind string) error {
	if drivers, err := u.sched.listeners(u.ctx, kind); err != nil || len(drivers) == 0 {
		return err
	}
	prefix := record.UnlistenedPrefix + kind + "/"
	for r, err := range u.sched.ledger.Store.List(u.ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return err
		}
		k := record.Key{Type: kind, Name: strings.TrimPrefix(r.Key, prefix)}
		_, err := u.rerun(u.ctx, k, record.Created, byEngine, func(head *record.Resource) bool {
			return head.Pipeline == "" && head.Status.Phase == plan.Skipped
		})
		switch {
		case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict), errors.Is(err, ErrUnsupported): // done, removed, being deleted, or left to newer programs
		case ledger.Permanent(err):
			u.sched.log.Error("resource that no driver listened to cannot go on", "resource", text.Plain(k.String()), "error", err)
		default:
			return err
		}
	}
	return nil
}

// PruneOptions say what [Engine.Prune] does. The zero value prunes everything as [Options].Retention specifies.
type PruneOptions struct {
	// Retention is what is kept. The zero value means Options.Retention.
	Retention Retention
	// Resource, if set, is the only resource whose past is pruned, or the name of a deleted one. The definitions of
	// pipelines are left alone then.
	Resource Key
}

// Pruned is what [Engine.Prune] has removed.
type Pruned struct {
	Runs        int `json:"runs"`        // ended runs, with their steps, attempts and logs
	Revisions   int `json:"revisions"`   // generations of resources
	Definitions int `json:"definitions"` // former definitions of pipelines, and those of deleted pipelines
}

// Prune removes what [Retention] does not cover, and returns what it has removed. The engine does the same in the
// background. On a shared store, a run is kept for twice [Options].Lease after its end in any case, so that who waits for it in another
// engine finds it. A program that sets no Options.Retention can call Prune at times of its own choice. If nothing limits what
// is kept, Prune removes only definitions. Prune can be called before Start.
//
// Prune returns an [ErrInvalid] for a negative limit or an invalid name, the cause of ctx, [ErrClosed] if the engine is
// shut down, or an error of the store. After an error, what was removed stays removed and is counted in the result.
func (e *Engine) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	var f fault.Fields
	o.Retention.validate(&f)
	if o.Resource != (Key{}) {
		f.Name("Resource.Type", o.Resource.Type)
		f.Name("Resource.Name", o.Resource.Name)
	}
	if err := fieldErrors(f.List()); err != nil {
		return Pruned{}, err
	}
	keep := o.Retention
	if keep == (Retention{}) {
		keep = e.opts.Retention
	}
	u := e.upkeep
	if !u.sched.background.enterBefore(sched.Draining) {
		return Pruned{}, ErrClosed
	}
	defer u.sched.background.Leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(u.ctx, func() { cancel(ErrClosed) })()
	defer cancel(nil)
	p := u.newPruner(keep)
	var err error
	if o.Resource != (Key{}) {
		err = errors.Join(p.Prune(ctx, record.Key(o.Resource)), p.Flush(ctx))
	} else {
		err = errors.Join(p.PruneAll(ctx, nil), p.PruneDefinitions(ctx))
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil:
		err = fmt.Errorf("prune: %w", err)
	}
	return Pruned(p.Removed), err
}

// pruneEvery is the number of generations after which a resource is pruned even if none of its runs has ended.
const pruneEvery = 256

// newPruner returns a pruner that leaves alone the runs for which callers wait, and whose logs are read.
func (u *upkeep) newPruner(keep Retention) *ledger.Pruner {
	p := u.sched.ledger.NewPruner(ledger.Keep(keep), clock.Now())
	if u.sched.fleet != nil {
		p.Linger = 2 * u.sched.opts.Lease
	}
	p.Spare = func(k record.Key, run string) bool {
		later := func() { u.prune(k) }
		return u.sched.waiters.delay(run, later) || u.sched.followers.Delay(run, later)
	}
	return p
}

// prune arranges that the past of a resource is pruned as Options.Retention specifies. What is left when Shutdown begins
// or the process dies is found by the sweep of the next start.
func (u *upkeep) prune(k record.Key) {
	if !u.prunes() {
		return
	}
	u.mu.Lock()
	u.pruneQueue[k]++
	u.asked++
	u.mu.Unlock()
	u.beginPruning()
}

// beginPruning starts the goroutine that prunes, unless there is one or nothing waits.
func (u *upkeep) beginPruning() {
	u.mu.Lock()
	begin := !u.pruning && len(u.pruneQueue) > 0
	u.pruning = u.pruning || begin
	u.mu.Unlock()
	if begin && !u.goBackground(u.pruneQueued) {
		u.mu.Lock()
		u.pruning = false
		u.mu.Unlock()
	}
}

// pruneQueued prunes the resources that wait, until none is left.
func (u *upkeep) pruneQueued() {
	for {
		u.mu.Lock()
		keys, asked := u.takeLocked()
		u.pruning = len(keys) > 0
		u.mu.Unlock()
		if len(keys) == 0 {
			return
		}
		u.pruneTaken(keys, asked)
	}
}

// maxPruneTogether bounds the resources that are pruned together.
const maxPruneTogether = 64

// takeLocked removes resources that nobody prunes from pruneQueue and returns them. The caller must call pruneTaken if
// there are any. If Shutdown has begun, there are none.
func (u *upkeep) takeLocked() (keys []record.Key, asked int) {
	if u.ctx.Err() != nil {
		return nil, 0
	}
	for k, n := range u.pruneQueue {
		if u.taken[k] {
			continue
		}
		asked += n
		if keys = append(keys, k); len(keys) == maxPruneTogether {
			break
		}
	}
	for _, k := range keys {
		delete(u.pruneQueue, k)
		u.taken[k] = true
	}
	return keys, asked
}

// pruneTaken prunes resources that takeLocked has returned.
func (u *upkeep) pruneTaken(keys []record.Key, asked int) {
	u.pruneResources(keys)
	u.mu.Lock()
	for _, k := range keys {
		delete(u.taken, k)
	}
	u.asked -= asked
	close(u.progress)
	u.progress = make(chan struct{})
	u.mu.Unlock()
	u.beginPruning() // for the resources that were asked for again in the meantime
}

// maxUnpruned is the number of ended runs whose resources are not pruned yet from which on workers help.
const maxUnpruned = 256

// help prunes some resources if too many runs have ended, or waits for those who do. A worker calls it before it takes
// another run, so that no more runs end than can be removed, however fast they are.
func (u *upkeep) help() {
	if !u.prunes() {
		return
	}
	for {
		u.mu.Lock()
		if u.asked <= maxUnpruned || u.ctx.Err() != nil {
			u.mu.Unlock()
			return
		}
		keys, asked := u.takeLocked()
		progress := u.progress
		u.mu.Unlock()
		if len(keys) > 0 {
			u.pruneTaken(keys, asked)
			return
		}
		select {
		case <-progress:
		case <-u.ctx.Done():
		}
	}
}

// pruneResources prunes resources, and removes what is to be removed of all of them together.
func (u *upkeep) pruneResources(keys []record.Key) {
	p := u.newPruner(u.sched.opts.Retention)
	for _, k := range keys {
		if err := p.Prune(u.ctx, k); err != nil {
			u.pruneFailed(err)
		}
	}
	if err := p.Flush(u.ctx); err != nil {
		u.pruneFailed(err)
	}
	u.sweepAt(p.Next)
}

// retryPruning is the time after which a sweep does what a failure has left.
const retryPruning = time.Minute

// pruneFailed logs a failure, and arranges that a sweep does what is left.
func (u *upkeep) pruneFailed(err error) {
	if u.ctx.Err() != nil {
		return
	}
	u.sched.log.Warn("old records cannot be removed", "error", err)
	if !errors.Is(err, store.ErrCorrupt) {
		u.sweepAt(record.TimeOf(clock.Now().Add(retryPruning)))
	}
}

// sweepShare is the number of times that a sweep took which pass at least before the next one, so that sweeps over many
// resources take a small share of the time.
const sweepShare = 20

// sweepAt arranges that all resources are looked at by a time; 0 means never.
func (u *upkeep) sweepAt(at record.Time) {
	if at == 0 {
		return
	}
	u.mu.Lock()
	earliest := u.earliestSweep
	u.mu.Unlock()
	if due := at.Time(); due.After(earliest) {
		earliest = due
	}
	u.aging.set(earliest)
}

// sweep prunes everything, and arranges the next sweep for the time at which Age covers another run. The first sweep
// finds what an earlier process has left.
func (u *upkeep) sweep() {
	began := time.Now()
	p := u.newPruner(u.sched.opts.Retention)
	err := p.PruneAll(u.ctx, u.pauses())
	if err == nil && !u.swept {
		err = p.PruneDefinitions(u.ctx)
	}
	if err != nil {
		u.pruneFailed(err)
	} else {
		u.swept = true
	}
	u.mu.Lock()
	u.earliestSweep = clock.Now().Add(sweepShare * time.Since(began))
	u.mu.Unlock()
	u.sweepAt(p.Next)
}

// pauses returns a function that pauses three times as long as the work since the last call took, so that a sweep takes
// at most a quarter of a processor from the runs.
func (u *upkeep) pauses() (pause func()) {
	since := time.Now()
	return func() {
		select {
		case <-time.After(3 * time.Since(since)):
		case <-u.ctx.Done():
		}
		since = time.Now()
	}
}

// alarm calls a function at a set time. Two calls of the function never overlap.
type alarm struct {
	work  func()
	start func(work func()) bool // runs work in a goroutine of its own; returns false if the alarm must stop
	wall  func()                 // notices that the clock was set; nil if the alarm is set to moments of time.Now, and not to times of day

	mu      sync.Mutex // guards what follows
	at      time.Time  // when the alarm rings; zero means never
	timer   *time.Timer
	busy    bool // work is running, or about to
	stopped bool
}

// set makes the alarm ring at a time, unless it is set for an earlier time. An alarm that was stopped never rings.
func (a *alarm) set(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || !a.at.IsZero() && !at.Before(a.at) {
		return
	}
	a.at = at
	if !a.busy {
		a.armLocked()
	}
}

// left returns how long it takes until the alarm rings.
func (a *alarm) left() time.Duration {
	if a.wall != nil {
		return clock.Until(a.at)
	}
	return time.Until(a.at)
}

// armLocked sets the timer to the time at which the alarm rings. If this is a time of day, the timer looks at the clock
// now and then, because the clock can be set and the machine can sleep.
func (a *alarm) armLocked() {
	left := max(a.left(), 0)
	if a.wall != nil {
		left = min(left, longestSleep)
	}
	switch {
	case left == 0: // without the timer: the race detector of Go 1.26 crashes where a timer in a bubble fires at once
		go a.ring()
	case a.timer == nil:
		a.timer = time.AfterFunc(left, a.ring)
	default:
		a.timer.Reset(left)
	}
}

// ring is called by the timer. It starts the work if the time has come.
func (a *alarm) ring() {
	if a.wall != nil {
		a.wall()
	}
	a.mu.Lock()
	if a.busy || a.stopped || a.at.IsZero() {
		a.mu.Unlock()
		return
	}
	if a.left() > 0 { // the timer was set for an earlier time
		a.armLocked()
		a.mu.Unlock()
		return
	}
	a.busy, a.at = true, time.Time{}
	a.mu.Unlock()
	if !a.start(a.do) {
		a.stop()
	}
}

// do calls work, and then sets the timer again if set was called in the meantime.
func (a *alarm) do() {
	a.work()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy = false
	if !a.at.IsZero() && !a.stopped {
		a.armLocked()
	}
}

// stop makes the alarm ring no more. Work that is running continues.
func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
