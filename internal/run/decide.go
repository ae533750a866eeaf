package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

func (t *Transition) readStates(steps []record.StepState) {
	t.blankStates(len(steps))
	for i := range steps {
		rec := &steps[i].Rec
		t.states[i] = rec.State
		if (rec.State == plan.Retrying || rec.State == plan.Waiting && rec.Await == "") && rec.Due <= t.now {
			t.states[i] = plan.Queued
		}
	}
}

// blankStates begins with so many steps, none of which has begun.
func (t *Transition) blankStates(n int) {
	t.states = slices.Grow(t.states[:0], n)[:n]
	clear(t.states)
}

// step returns the draft's copy of a step's record, to be changed. It is good until the next step is asked for.
func (t *Transition) step(i int) *record.Step {
	for k := range t.steps {
		if t.steps[k].index == i {
			return &t.steps[k].rec
		}
	}
	t.steps = append(t.steps, stepChange{index: i, rec: t.was(i).Rec})
	return &t.steps[len(t.steps)-1].rec
}

// was returns what is on record of a step, to be read; nothing of one that is pinned in this draft.
func (t *Transition) was(i int) *record.StepState {
	if t.begun || t.extended && i > 0 {
		return new(record.StepState)
	}
	return &t.run.Steps[i]
}

// recordOutcome takes up the outcome of an attempt.
func (t *Transition) recordOutcome(o *Outcome) error {
	rec := t.step(o.Step)
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
	if o.Kind == Halt && t.rec.Stop == plan.StopNone {
		t.rec.Stop, t.rec.StopReason, t.rewrite = plan.StopHalt, rec.Reason, true
	}
	if o.Kind == Planned {
		return t.extend(o.Plan)
	}
	return nil
}

// deliver gives signals that have come to the steps that wait for them, and wakes those that have waited in vain. A
// signal leaves the store in the commit that gives it to a step.
func (t *Transition) deliver() error {
	for i, state := range t.states {
		if state != plan.Waiting || t.recorded(i).Await == "" {
			continue
		}
		payload, err := t.takeSignal(t.recorded(i).Await)
		if err != nil {
			return err
		}
		if due := t.recorded(i).Due; payload != nil || due != 0 && due <= t.now {
			t.step(i).WakeUp(t.now, payload)
			t.states[i] = plan.Queued
		}
	}
	return nil
}

// takeSignal returns the payload of the oldest signal with a name that this transition has not taken yet, or nil if there
// is none.
func (t *Transition) takeSignal(name string) (json.RawMessage, error) {
	r, err := t.reader.Signal(t.run.ID, name, t.removes)
	if err != nil || r.Key == "" {
		return nil, err
	}
	if !json.Valid(r.Value) { // it would damage the step's record too
		return nil, record.Damaged(r.Key, errors.New("is no JSON"))
	}
	t.extra = append(t.extra, store.Delete(r.Key).If(r.Revision))
	return r.Value, nil
}

// removes reports whether the transition removes a record, or writes it.
func (t *Transition) removes(key string) bool {
	return slices.ContainsFunc(t.extra, func(op store.Op) bool { return op.Key() == key })
}

