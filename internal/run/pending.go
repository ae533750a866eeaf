package run

import (
	"fmt"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Preemption is the end of an active run, for the sake of the run that waits behind it.
type Preemption struct {
	Run  string
	Stop StopRequest
}

// toBeDeleted is why a run ends when its resource is to be deleted.
const toBeDeleted = "the resource is to be deleted"

// Preempt returns the end of the active run of a resource, if the run that waits behind it is not to wait for that end.
func Preempt(r *record.Resource) *Preemption {
	switch {
	case r.Active == "":
		return nil
	case r.Deleted != 0:
		return &Preemption{Run: r.Active, Stop: StopRequest{
			Gently: true, Kind: plan.StopCancel, Reason: toBeDeleted, Cause: fmt.Errorf("%w: %s", fault.Canceled, toBeDeleted),
		}}
	case r.Supersede:
		reason := fmt.Sprintf("generation %d came", r.Generation)
		return &Preemption{Run: r.Active, Stop: StopRequest{
			Gently: true, Kind: plan.StopSupersede, Reason: reason, Cause: fmt.Errorf("%w: %s", fault.Superseded, reason),
		}}
	}
	return nil
}

// promoteNext makes the second in line the first.
func (t *Transition) promoteNext() error {
	head := t.head
	head.Pending, head.Cause, head.FixedGeneration, head.Supersede = "", 0, 0, false
	if head.Queued == 0 {
		return nil
	}
	next, key, err := t.reader.NextPending(t.key)
	if err != nil {
		return err
	}
	head.Pending, head.Cause, head.FixedGeneration = next.Run, next.Cause, next.Generation
	head.Queued--
	t.extra = append(t.extra, store.Delete(key))
	return nil
}

// removePending takes a run out of the line that is not to begin.
func (t *Transition) removePending() error {
	if t.head.Pending == t.run.ID {
		w, err := t.reader.Target(t.key, t.head)
		if err != nil {
			return err
		}
		// It stays on record with what it stood for.
		t.rec.Generation, t.rec.Pipeline, t.rec.Cause = w.Generation, w.Pipeline, t.head.Cause
		return t.promoteNext()
	}
	if t.rec.Position != 0 {
		t.head.Queued--
		t.extra = append(t.extra, store.Delete(record.PendingKey(t.key, t.rec.Position)))
	}
	return nil
}
