package conveyor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// A resource whose pipeline says Resync is run again some time after a success. When that is stands in the resource's
// record and in an index that sorts by time, so that all the engine holds in memory is the time of the first of them.

// planResync notes when the resource of a run that has ended well is to be run again.
func (d *draft) planResync(end State) {
	if end != StateSucceeded || d.plan == nil || d.plan.Resync == 0 || d.head.Pending != "" || d.head.Deleted != 0 {
		return
	}
	d.head.Resync = d.now.after(time.Duration(d.plan.Resync))
	key := resyncKey(d.head.Resync, d.j.key)
	// A run that is over in the commit in which it begins takes back a due time, which is the same one if the run before
	// it has ended in this very instant.
	d.extra = slices.DeleteFunc(d.extra, func(op store.Op) bool { return op.Key() == key })
	d.extra = append(d.extra, store.Put(key, []byte("{}")))
}

// unplanResync takes that back, since another run comes first.
func (r *resourceRecord) unplanResync(k Key) []store.Op {
	if r.Resync == 0 {
		return nil
	}
	due := r.Resync
	r.Resync = 0
	return []store.Op{store.Delete(resyncKey(due, k))}
}

// expectResync has the loop look at the index when the time comes.
func (s *scheduler) expectResync(at instant) {
	s.mu.Lock()
	sooner := at != 0 && (s.resyncAt == 0 || at < s.resyncAt)
	if sooner {
		s.resyncAt = at
	}
	s.mu.Unlock()
	if sooner {
		s.wakeLoop()
	}
}

// startResyncLocked makes the runs that are due, one after the other, off the loop.
func (s *scheduler) startResyncLocked() {
	s.resyncAt, s.resyncing = 0, true
	s.aside.Go(func() {
		var next instant
		s.insist("resync", func() (err error) {
			next, err = s.resync()
			return err
		})
		s.mu.Lock()
		s.resyncing = false
		s.mu.Unlock()
		s.expectResync(next)
		s.wakeLoop()
	})
}

// resyncDue makes the runs that are due, and returns when the next one will be; 0 for never. What is damaged is left
// alone; an error is one of the store.
func (e *Engine) resyncDue() (next instant, err error) {
	for r, err := range e.ledger.store.List(e.sched.base, store.Query{Prefix: resyncPrefix}) {
		if err != nil {
			return 0, err
		}
		due, k, err := parseResyncKey(r.Key)
		if err == nil {
			switch {
			case due > toInstant(time.Now()):
				return due, nil
			case e.sched.draining():
				return 0, nil
			}
			err = e.resyncOne(e.sched.base, due, k)
		}
		switch {
		case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict): // gone, or on its way
		case beyondRepair(err), errors.Is(err, ErrInvalid):
			e.sched.log.Error("resource cannot be run again", "resource", k.String(), "error", err)
		default:
			return 0, err
		}
	}
	return 0, nil
}

// resyncOne makes one run, unless the pipeline no longer asks for it. Either way the index entry is gone afterwards.
func (e *Engine) resyncOne(ctx context.Context, due instant, k Key) error {
	head, rev, err := e.ledger.resource(ctx, k)
	if err != nil {
		return err
	}
	if head == nil || head.Resync != due {
		_, err := e.ledger.commit(ctx, []store.Op{store.Delete(resyncKey(due, k))})
		return err
	}
	pipeline, _, err := e.ledger.pipeline(ctx, head.Pipeline)
	switch {
	case err == nil && pipeline.Resync > 0 && pipeline.Resource == k.Type && head.Deleted == 0:
		_, err := e.rerun(ctx, k, CauseResync, func(head *resourceRecord) bool { return head.Resync == due })
		return err
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	}
	next := *head
	ops := next.unplanResync(k)
	ops = append(ops, store.Put(resourceKey(k), encode(&next)).If(rev))
	if _, err = e.ledger.commit(ctx, ops); errors.Is(err, store.ErrConflict) {
		return e.resyncOne(ctx, due, k)
	}
	return err
}

func parseResyncKey(key string) (due instant, k Key, err error) {
	parts := strings.Split(strings.TrimPrefix(key, resyncPrefix), "/")
	if len(parts) == 3 {
		_, err = fmt.Sscanf(parts[0], "%x", &due)
		k = Key{Type: parts[1], Name: parts[2]}
	}
	if len(parts) != 3 || err != nil {
		return 0, Key{}, fmt.Errorf("%w: key %s", store.ErrCorrupt, key)
	}
	return due, k, nil
}
