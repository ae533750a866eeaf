package conveyor

import (
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// The runs of a resource that have not begun stand in a line: Pending first, and behind it those that have a
// queueRecord. The line is longer than one run where the policy is queue. The last in line stands for the newest
// generation.

// moveUp makes the second in line the first.
func (d *draft) moveUp() error {
	head := d.head
	head.Pending, head.Cause, head.Keeps, head.Supersede = "", 0, 0, false
	if head.Queued == 0 {
		return nil
	}
	next, key, err := d.s.ledger.NextPending(d.s.base, d.j.Key)
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
		w, err := d.s.ledger.Target(d.s.base, d.j.Key, d.head)
		if err != nil {
			return err
		}
		// It stays on record with what it stood for.
		d.rec.Generation, d.rec.Pipeline, d.rec.Cause = w.Generation, w.Pipeline, d.head.Cause
		return d.moveUp()
	}
	if d.rec.Place != 0 {
		d.head.Queued--
		d.extra = append(d.extra, store.Delete(record.PendingKey(d.j.Key, d.rec.Place)))
	}
	return nil
}
