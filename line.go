package conveyor

import (
	"context"
	"errors"
	"fmt"

	"github.com/conveyor-go/conveyor/store"
)

// The runs of a resource that have not begun stand in a line: Pending first, and behind it those that have a
// queueRecord. The line is longer than one run where the policy is queue. The last in line stands for the newest
// generation.

// keeps says that the last run in line keeps its generation, so that a newer one needs a run of its own.
func (r *resourceRecord) keeps() bool { return r.Keeps != 0 || r.Queued > 0 }

// lineUp puts a new run at the end of the line, and returns what must be written for that.
func (r *resourceRecord) lineUp(k Key, id string, rec *runRecord, keep bool) []store.Op {
	if r.Pending == "" {
		r.Pending, r.Cause, r.Keeps = id, rec.Cause, 0
		if keep {
			r.Keeps = rec.Generation
		}
		return nil
	}
	if r.Keeps == 0 {
		r.Keeps = rec.Generation - 1 // up to here it took up what came
	}
	r.Queued++
	r.LastPlace++
	rec.Place = r.LastPlace
	place := &queueRecord{Run: id, Generation: rec.Generation, Cause: rec.Cause}
	return []store.Op{store.Put(queueKey(k, rec.Place), encode(place)).IfAbsent()}
}

// moveUp makes the second in line the first.
func (d *draft) moveUp() error {
	head := d.head
	head.Pending, head.Cause, head.Keeps, head.Supersede = "", 0, 0, false
	if head.Queued == 0 {
		return nil
	}
	next, key, err := d.s.ledger.secondInLine(d.s.base, d.j.Key)
	if err != nil {
		return err
	}
	head.Pending, head.Cause, head.Keeps = next.Run, next.Cause, next.Generation
	head.Queued--
	d.extra = append(d.extra, store.Delete(key))
	return nil
}

// leaveLine takes a run out of the line that is not to begin.
func (d *draft) leaveLine() error {
	if d.head.Pending == d.j.ID {
		w, err := d.s.ledger.takesUp(d.s.base, d.j.Key, d.head)
		if err != nil {
			return err
		}
		// It stays on record with what it stood for.
		d.rec.Generation, d.rec.Pipeline, d.rec.Cause = w.generation, w.pipeline, d.head.Cause
		return d.moveUp()
	}
	if d.rec.Place != 0 {
		d.head.Queued--
		d.extra = append(d.extra, store.Delete(queueKey(d.j.Key, d.rec.Place)))
	}
	return nil
}

// standsInLine says that a queued run waits behind another one that does.
func (l *ledger) standsInLine(ctx context.Context, rec *runRecord) (bool, error) {
	if rec.Place == 0 {
		return false, nil
	}
	_, err := l.store.Get(ctx, queueKey(rec.key(), rec.Place))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// secondInLine returns the run that comes after the pending one, and the key of its record.
func (l *ledger) secondInLine(ctx context.Context, k Key) (*queueRecord, string, error) {
	for r, err := range l.store.List(ctx, store.Query{Prefix: queueOf(k), Limit: 1}) {
		if err != nil {
			return nil, "", err
		}
		next := new(queueRecord)
		return next, r.Key, decode(r, next)
	}
	return nil, "", fmt.Errorf("%w: resource %s has a run in line that is not on record", store.ErrCorrupt, k)
}

// target is what a run takes up when it begins.
type target struct {
	generation int64
	pipeline   string
	metadata   map[string]string
	version    int64
	updated    instant
	spec       []byte
}

// wants is the newest generation of a resource.
func (r *resourceRecord) wants(spec []byte) *target {
	return &target{
		generation: r.Generation, pipeline: r.Pipeline, metadata: r.Metadata, version: r.Version, updated: r.Updated, spec: spec,
	}
}

// takesUp returns what the pending run of a resource stands for.
func (l *ledger) takesUp(ctx context.Context, k Key, head *resourceRecord) (*target, error) {
	generation := head.Generation
	if head.Keeps != 0 {
		generation = head.Keeps
	}
	revision, err := l.revision(ctx, k, generation)
	if err != nil {
		return nil, err
	}
	if generation == head.Generation {
		return head.wants(revision.Spec), nil // with the metadata as they are now
	}
	return &target{
		generation: generation, pipeline: revision.Pipeline, metadata: revision.Metadata, version: revision.Version,
		updated: revision.At, spec: revision.Spec,
	}, nil
}