// recorded returns a step's record as it is in the draft, to be read.
func (t *Transition) recorded(i int) *record.Step {
	for k := range t.steps {
		if t.steps[k].index == i {
			return &t.steps[k].rec
		}
	}
	return &t.was(i).Rec
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

// goOn starts what may start, or ends the run.
func (t *Transition) goOn() error {
	if t.over {
		return nil
	}
	if t.plan == nil {
		if t.rec.Stop != plan.StopNone {
			return t.finish()
		}
		return nil
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
		if ended := t.start(i); ended {
			return t.goOn()
		}
	}
	return nil
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

// conclude decides how the steps have ended, on which the cleanup cannot improve.
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
	if t.plan.Timeout > 0 && len(t.plan.Finally) > 0 {
		t.rec.Deadline = t.now.Add(time.Duration(t.plan.Timeout))
	}
}

// failed records which step made the run fail, and says so.
func (t *Transition) failed(i int) (reason string) {
	step := t.plan.Step(i)
	t.rec.FailedStep = step.ID
	return text.Truncate(fmt.Sprintf("step %s (driver %s): %s", step.ID, step.Driver, t.recorded(i).Reason), t.limits.ErrorText)
}

// start starts a step if it is granted what it needs, or notes what it waits for. It reports true if the step has ended
// instead.
func (t *Transition) start(i int) (ended bool) {
	step := t.plan.Step(i)
	if t.interruptedTooOften(i) {
		return true
	}
	g := t.host.Start(step.Driver, t.plan.Finalize && !t.plan.Plans(i))
	if g == NoDriver {
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
		t.starts = append(t.starts, i)
		t.step(i).Begin(t.now)
		t.states[i] = plan.Running
	}
	return false
}

// block records that a step waits for something to be mended, unless that is recorded already.
func (t *Transition) block(i int, reason string) {
	if t.was(i).Rec.State == plan.Blocked {
		return
	}
	rec := t.step(i)
	rec.State, rec.Reason, rec.Due = plan.Blocked, reason, 0
	t.states[i] = plan.Blocked
}

// unblock takes back what block has recorded: what the step still waits for, if anything, comes by itself.
func (t *Transition) unblock(i int) {
	if t.was(i).Rec.State != plan.Blocked {
		return
	}
	rec := t.step(i)
	rec.State, rec.Reason = plan.Queued, ""
	t.states[i] = plan.Queued
}

// interruptedTooOften fails a step under which the process keeps dying, so that it does not take the others along
// for ever.
func (t *Transition) interruptedTooOften(i int) bool {
	limit := t.limits.Interruptions
	if t.was(i).Rec.Crashes <= limit {
		return false
	}
	rec := t.step(i)
	rec.State, rec.Ended, rec.Resumed, rec.Again = plan.Failed, t.now, false, false
	rec.Reason = fmt.Sprintf("interrupted %d times by the death of the process, more than the limit of %d", rec.Crashes, limit)
	t.attempts = append(t.attempts, store.Put(record.AttemptKey(t.run.ID, t.stepID(i), rec.Attempt),
		record.Encode(&record.Attempt{Started: rec.Started, Ended: t.now, Error: rec.Reason, Kind: fault.KindInterrupt})))
	t.states[i] = plan.Failed
	return true
}

// finish ends the run as its steps and its stop say.
func (t *Transition) finish() error {
	if t.plan == nil { // it never began
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

// afterCleanup tells how a run ends whose steps have succeeded: what goes wrong in the cleanup is the run's then.
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

func (t *Transition) finishWith(end plan.State, reason string) error {
	if err := t.readResource(); err != nil {
		return err
	}
	if err := t.deleteLeftovers(); err != nil {
		return err
	}
	t.over, t.rewrite = true, true
	t.rec.State, t.rec.Ended, t.rec.Reason = end, t.now, reason
	if t.plan == nil {
		t.rec.Started = 0 // it has pinned no steps, so it has not begun
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
	if t.plan != nil && t.plan.Finalize && end == plan.Succeeded {
		return t.remove()
	}
	head.Status.ObservedGeneration = max(head.Status.ObservedGeneration, t.rec.Generation)
	t.planResync(end)
	return nil
}

// remove takes the resource off the record, but for the generation that its name has come to.
func (t *Transition) remove() error {
	k := t.key
	t.removed = true
	t.extra = append(t.extra, store.Put(record.TombstoneKey(k), record.Encode(&record.Tombstone{Generation: t.head.Generation})), store.Delete(record.UnlistenedKey(k)))
	revisions, err := t.reader.RevisionKeys(k)
	if err != nil {
		return err
	}
	for _, key := range revisions {
		t.extra = append(t.extra, store.Delete(key))
	}
	return nil
}

// Idle says that the draft pins a run that could not start anything yet: it stays queued, so that it still takes up
// what is applied meanwhile.
func (t *Transition) Idle() bool {
	return t.begun && !t.over && len(t.starts) == 0 && len(t.steps) == 0
}

// put is a write of a record.
func (t *Transition) put(key string, rec record.Appender) store.Op {
	from := len(t.values)
	t.values = rec.AppendJSON(t.values)
	return store.Put(key, t.values[from:len(t.values):len(t.values)])
}

// Ops returns the writes. The first is conditional and of a record that nobody else writes, from which an unknown outcome
// is told.
func (t *Transition) Ops() (ops []store.Op) {
	id := t.run.ID
	ops = t.ops[:0]
	idle := t.Idle()
	if !idle {
		for i := range t.steps {
			c := &t.steps[i]
			if c.key = t.was(c.index).Key; c.key == "" {
				c.key = record.StepKey(id, t.stepID(c.index))
			}
			ops = append(ops, t.put(c.key, &c.rec).If(t.was(c.index).Rev))
		}
		if t.rewrite {
			ops = append(ops, t.put(t.run.Key(), &t.rec).If(t.run.Rev))
		}
		switch {
		case t.removed:
			ops = append(ops, store.Delete(record.ResourceKey(t.key)).If(t.rev))
		case t.head != nil:
			ops = append(ops, t.put(record.ResourceKey(t.key), t.head).If(t.rev))
		}
		ops = append(ops, t.attempts...)
		ops = append(ops, t.extra...)
		if t.over && !t.created {
			ops = append(ops, store.Delete(record.ActiveKey(id)))
		}
	}
	if t.lines != nil {
		lines, last := t.lines.Ops()
		if len(lines) > 0 {
			t.logged = last
			ops = append(ops, lines...)
		}
	}
	// Every change of a run is a compare-and-set on its record. Where that record itself stays the same it is only
	// compared: to rewrite it at every step would double the bytes of a transition and keep out nobody more, since
	// whoever takes a run over has to write it.
	if len(ops) > 0 && (idle || !t.rewrite) {
		ops = append(ops, store.Check(t.run.Key(), t.run.Rev))
	}
	t.ops = ops
	return ops
}

func (t *Transition) stepID(i int) string { return t.plan.Step(i).ID }

// Committed makes the state show what was committed, at a revision.
func (t *Transition) Committed(rev store.Revision) {
	if t.Idle() {
		return
	}
	s, run := t.state, t.run
	if t.head != nil {
		s.Head, s.Rev = t.head, rev
	}
	if t.rewrite {
		run.Rec, run.Rev = t.rec, rev
	}
	if t.begun || t.extended {
		run.Plan, run.Steps = t.plan, append(make([]record.StepState, 0, len(t.states)), run.Steps[:min(len(run.Steps), 1)]...)
		run.Steps = run.Steps[:len(t.states)]
		s.Spec = t.spec
	}
	for i := range t.steps {
		c := &t.steps[i]
		run.Steps[c.index] = record.StepState{Rec: c.rec, Rev: rev, Key: c.key}
	}
}

// NextDue is when the run goes on by itself; 0 for never. It leaves out what is past and was acted upon: a deadline,
// and a step that has come due, which has either started or waits for a slot, a worker, a driver or a stray call.
func (t *Transition) NextDue() (due record.Time) {
	run := t.run
	if run.Rec.Deadline > t.now {
		due = run.Rec.Deadline
	}
	for i, state := range t.states {
		if state != plan.Retrying && state != plan.Waiting {
			continue
		}
		if at := run.Steps[i].Rec.Due; at != 0 && (due == 0 || at < due) { // 0 is a wait for a signal alone
			due = at
		}
	}
	return due
}
