package run

import (
	"fmt"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// conclude records how the steps have ended. The Finally steps cannot make this outcome better.
func (t *Transition) conclude() {
	end, failed := t.plan.Outcome(t.states, t.rec.Stop)
	reason := ""
	if t.rec.Stop != plan.StopNone {
		reason = t.rec.StopReason
	}
	if failed >= 0 {
		why := t.failed(failed)
		if t.rec.Stop != plan.StopTimeout {
			reason = why
		}
	}
	t.rec.Outcome, t.rec.Reason, t.rewrite = end, reason, true
	if len(t.plan.Finally) == 0 {
		return
	}
	t.rec.Concluded = t.now
	if t.plan.Timeout > 0 {
		t.rec.Deadline = t.now.Add(time.Duration(t.plan.Timeout))
	}
}

// failed records which step made the run fail, and returns the reason of the run.
func (t *Transition) failed(i int) (reason string) {
	step := t.plan.Step(i)
	t.rec.FailedStep = step.ID
	if t.rec.Failure = t.recorded(i).Failure; t.rec.Failure.Class == fault.ClassNone { // recorded by an earlier version
		t.rec.Failure.Class = fault.ClassFailure
	}
	return text.Truncate(fmt.Sprintf("step %s (driver %s): %s", step.ID, step.Driver, t.recorded(i).Reason), t.limits.ErrorText)
}

// finish ends the run with the state that follows from its steps and its stop.
func (t *Transition) finish() error {
	if t.plan == nil { // the run never began
		end := plan.Canceled
		if t.rec.Stop == plan.StopSupersede {
			end = plan.Superseded
		}
		return t.finishWith(end, t.rec.StopReason)
	}
	end, reason := t.rec.Outcome, t.rec.Reason
	if end == plan.Succeeded {
		end, reason = t.afterCleanup()
	}
	return t.finishWith(end, reason)
}

// afterCleanup returns how a run ends whose steps have succeeded. A failed Finally step makes such a run fail.
func (t *Transition) afterCleanup() (end plan.State, reason string) {
	end, reason = plan.Succeeded, t.rec.Reason
	if i := t.plan.FailedCleanup(t.states); i >= 0 {
		end, reason = plan.Failed, t.failed(i)
	}
	switch {
	case t.rec.CutShort && t.rec.Stop == plan.StopCancel:
		return plan.Canceled, t.rec.StopReason
	case t.rec.CutShort:
		return plan.Failed, t.rec.StopReason
	}
	return end, reason
}

// finishWith ends the run with a state and a reason, and takes the run off the record of its resource.
func (t *Transition) finishWith(end plan.State, reason string) error {
	if err := t.readResource(); err != nil {
		return err
	}
	if t.plan == nil && t.head != nil { // the end of a run that has begun is noted in any case; see Rewritable
		if err := record.Rewritable(t.head.Needs); err != nil {
			return err
		}
	}
	room := t.removals()
	var revisions []string
	remove := t.removesResource(end)
	if remove {
		var err error
		if revisions, err = t.reader.RevisionKeys(t.key); err != nil {
			return err
		}
		if len(revisions) > room {
			t.removeFirst(revisions, room)
			return nil
		}
	}
	if err := t.deleteLeftovers(room - len(revisions)); err != nil {
		return err
	}
	t.over, t.rewrite = true, true
	t.rec.State, t.rec.Ended, t.rec.Reason = end, t.now, reason
	t.classify(end)
	if t.plan == nil {
		t.rec.Started = 0 // a run without steps has not begun
	}
	head := t.head
	if head == nil || head.ID != t.rec.ResourceID {
		t.head = nil
		return nil
	}
	if head.Active == t.run.ID {
		head.Active = ""
	}
	if !t.begun && t.run.Rec.State == plan.Queued {
		if err := t.removePending(); err != nil {
			return err
		}
	}
	if head.Status.Run == t.run.ID {
		head.Status.Phase, head.Status.Message = end, ""
		if end != plan.Succeeded {
			head.Status.Message = reason
		}
	}
	if remove {
		t.remove(revisions)
		return nil
	}
	head.Status.ObservedGeneration = max(head.Status.ObservedGeneration, t.rec.Generation)
	t.planResync(end)
	return nil
}

// classify records of which kind the failure of a run is that ends. The failure of a run that a step made fail is that of
// the step.
func (t *Transition) classify(end plan.State) {
	switch {
	case end == plan.Succeeded:
		t.rec.Failure = record.Failure{}
	case end == plan.Skipped:
		t.rec.Failure = record.Failure{Class: fault.ClassSkip}
	case end == plan.Canceled, end == plan.Superseded:
		t.rec.Failure = record.Failure{Class: fault.ClassCancellation}
	case t.rec.Stop == plan.StopTimeout:
		t.rec.Failure = record.Failure{Class: fault.ClassTimeout}
	case t.rec.FailedStep == "":
		t.rec.Failure = record.Failure{Class: fault.ClassError}
	}
}

// deleteLeftovers removes the checkpoints and signals of the run in the commit in which the run ends, up to a number of them.
// What one commit cannot remove is removed after the commit.
func (t *Transition) deleteLeftovers(most int) error {
	if !t.mayHaveLeftovers {
		return nil
	}
	keys, more, err := t.reader.Leftovers(t.run.ID)
	if err != nil {
		return err
	}
	if len(keys) > most {
		keys, more = keys[:most], true
	}
	t.leftovers = more
	for _, key := range keys {
		if !t.removes(key) {
			t.extra = append(t.extra, store.Delete(key))
		}
	}
	return nil
}

// planResync records when the resource is run again after a run that has succeeded.
func (t *Transition) planResync(end plan.State) {
	if end != plan.Succeeded || t.plan == nil || t.plan.Resync == 0 || t.head.Pending != "" || t.head.Deleted != 0 {
		return
	}
	delay := max(time.Duration(t.plan.Resync), MinDelay)
	t.head.Resync = t.now.Add(delay)
	key := record.ResyncKey(t.head.Resync, t.key)
	// A run that begins and ends in one commit cancels the resync that was planned before. If the previous run has ended
	// at the same timestamp, the canceled resync and the new one have the same key.
	t.extra = slices.DeleteFunc(t.extra, func(op store.Op) bool { return op.Key() == key })
	t.extra = append(t.extra, store.Put(key, record.Encode(record.Resync{Delay: delay})))
}

// removesResource reports whether the resource is removed if the run ends in this way.
func (t *Transition) removesResource(end plan.State) bool {
	return t.plan != nil && t.plan.Finalize && end == plan.Succeeded && t.head != nil && t.head.ID == t.rec.ResourceID
}

// remove removes the resource and its revisions. A tombstone keeps the generation, so that a later resource of the same
// name goes on from it.
func (t *Transition) remove(revisions []string) {
	k := t.key
	t.removed = true
	t.extra = append(t.extra, store.Put(record.TombstoneKey(k), record.Encode(&record.Tombstone{Generation: t.head.Generation, LastRun: t.head.LastRun})), store.Delete(record.UnlistenedKey(k)))
	for _, key := range revisions {
		t.extra = append(t.extra, store.Delete(key))
	}
}

// removeFirst removes the first of more revisions than one commit can remove, and leaves the end of the run to a later
// transition. The resource and its newest generation, which the run has pinned and which is the last one, stay until then, so that
// the next process continues the run if this one ends.
func (t *Transition) removeFirst(revisions []string, most int) {
	t.more, t.removing = true, true
	if !t.begun {
		t.head = nil // it does not change yet
	}
	for _, key := range revisions[:most] {
		t.extra = append(t.extra, store.Delete(key))
	}
}
