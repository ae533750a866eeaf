package conveyor

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

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
	rerun func(ctx context.Context, k record.Key, cause record.Cause, wanted func(*record.Resource) bool) (*Run, error)

	resync alarm // rings when a resource must be run again

	mu         sync.Mutex              // guards what follows
	pruneQueue map[record.Key]struct{} // resources that wait to be pruned
	pruning    bool                    // a goroutine prunes
}

func newUpkeep(e *Engine) *upkeep {
	u := &upkeep{sched: e.sched, rerun: e.rerun, pruneQueue: map[record.Key]struct{}{}}
	u.resync.work = u.resyncAll
	u.resync.start = func(work func()) bool {
		return !e.sched.draining() && e.sched.goBackground(work)
	}
	return u
}

// start begins with the resyncs. The first look at the index also sets the time of the next look.
func (u *upkeep) start() { u.resync.set(time.Now()) }

// stop ends the resyncs. A resync that is in progress is not interrupted.
func (u *upkeep) stop() { u.resync.stop() }

// resyncAt arranges that the index of due resources is read at a time; 0 means never.
func (u *upkeep) resyncAt(at record.Time) {
	if at != 0 {
		u.resync.set(at.Time())
	}
}

// resyncAll makes the runs that are due, one after the other, and arranges the next look at the index.
func (u *upkeep) resyncAll() {
	var next record.Time
	u.sched.retryStore("resync", func() (err error) {
		next, err = u.resyncDue()
		return err
	})
	u.resyncAt(next)
}

// resyncDue makes the runs that are due, and returns the time of the next one, or 0 if there is none. A resource whose
// records are damaged is logged and left as it is. resyncDue returns an error only if the store fails.
func (u *upkeep) resyncDue() (next record.Time, err error) {
	for r, err := range u.sched.ledger.Store.List(u.sched.base, store.Query{Prefix: record.ResyncPrefix}) {
		if err != nil {
			return 0, err
		}
		due, k, err := record.ParseResyncKey(r.Key)
		if err == nil {
			switch {
			case due > record.TimeOf(time.Now()):
				return due, nil
			case u.sched.draining():
				return 0, nil
			}
			err = u.resyncOne(u.sched.base, due, k)
		}
		switch {
		case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict): // done, removed, or being deleted
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
	pipeline, _, err := u.sched.ledger.Pipeline(ctx, head.Pipeline)
	switch {
	case err == nil && pipeline.Resync > 0 && pipeline.Resource == k.Type && head.Deleted == 0:
		_, err := u.rerun(ctx, k, record.Resynced, func(head *record.Resource) bool { return head.Resync == due })
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
// listened to the type.
func (u *upkeep) reconcileUnlistened(types ...string) {
	s := u.sched
	if len(types) == 0 || s.pool.Phase() != sched.Running {
		return
	}
	s.goBackground(func() {
		for _, kind := range types {
			s.retryStore("reconcile resources of type "+kind, func() error { return u.reconcileType(kind) })
		}
	})
}

// reconcileType does the work of reconcileUnlistened for one type. A resource whose records are damaged is logged and
// left as it is. reconcileType returns an error only if the store fails.
func (u *upkeep) reconcileType(kind string) error {
	prefix := record.UnlistenedPrefix + kind + "/"
	for r, err := range u.sched.ledger.Store.List(u.sched.base, store.Query{Prefix: prefix}) {
		if err != nil {
			return err
		}
		if u.sched.draining() {
			return nil
		}
		k := record.Key{Type: kind, Name: strings.TrimPrefix(r.Key, prefix)}
		_, err := u.rerun(u.sched.base, k, record.Created, func(head *record.Resource) bool {
			return head.Pipeline == "" && head.Status.Phase == plan.Skipped
		})
		switch {
		case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict): // done, removed, or being deleted
		case ledger.Permanent(err):
			u.sched.log.Error("resource that no driver listened to cannot go on", "resource", text.Plain(k.String()), "error", err)
		default:
			return err
		}
	}
	return nil
}

// pruneEvery is the number of generations after which a resource is pruned even if none of its runs has ended.
const pruneEvery = 256

// prune arranges that the past of a resource is pruned as Options.Retention specifies. One goroutine prunes one
// resource after the other. It ends when no resource waits.
func (u *upkeep) prune(k record.Key) {
	if u.sched.opts.Retention == (Retention{}) {
		return
	}
	u.mu.Lock()
	u.pruneQueue[k] = struct{}{}
	begin := !u.pruning
	u.pruning = true
	u.mu.Unlock()
	if begin && !u.sched.goBackground(u.pruneAll) {
		u.mu.Lock()
		u.pruning = false
		u.mu.Unlock()
	}
}

// pruneAll prunes the resources that wait, until none is left.
func (u *upkeep) pruneAll() {
	for {
		k, ok := u.nextToPrune()
		if !ok {
			return
		}
		if err := u.sched.ledger.Prune(u.sched.base, k, ledger.Keep(u.sched.opts.Retention), time.Now()); err != nil {
			// The old records stay until the next run of the resource has ended.
			u.sched.log.Warn("old records cannot be removed", "resource", k.String(), "error", err)
		}
	}
}

// nextToPrune removes a resource from pruneQueue and returns it. If none is left or the scheduler has stopped, it
// returns false, and the goroutine that prunes must end.
func (u *upkeep) nextToPrune() (k record.Key, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k = range u.pruneQueue {
		break
	}
	if len(u.pruneQueue) == 0 || u.sched.pool.Phase() == sched.Stopped {
		u.pruning = false
		return k, false
	}
	delete(u.pruneQueue, k)
	return k, true
}

// alarm calls a function at a set time. Two calls of the function never overlap.
type alarm struct {
	work  func()
	start func(work func()) bool // runs work in a goroutine of its own; returns false if the alarm must stop

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

// armLocked sets the timer to the time at which the alarm rings.
func (a *alarm) armLocked() {
	left := max(time.Until(a.at), 0)
	if a.timer == nil {
		a.timer = time.AfterFunc(left, a.ring)
	} else {
		a.timer.Reset(left)
	}
}

// ring is called by the timer. It starts the work if the time has come.
func (a *alarm) ring() {
	a.mu.Lock()
	if a.busy || a.stopped || a.at.IsZero() {
		a.mu.Unlock()
		return
	}
	if time.Until(a.at) > 0 { // the timer was set for an earlier time
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
