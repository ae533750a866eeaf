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
	"github.com/conveyor-go/conveyor/store"
)

// upkeep does what nobody has called for: it runs resources again that are due, removes old records, and reconciles the
// resources that no driver had listened to. It is made by [New] and told by the scheduler.
type upkeep struct {
	sched *scheduler
	// rerun makes a run of an unchanged resource, if wanted reports true of its record.
	rerun func(ctx context.Context, k record.Key, cause record.Cause, wanted func(*record.Resource) bool) (*Run, error)

	resync alarm // rings when a resource is to be run again

	mu         sync.Mutex              // guards what follows
	pruneQueue map[record.Key]struct{} // resources whose past is to be looked through
	pruning    bool                    // somebody is at it
}

func newUpkeep(e *Engine) *upkeep {
	u := &upkeep{sched: e.sched, rerun: e.rerun, pruneQueue: map[record.Key]struct{}{}}
	u.resync.work = u.resyncAll
	u.resync.start = func(work func()) bool {
		return !e.sched.draining() && e.sched.goBackground(work)
	}
	return u
}

// start has what is due found out.
func (u *upkeep) start() { u.resync.set(time.Now()) }

func (u *upkeep) stop() { u.resync.stop() }

// resyncAt has the index of resources that are to be run again looked at when the time comes; 0 for never.
func (u *upkeep) resyncAt(at record.Time) {
	if at != 0 {
		u.resync.set(at.Time())
	}
}

// resyncAll makes the runs that are due, one after the other.
func (u *upkeep) resyncAll() {
	var next record.Time
	u.sched.retryStore("resync", func() (err error) {
		next, err = u.resyncDue()
		return err
	})
	u.resyncAt(next)
}

// resyncDue makes the runs that are due, and returns when the next one will be; 0 for never. What is damaged is left
// alone; an error is one of the store.
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
		case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict): // gone, or on its way
		case ledger.Permanent(err), errors.Is(err, ErrInvalid):
			u.sched.log.Error("resource cannot be run again", "resource", k.String(), "error", err)
		default:
			return 0, err
		}
	}
	return 0, nil
}

// resyncOne makes one run, unless the pipeline no longer asks for it. Either way the index entry is gone afterwards.
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

// reconcileUnlistened makes runs for the resources of these types that no driver listened to when their run came.
func (u *upkeep) reconcileUnlistened(types ...string) {
	s := u.sched
	if len(types) == 0 || s.pool.Phase() != sched.Running {
		return
	}
	s.goBackground(func() {
		for _, kind := range types {
			s.retryStore("listen to "+kind, func() error { return u.reconcileType(kind) })
		}
	})
}

// reconcileType makes runs for the resources of one type that no driver had listened to. What is damaged is left alone; an error is one of the store.
func (u *upkeep) reconcileType(kind string) error {
	prefix := record.UnheardPrefix + kind + "/"
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
		case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict): // gone, or on its way
		case ledger.Permanent(err):
			u.sched.log.Error("resource that no driver listened to cannot go on", "resource", k.String(), "error", err)
		default:
			return err
		}
	}
	return nil
}

// tidyEvery is after how many generations the past of a resource is looked through, if no run of it has ended meanwhile.
const pruneEvery = 256

// prune has the past of a resource looked through, one resource after the other, by a goroutine that is there while
// there is something to do.
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

func (u *upkeep) pruneAll() {
	for {
		k, ok := u.nextToPrune()
		if !ok {
			return
		}
		if err := u.sched.ledger.Prune(u.sched.base, k, ledger.Keep(u.sched.opts.Retention), time.Now()); err != nil {
			// What is too much stays until the next run of the resource ends.
			u.sched.log.Warn("old records cannot be removed", "resource", k.String(), "error", err)
		}
	}
}

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

// alarm has work done at a time. The work is done once at a time, never twice side by side.
type alarm struct {
	work  func()
	start func(work func()) bool // runs work in a goroutine of its own; reports false if no work is wanted any more

	mu      sync.Mutex // guards what follows
	at      time.Time  // when the alarm rings; zero for never
	timer   *time.Timer
	busy    bool // work is being done
	stopped bool
}

// set has the alarm ring at a time, unless it rings sooner.
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

func (a *alarm) armLocked() {
	left := max(time.Until(a.at), 0)
	if a.timer == nil {
		a.timer = time.AfterFunc(left, a.ring)
	} else {
		a.timer.Reset(left)
	}
}

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

func (a *alarm) do() {
	a.work()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy = false
	if !a.at.IsZero() && !a.stopped {
		a.armLocked()
	}
}

// stop has the alarm ring no more. Work that is being done goes on.
func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
