package run

import (
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/text"
)

// requestStop makes the steps end or, if the steps have ended, the Finally steps.
func (t *Transition) requestStop(r *StopRequest) {
	if r.Gently && (t.rec.Outcome != plan.Unset || t.rec.Stop != plan.StopNone) {
		return
	}
	if t.rec.Outcome != plan.Unset {
		t.stop = r.Cause
		t.cutShort(plan.StopCancel, r.Reason)
		return
	}
	if t.rec.Stop == plan.StopCancel {
		return
	}
	t.rec.Stop, t.rec.StopReason, t.rewrite = r.Kind, text.Truncate(r.Reason, t.limits.ErrorText), true
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

// late reports whether the deadline of the run has passed.
func (t *Transition) late() bool { return t.rec.Deadline != 0 && t.now >= t.rec.Deadline }

// timeUp ends the steps, unless they are done. If the steps have ended, timeUp ends the Finally steps, whose deadline
// is their own.
func (t *Transition) timeUp() {
	switch {
	case t.rec.Outcome != plan.Unset:
		if _, done := t.plan.NextOfFinally(t.states, false); !done {
			t.cutShort(plan.StopTimeout, fmt.Sprintf("the cleanup took longer than %s", t.plan.Timeout))
		}
	case t.rec.Stop == plan.StopNone && !t.plan.Succeeded(t.states):
		limit := time.Duration(t.rec.Deadline - t.rec.Started)
		t.rec.Stop, t.rec.StopReason, t.rewrite = plan.StopTimeout, fmt.Sprintf("the run took longer than %s", limit), true
	}
}

// cutShort ends the Finally steps. If the steps have succeeded, this stops the whole run.
func (t *Transition) cutShort(kind plan.Stop, reason string) {
	if t.rec.CutShort {
		return
	}
	t.rec.CutShort, t.rewrite = true, true
	if t.rec.Outcome == plan.Succeeded {
		t.rec.Stop, t.rec.StopReason = kind, text.Truncate(reason, t.limits.ErrorText)
	}
}
