package run

import (
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/text"
)

// requestStop ends the steps or, if those have ended, the cleanup.
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

// stopOf tells why a step shall not be tried again, if that is so. A time that is up is recorded by goOn, unless the
// steps turn out to be done.
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

// late says that the run has had its time.
func (t *Transition) late() bool { return t.rec.Deadline != 0 && t.now >= t.rec.Deadline }

// timeUp ends the steps, unless they are done, or the cleanup, which has had a time of its own.
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

// cutShort ends the cleanup. That is a stop of the whole run if the steps had succeeded.
func (t *Transition) cutShort(kind plan.Stop, reason string) {
	if t.rec.CutShort {
		return
	}
	t.rec.CutShort, t.rewrite = true, true
	if t.rec.Outcome == plan.Succeeded {
		t.rec.Stop, t.rec.StopReason = kind, text.Truncate(reason, t.limits.ErrorText)
	}
}
