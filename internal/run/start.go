package run

import (
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// proceed starts the steps that can start, or ends the run. A step that a pause holds is recorded as blocked, unless the run
// stays as it is on record because it cannot begin.
func (t *Transition) proceed() error {
	if err := t.goOn(); err != nil || t.Idle() {
		return err
	}
	for _, h := range t.held {
		if !t.over && t.states[h.index] != plan.Running {
			t.block(h.index, h.why)
		}
	}
	return nil
}

// goOn starts the steps that can start, or ends the run.
func (t *Transition) goOn() error {
	if t.over {
		return nil
	}
	if t.full() {
		return nil // what follows from the changes is decided right after their commit
	}
	if t.plan == nil {
		if t.rec.Stop != plan.StopNone {
			return t.finish()
		}
		return nil
	}
	if t.rec.Copying {
		if err := t.keepRest(); err != nil || t.rec.Copying || t.full() {
			return err
		}
	}
	if t.late() {
		t.timeUp()
	}
	if t.rec.Outcome == plan.Unset && t.plan.Through(t.states, t.rec.Stop != plan.StopNone) {
		t.conclude()
	}
	starts, over := t.plan.Next(t.states, t.rec.Stop != plan.StopNone, t.rec.CutShort)
	if over {
		return t.finish()
	}
	if t.host.Draining() {
		return nil
	}
	for _, i := range starts {
		if t.full() {
			return nil
		}
		if ended := t.start(i); ended {
			return t.goOn()
		}
	}
	return nil
}

// start starts a step if the host grants what the step needs. Otherwise it records what the step waits for. It returns
// true if the step has ended instead.
func (t *Transition) start(i int) (ended bool) {
	step := t.plan.Step(i)
	if t.interruptedTooOften(i) {
		return true
	}
	if t.hasStray || t.holds(i) {
		return false
	}
	g := t.host.Start(step.Driver, t.plan.Finalize && !t.plan.Plans(i))
	switch {
	case g == Elsewhere:
		t.elsewhere = append(t.elsewhere, i)
		return false
	case g == NoDriver && t.member != nil:
		t.nowhere = append(t.nowhere, i) // whoever reads the run sees that no engine has the driver
		return false
	case g == NoDriver:
		t.block(i, Missing(step.Driver))
		return false
	}
	t.unblock(i)
	switch g {
	case NotNeeded:
		rec := t.step(i)
		rec.State, rec.Reason, rec.Ended = plan.Skipped, fmt.Sprintf("driver %q has nothing to finalize", step.Driver), t.now
		t.states[i] = plan.Skipped
		return true
	case NoWorker:
		t.needsWorker = true
	case Granted:
		t.resumeCleanup(i)
		t.starts = append(t.starts, i)
		rec := t.step(i)
		rec.Begin(t.now)
		rec.LogEpoch = t.run.LogEpoch
		t.states[i] = plan.Running
	}
	return false
}

// holds reports whether a pause keeps a step from starting. A step that has begun goes on to its end, and neither Finally nor
// a deletion is held.
func (t *Transition) holds(i int) bool {
	if !t.canBeHeld(i) || t.recorded(i).Called() {
		return false
	}
	why := t.host.Paused(t.rec.Pipeline, t.plan.Step(i).Driver)
	if why == "" {
		return false
	}
	t.paused = why
	t.held = append(t.held, heldStep{i, why})
	return true
}

// canBeHeld reports whether a step can be held by a pause: neither Finally nor a deletion can.
func (t *Transition) canBeHeld(i int) bool { return i < len(t.plan.Steps) && !t.plan.Finalize }

// block records that a step waits until something is corrected, unless this is on record already.
func (t *Transition) block(i int, reason string) {
	if was := &t.was(i).Rec; was.State == plan.Blocked && was.Reason == reason || t.full() {
		return
	}
	rec := t.step(i)
	rec.State, rec.Reason = plan.Blocked, reason // Due stays: cleanupClock needs it
	t.states[i] = plan.Blocked
}

// unblock reverses block. If the step still waits, it waits for something that comes by itself.
func (t *Transition) unblock(i int) {
	if t.was(i).Rec.State != plan.Blocked {
		return
	}
	rec := t.step(i)
	rec.State, rec.Reason = plan.Queued, ""
	t.states[i] = plan.Queued
}

// interruptedTooOften fails a step if the process has died too often during its attempts. Otherwise a step that kills
// the process would be called again for ever, and would take down the other runs of the process each time.
func (t *Transition) interruptedTooOften(i int) bool {
	limit := t.limits.Interruptions
	if t.was(i).Rec.Crashes <= limit {
		return false
	}
	rec := t.step(i)
	rec.State, rec.Ended, rec.Resumed, rec.Again, rec.Failure = plan.Failed, t.now, false, false, record.Failure{Class: fault.ClassError}
	rec.Reason = fmt.Sprintf("interrupted %d times by the death of the process, %s", rec.Crashes, text.MoreThan(limit, "Limits.Interruptions"))
	t.attempts = append(t.attempts, store.Put(record.AttemptKey(t.run.ID, t.stepID(i), rec.Attempt),
		record.Encode(&record.Attempt{Started: rec.Started, Ended: t.now, Error: rec.Reason, Kind: fault.KindInterrupt})))
	t.states[i] = plan.Failed
	return true
}

// Missing returns what must be registered before a step with this driver can start.
func Missing(driver string) string {
	if pipeline, planned := strings.CutPrefix(driver, plan.PlannerName("")); planned {
		return fmt.Sprintf("pipeline %q has a Planner, and this program has not saved it with one", pipeline)
	}
	return fmt.Sprintf("driver %q is not registered", driver)
}
