package run

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// MinDelay is the shortest time between the end of a call and a next call of the same step that an answer or a policy asks
// for. Each call costs a commit, so that a driver which wants to be called again at once would keep the store busy.
const MinDelay = 10 * time.Millisecond

// Outcome is the result of an attempt.
type Outcome struct {
	Step    int // position of the step
	Attempt int
	Kind    Kind
	Output  json.RawMessage // of Done
	Plan    *plan.Plan      // of Planned
	Reason  string          // of Skip and Halt; for Await, the name of the signal
	Delay   time.Duration   // of Requeue and Refused; for Await, the timeout, or 0 for none
	Failure *Failure        // of Failed
	Policy  retry.Policy    // of the step; it decides whether and when a failure is retried
	Ended   record.Time
	Stray   bool // the call was given up, and has not returned
}

// Kind is the kind of answer that a driver has given.
type Kind uint8

const (
	Done    Kind = iota
	Skip         // the step was not needed
	Halt         // the step is done, and the run needs no further step
	Requeue      // the driver must be called again after a delay
	Await        // the driver must be called again when a signal comes
	Refused      // the host had no capacity for the call, and the driver was not called
	Planned      // the steps of the run were planned
	Failed       // an error
	Cut          // an error after a shutdown or a newer generation has ended the call
)

// Failure is the error of an attempt, as it is recorded.
type Failure struct {
	Text      string
	Kind      fault.Kind   // the first one
	AlsoKinds []fault.Kind // the others
	Field     *fault.Field // the first fault of a field in the error; nil if there is none
	Stack     string       // of a panic
	Frame     string       // of a panic: the first frame of the code of the program
	Class     fault.Class
	Code      string         // one of few values, which the driver has given
	Permanent bool           // no attempt can succeed
	After     *time.Duration // delay before the next attempt; nil for the delay of the policy
}

// recordOutcome records the outcome of an attempt. An attempt that failed gets a record of its own, and the oldest of
// these records is removed if there are too many.
func (t *Transition) recordOutcome(o *Outcome) error {
	rec := t.step(o.Step)
	o.Ended = min(o.Ended, t.now) // the clock can have been set back since
	failed := o.apply(rec, t.stopOf(o.Step), t.limits.ErrorText)
	id := t.stepID(o.Step)
	if t.lines != nil {
		rec.Lines = t.lines.Kept(id)
	}
	t.states[o.Step] = rec.State
	if failed != nil {
		t.attempts = append(t.attempts, store.Put(record.AttemptKey(t.run.ID, id, o.Attempt), record.Encode(failed)))
	}
	if old := o.Attempt - t.limits.Attempts; old > 0 && (failed != nil || rec.State.Final()) {
		t.attempts = append(t.attempts, store.Delete(record.AttemptKey(t.run.ID, id, old)))
	}
	if o.Kind == Halt && !t.plan.Finalize { // a deletion needs its other finalizers all the same
		rec.Halted = true
		if t.rec.Stop == plan.StopNone {
			t.rec.Stop, t.rec.StopReason, t.rewrite = plan.StopHalt, rec.Reason, true
		}
	}
	if err := t.noteStray(o); err != nil || o.Kind != Planned {
		return err
	}
	return t.addPlannedSteps(o.Plan)
}

// apply changes the record of a step by an outcome, and returns the record of the attempt if the attempt failed.
// Nothing else decides what an answer of a driver means.
func (o *Outcome) apply(s *record.Step, stop plan.Stop, errorText int) *record.Attempt {
	ended := o.Ended
	if o.Kind == Refused {
		// The driver was not called. Its next call must still tell it what this call would have told it.
		s.State, s.Again, s.Reason, s.Refused = plan.Waiting, true, "waits for capacity of the host", true
		o.sleep(s, o.Delay)
		return nil
	}
	s.Resumed, s.Again, s.Reason = false, false, ""
	s.WaitFor(0, 0)
	if o.Kind != Cut {
		s.Failure = record.Failure{}
	}
	switch o.Kind {
	case Cut:
		s.Interrupt()
		return nil
	case Failed:
		return o.fail(s, stop, errorText)
	case Requeue:
		s.State, s.Again = plan.Waiting, true
		o.sleep(s, o.Delay)
		s.Settled = s.Attempt - 1
		s.Requeues++
		s.Reason = "the driver asked to be called again"
		return nil
	}
	s.Signal, s.SignalFrom, s.TimedOut = nil, nil, false
	if o.Kind == Await {
		o.await(s)
		return nil
	}
	s.State, s.Ended, s.Output, s.Reason = plan.Succeeded, ended, o.Output, text.Truncate(o.Reason, errorText)
	if o.Kind == Skip {
		s.State = plan.Skipped
	}
	return nil
}

// sleep makes a step wait for d after the call, and for MinDelay at least.
func (o *Outcome) sleep(s *record.Step, d time.Duration) { s.WaitFor(o.Ended, max(d, MinDelay)) }

// fail changes the record of a step by a failure, and returns the record of the attempt.
func (o *Outcome) fail(s *record.Step, stop plan.Stop, errorText int) *record.Attempt {
	f, ended := o.Failure, o.Ended
	s.Reason = text.Truncate(f.Text, errorText)
	s.Failure = record.Failure{Class: f.Class, Code: f.Code}
	failed := &record.Attempt{
		Started: s.Started, Ended: ended, Error: s.Reason, Kind: f.Kind, AlsoKinds: f.AlsoKinds, Field: f.Field, Stack: f.Stack, Frame: f.Frame, Code: f.Code,
	}
	switch {
	case stop == plan.StopCancel || stop == plan.StopSupersede:
		s.State, s.Ended = plan.Canceled, ended
	case f.Permanent, stop != plan.StopNone, o.Policy.Exhausted(s.Attempt - s.Settled):
		s.State, s.Ended = plan.Failed, ended
	default:
		delay := o.Policy.Delay(s.Attempt - s.Settled)
		if f.After != nil {
			delay = *f.After
		}
		s.State = plan.Retrying
		o.sleep(s, delay)
	}
	return failed
}

// maxWaits is the largest number of waits for signals that are kept of a step.
const maxWaits = 32

// await makes the step wait for a signal.
func (o *Outcome) await(s *record.Step) {
	ended := o.Ended
	s.State, s.Again, s.Await, s.Settled = plan.Waiting, true, o.Reason, s.Attempt-1
	s.Reason = "waits for signal " + s.Await
	if o.Delay > 0 {
		o.sleep(s, o.Delay)
	}
	s.Waits = append(slices.Clone(s.Waits), record.Wait{Signal: s.Await, From: ended})
	if more := len(s.Waits) - maxWaits; more > 0 {
		s.Waits = s.Waits[more:]
	}
}
