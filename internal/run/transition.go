package run

import (
	"encoding/json"
	"sync"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Transition is the next change of a run: the records after the change, and what the engine must do because of the
// change. A transition takes effect when its Ops are committed. A transition that is not committed leaves no trace.
type Transition struct {
	reader Reader
	host   Host
	limits Limits
	state  *State
	run    *record.RunState // the run of state
	key    record.Key       // the key of the resource
	now    record.Time
	lines  Lines

	rec      record.Run
	rewrite  bool             // rec differs from what is recorded
	pipeline *record.Pipeline // is read when the run begins; nil if the run has no pipeline, or if the pipeline was deleted
	plan     *plan.Plan       // nil until the run begins
	spec     json.RawMessage
	states   []plan.State
	steps    []stepChange
	head     *record.Resource // changed copy of the record of the resource; nil if it does not change
	rev      store.Revision   // the revision that head replaces
	before   *record.Resource // what head replaces, if the run is new and the store is shared
	begun    bool             // the run begins in this transition
	extended bool             // the steps of the run were planned in this transition
	created  bool             // the run is new
	attempts []store.Op
	extra    []store.Op

	member    *Member // nil unless the store is shared
	found     string  // as in Input.Found
	hasStray  bool    // another engine has given up a call for the resource, which may still be under way; no step can start here
	elsewhere []int   // the steps whose driver another engine has
	nowhere   []int   // the steps whose driver no engine has

	starts      []int // the steps that start, in the order in which the host has granted them
	needsWorker bool
	paused      string     // why the run, or a step of it, is held; empty if nothing of it is
	held        []heldStep // the steps that a pause holds
	stop        error
	over        bool
	removed     bool // the resource is removed with the end of the run
	preempt     *Preemption
	logged      int64 // what Logged returns

	more             bool // something is left to decide because of Limits.Changes
	removing         bool // the first generations of the resource are removed, and the run ends in a later transition
	mayHaveLeftovers bool // as in Input.Leftovers
	leftovers        bool // what LeavesLeftovers returns

	ops     []store.Op // what Ops returns
	values  []byte     // of the records among them
	changes []Change   // what Changes returns
}

// stepChange is the changed record of a step.
type stepChange struct {
	index int
	key   string // of the record
	rec   record.Step
}

// heldStep is a step that cannot start because of a pause.
type heldStep struct {
	index int
	why   string
}

// transitions are used again, because every step of every run needs one.
var transitions = sync.Pool{New: func() any { return new(Transition) }}

// newTransition returns an empty transition for an input.
func newTransition(s *State, in *Input, r Reader, h Host, limits Limits) *Transition {
	t := transitions.Get().(*Transition)
	t.reader, t.host, t.limits = r, h, limits
	t.state, t.run, t.key = s, s.Run, s.Run.Rec.Key()
	t.now, t.lines, t.mayHaveLeftovers = in.Now, in.Lines, in.Leftovers
	t.member, t.found = in.Member, in.Found
	return t
}

// Recycle gives up the transition. The caller must no longer use the transition or anything that its methods have
// returned.
func (t *Transition) Recycle() {
	const large = 64 << 10 // bytes; a larger buffer is not kept
	if cap(t.values) > large {
		t.values = nil
	}
	*t = Transition{
		states: t.states[:0], steps: empty(t.steps), attempts: empty(t.attempts), extra: empty(t.extra), starts: t.starts[:0],
		held: empty(t.held), elsewhere: t.elsewhere[:0], nowhere: t.nowhere[:0],
		ops: empty(t.ops), values: t.values[:0], changes: empty(t.changes),
	}
	transitions.Put(t)
}

// empty returns a slice of length 0 with the memory of s. The memory no longer refers to anything.
func empty[T any](s []T) []T {
	clear(s)
	return s[:0]
}

// Starts returns the positions of the steps that start, in the order in which the host has granted them.
func (t *Transition) Starts() []int { return t.starts }

// Step returns the record of a step after the transition. The record can be used until the next call of Step.
func (t *Transition) Step(i int) *record.Step { return t.recorded(i) }

// StepID returns the id of the step at a position.
func (t *Transition) StepID(i int) string { return t.stepID(i) }

// More reports whether another transition must follow at once, because this one has as many changes as it can have.
func (t *Transition) More() bool { return t.more && !t.over }

// Rec returns the record of the run after the transition. The caller must not change the record.
func (t *Transition) Rec() *record.Run { return &t.rec }

// Plan returns the steps of the run, or nil if the run has not begun.
func (t *Transition) Plan() *plan.Plan { return t.plan }

// Head returns the record of the resource after the transition, or nil if the record does not change.
func (t *Transition) Head() *record.Resource { return t.head }

// Over reports whether the run ends.
func (t *Transition) Over() bool { return t.over }

// Begun reports whether the run begins.
func (t *Transition) Begun() bool { return t.begun }

// NeedsWorker reports whether a step can start as soon as a worker is free.
func (t *Transition) NeedsWorker() bool { return t.needsWorker }

// Paused returns why the run cannot begin, or a step of it cannot start, because of a pause. It returns an empty text if
// nothing of the run is held.
func (t *Transition) Paused() string { return t.paused }

// Stop returns the cause with which the engine must end the attempts under way, or nil if they go on.
func (t *Transition) Stop() error { return t.stop }

// Preempts returns how the active run of the resource must be ended for the sake of this run. It returns nil if this
// run waits for the end of the active run, or if there is no active run.
func (t *Transition) Preempts() *Preemption { return t.preempt }

// LeavesLeftovers reports whether checkpoints or signals of the ended run must be removed after the commit.
func (t *Transition) LeavesLeftovers() bool { return t.leftovers }

// Logged returns the number of the last line of the log that Ops writes, or 0 if Ops writes none.
func (t *Transition) Logged() int64 { return t.logged }

// Outputs yields the id and the output of each step that the transition changes and that has an output.
func (t *Transition) Outputs(yield func(step string, output json.RawMessage) bool) {
	for i := range t.steps {
		if output := t.steps[i].rec.Output; len(output) > 0 && !yield(t.stepID(t.steps[i].index), output) {
			return
		}
	}
}

// Change is one event of a transition.
type Change struct {
	Step    string // empty for the run
	Driver  string // of the step
	State   plan.State
	Attempt int
	Reason  string
	Failure record.Failure // of what has ended or is retried
	Removed bool           // the resource was removed; no other field is set
}

// Changes returns the events of the transition, in order.
func (t *Transition) Changes() []Change {
	changes := t.changes[:0]
	if t.Idle() {
		return nil
	}
	if t.begun && t.plan != nil {
		changes = append(changes, Change{State: plan.Running})
	}
	for i := range t.steps {
		rec, step := &t.steps[i].rec, t.plan.Step(t.steps[i].index)
		changes = append(changes, Change{Step: step.ID, Driver: step.Driver, State: rec.State, Attempt: rec.Attempt, Reason: rec.Reason, Failure: rec.Why()})
	}
	if t.over {
		changes = append(changes, Change{State: t.rec.State, Reason: t.rec.Reason, Failure: t.rec.Failure})
	}
	if t.removed {
		changes = append(changes, Change{Removed: true})
	}
	t.changes = changes
	return changes
}

// NextDue returns the time at which a step of the run is due next, and the deadline of the run, at which the run must be
// looked at even if no worker is free; 0 means none. A time that has passed is left out, because the transition has acted
// upon it: the step has started, or it waits for a slot, a worker, a driver, or the return of an abandoned call. NextDue is
// called after Committed.
func (t *Transition) NextDue() (due, deadline record.Time) {
	run := t.run
	if run.Rec.Deadline > t.now {
		deadline = run.Rec.Deadline
	}
	for i := t.firstOpen(); i < len(t.states); i++ {
		if state := t.states[i]; state != plan.Retrying && state != plan.Waiting {
			continue
		}
		if at := run.Steps[i].Rec.Due; at != 0 && (due == 0 || at < due) { // 0 is a wait for a signal without a timeout
			due = at
		}
	}
	return due, deadline
}
