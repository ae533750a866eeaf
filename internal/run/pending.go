package run

import (
	"fmt"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Preemption is how an active run is ended for the sake of the run that waits behind it.
type Preemption struct {
	Run  string
	Stop StopRequest
}

// toBeDeleted is the reason of a run that ends because its resource is to be deleted.
const toBeDeleted = "the resource is to be deleted"

// Preempt returns how the active run of a resource must be ended, or nil if the pending run waits for the end of the
// active run.
func Preempt(r *record.Resource) *Preemption {
	switch {
	case r.Active == "":
		return nil
	case r.Deleted != 0:
		return &Preemption{Run: r.Active, Stop: StopRequest{
			Gently: true, Kind: plan.StopCancel, By: r.UpdatedBy, Reason: toBeDeleted, Cause: fmt.Errorf("%w: %s", fault.Canceled, toBeDeleted),
		}}
	case r.Supersede:
		reason := fmt.Sprintf("generation %d came", r.Generation)
		return &Preemption{Run: r.Active, Stop: StopRequest{
			Gently: true, Kind: plan.StopSupersede, By: r.UpdatedBy, Reason: reason, Cause: fmt.Errorf("%w: %s", fault.Superseded, reason),
		}}
	}
	return nil
}

// promoteNext makes the run behind the first pending run the first pending run.
func (t *Transition) promoteNext() error {
	head := t.head
	head.Pending, head.Cause, head.FixedGeneration, head.Lane, head.Supersede, head.Change = "", 0, 0, "", false, nil
	if head.Queued == 0 {
		return nil
	}
	next, key, err := t.reader.NextPending(t.key)
	if err != nil {
		return err
	}
	head.Pending, head.Cause, head.FixedGeneration, head.Lane = next.Run, next.Cause, next.Generation, next.Lane
	head.Queued--
	t.extra = append(t.extra, store.Delete(key))
	return nil
}

// removePending removes a run that ends without having begun from the pending runs of the resource. It changes nothing if
// the run is not among them, which is possible only beside a damaged record.
func (t *Transition) removePending() error {
	if t.head.Pending == t.run.ID {
		w, err := t.reader.Target(t.key, t.head)
		if err != nil {
			return err
		}
		// The record of the run shows the generation that the run would have taken up.
		t.rec.Generation, t.rec.Pipeline, t.rec.Cause = w.Generation, w.Pipeline, t.head.Cause
		t.takeOrigin()
		return t.promoteNext()
	}
	if t.rec.Position == 0 {
		return nil
	}
	if waits, err := t.reader.IsPending(t.run.ID, &t.rec); err != nil || !waits {
		return err
	}
	t.head.Queued = max(t.head.Queued-1, 0) // it is 0 already if the record of the resource is damaged
	t.extra = append(t.extra, store.Delete(record.PendingKey(t.key, t.rec.Position)))
	return nil
}
