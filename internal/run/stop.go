package run

import (
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
)

// requestStop makes the steps end or, if the steps have ended, the Finally steps.
func (t *Transition) requestStop(r *StopRequest) {
	if t.rec.Outcome == plan.Succeeded && t.plan.Finalize {
		return // the removal of the resource has begun; see removeFirst
	}
	if r.Gently && (t.rec.Outcome != plan.Unset || t.rec.Stop != plan.StopNone) {
		return
	}
	if t.rec.Outcome != plan.Unset {
		t.stop = r.Cause
		t.rec.StopBy = r.By
		t.cutShort(plan.StopCancel, r.Reason, strings.TrimSuffix("the cleanup was canceled: "+r.Reason, ": "))
		return
	}
	if t.rec.Stop == plan.StopCancel {
		return
	}
	t.rec.Stop, t.rec.StopReason, t.rewrite = r.Kind, text.Truncate(r.Reason, t.limits.ErrorText), true
	t.rec.StopBy = r.By
	t.stop = r.Cause
}

// stopOf returns why a failed step is not retried, or StopNone if the step can be retried. If the time of the run is
// up, stopOf returns StopTimeout before this is on record: goOn records it unless the steps turn out to be done.
func (t *Transition) stopOf(i int) plan.Stop {
	switch {
	case i < len(t.plan.Steps) && t.rec.Stop != plan.StopNone:
		return t.rec.Stop
	case t.late():
		return plan.StopTimeout
	case i >= len(t.plan.Steps) && t.rec.CutShort:
		return plan.StopCancel
	}
	return plan.StopNone
}

// late reports whether the deadline of the run has passed. The deadline of Finally stands still while Finally waits to be
// called.
func (t *Transition) late() bool {
	if t.rec.Deadline == 0 || t.now < t.rec.Deadline {
		return false
	}
	return t.rec.Outcome == plan.Unset || t.cleanupClock() >= t.rec.Deadline
}

// cleanupClock returns the time up to which the time of Finally has been counted. It is now while a step of Finally is
// called or waits for something of its own making: a retry, a requeue or a signal. It stands still while the step waits
// to be called: for a worker, a slot, a driver, capacity of the host, or the next start of the process.
func (t *Transition) cleanupClock() record.Time {
	for i := len(t.plan.Steps); i < len(t.states); i++ {
		switch state := t.states[i]; {
		case state.Final():
			continue
		case state == plan.Running:
			return t.now
		case state == plan.Retrying || state == plan.Waiting:
			if was := &t.was(i).Rec; was.Refused && was.State == plan.Waiting {
				return was.Started
			}
			return t.now
		}
		return t.calledFor(i)
	}
	return t.now
}

// calledFor returns the time since which a step of Finally that can start has been waiting to be called.
func (t *Transition) calledFor(i int) record.Time {
	rec := &t.was(i).Rec
	switch {
	case rec.Refused, rec.Resumed: // the call was not made, or has no outcome and is made again with the time that it had
		return rec.Started
	case rec.Due != 0 && rec.Due <= t.now: // a retry, a requeue, or the timeout of a wait
		return rec.Due
	case rec.Attempt > 0: // a signal came
		if n := len(rec.Waits); n > 0 && rec.Waits[n-1].To != 0 {
			return rec.Waits[n-1].To
		}
		return t.now
	case i > len(t.plan.Steps):
		return t.recorded(i - 1).Ended
	}
	return t.rec.Deadline - record.Time(t.plan.Timeout)
}

// resumeCleanup moves the deadline of Finally by the time for which step i has waited to be called.
func (t *Transition) resumeCleanup(i int) {
	if i < len(t.plan.Steps) || t.rec.Deadline == 0 {
		return
	}
	if waited := t.now - t.calledFor(i); waited != 0 { // it is negative if the clock was set back in the meantime
		t.rec.Deadline, t.rewrite = t.rec.Deadline+waited, true
	}
}

// timeUp ends the steps, unless they are done. If the steps have ended, timeUp ends the Finally steps, whose deadline
// is their own.
func (t *Transition) timeUp() {
	switch {
	case t.rec.Outcome != plan.Unset:
		if _, done := t.plan.NextOfFinally(t.states, false); !done {
			late := fmt.Sprintf("the cleanup took longer than %s", t.plan.Timeout)
			t.cutShort(plan.StopTimeout, late, late)
		}
	case t.rec.Stop == plan.StopNone && !t.plan.Succeeded(t.states):
		t.rec.Stop, t.rec.StopReason, t.rewrite = plan.StopTimeout, fmt.Sprintf("the run took longer than %s", t.plan.Timeout), true
	}
}

// cutShort ends the Finally steps. If the steps have succeeded, this stops the whole run, for the given reason.
// Otherwise the reason of the run says beside its own what became of the cleanup.
func (t *Transition) cutShort(kind plan.Stop, reason, beside string) {
	if t.rec.CutShort {
		return
	}
	t.rec.CutShort, t.rewrite = true, true
	switch {
	case t.rec.Outcome == plan.Succeeded:
		t.rec.Stop, t.rec.StopReason = kind, text.Truncate(reason, t.limits.ErrorText)
	case t.rec.Reason == "":
		t.rec.Reason = text.Truncate(beside, t.limits.ErrorText)
	default:
		t.rec.Reason = text.Truncate(t.rec.Reason+"; "+beside, t.limits.ErrorText)
	}
}
