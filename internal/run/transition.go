package run

import (
	"encoding/json"
	"sync"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Transition is the next change of a run: what is recorded after it, and what must be done because of it. It becomes true
// when its Ops are committed, and leaves no trace otherwise.
type Transition struct {
	reader Reader
	host   Host
	limits Limits
	state  *State
	run    *record.RunState // of state
	key    record.Key       // of the resource
	now    record.Time
	lines  Lines

	rec      record.Run
	rewrite  bool             // rec differs from what is recorded
	pipeline *record.Pipeline // of the run, when it begins; nil if the run has none, or the pipeline is deleted
	plan     *plan.Plan       // nil until the run begins
	spec     json.RawMessage
	states   []plan.State
	steps    []stepChange
	head     *record.Resource // changed copy, or nil
	rev      store.Revision   // that head replaces
	begun    bool             // the run begins in this transition
	extended bool             // its steps were planned in this transition
	created  bool             // the run itself is new; extra holds the writes that go with it
	attempts []store.Op
	extra    []store.Op

	starts      []int // the steps that start, in the order in which the host has granted them
	needsWorker bool
	stop        error
	over        bool
	removed     bool // the resource is removed with the end of the run
	preempt     *Preemption
	logged      int64 // number of the last line among the writes; 0 for none

	mayHaveLeftovers bool
	leftovers        bool // not all checkpoints and signals of the run are removed with its end

	ops     []store.Op // what Ops returns
	values  []byte     // of the records among them
	changes []Change   // what Changes returns
}

type stepChange struct {
	index int
	key   string // under which it is written
	rec   record.Step
}

// transitions are used again, because every step of every run needs one.
var transitions = sync.Pool{New: func() any { return new(Transition) }}

func newTransition(s *State, in *Input, r Reader, h Host, limits Limits) *Transition {
	t := transitions.Get().(*Transition)
	t.reader, t.host, t.limits = r, h, limits
	t.state, t.run, t.key = s, s.Run, s.Run.Rec.Key()
	t.now, t.lines, t.mayHaveLeftovers = in.Now, in.Lines, in.Leftovers
	return t
}

// Recycle gives the transition up. The caller must not use it, or anything that it has returned, any more.
func (t *Transition) Recycle() {
	const large = 64 << 10 // bytes that are not worth keeping
	if cap(t.values) > large {
		t.values = nil
	}
	*t = Transition{
		states: t.states[:0], steps: empty(t.steps), attempts: empty(t.attempts), extra: empty(t.extra), starts: t.starts[:0],
		ops: empty(t.ops), values: t.values[:0], changes: empty(t.changes),
	}
	transitions.Put(t)
}

// empty keeps the memory of a slice, and nothing that it refers to.
func empty[T any](s []T) []T {
	clear(s)
	return s[:0]
}

// Starts returns the positions of the steps that start, in the order in which the host has granted them.
func (t *Transition) Starts() []int { return t.starts }

// Step returns the record of a step as it is after the transition. It is good until the next call.
func (t *Transition) Step(i int) *record.Step { return t.recorded(i) }

// StepID returns the id of the step at a position.
func (t *Transition) StepID(i int) string { return t.stepID(i) }

// Rec returns the record of the run as it is after the transition. The caller must not change it.
func (t *Transition) Rec() *record.Run { return &t.rec }

// Plan returns the steps of the run; nil if it has not begun.
func (t *Transition) Plan() *plan.Plan { return t.plan }

// Head returns the record of the resource as it is after the transition; nil if it stays as it is.
func (t *Transition) Head() *record.Resource { return t.head }

// Over reports whether the run ends.
func (t *Transition) Over() bool { return t.over }

// Begun reports whether the run begins.
func (t *Transition) Begun() bool { return t.begun }

// NeedsWorker reports whether a step can start as soon as a worker is free.
func (t *Transition) NeedsWorker() bool { return t.needsWorker }

// Stop returns the cause with which the attempts under way are to end; nil if they go on.
func (t *Transition) Stop() error { return t.stop }

// Preempts returns the end of the run that this one waits behind; nil if this one waits for it.
func (t *Transition) Preempts() *Preemption { return t.preempt }

// LeavesLeftovers reports whether checkpoints or signals of an ended run must be removed after the commit.
func (t *Transition) LeavesLeftovers() bool { return t.leftovers }

// Logged returns the number of the last line of the log that is among the writes; 0 if none is.
func (t *Transition) Logged() int64 { return t.logged }

// Outputs yields the steps that the transition changes and that have an output after it, by id.
func (t *Transition) Outputs(yield func(step string, output json.RawMessage) bool) {
	for i := range t.steps {
		if output := t.steps[i].rec.Output; len(output) > 0 && !yield(t.stepID(t.steps[i].index), output) {
			return
		}
	}
}

// Change is one thing that happens with a transition.
type Change struct {
	Step    string // empty for the run
	State   plan.State
	Attempt int
	Reason  string
	Removed bool // the resource was removed; nothing else is set
}

// Changes returns what happens, in order.
func (t *Transition) Changes() []Change {
	changes := t.changes[:0]
	if t.Idle() {
		return nil
	}
	if t.begun && t.plan != nil {
		changes = append(changes, Change{State: plan.Running})
	}
	for i := range t.steps {
		rec := &t.steps[i].rec
		changes = append(changes, Change{Step: t.stepID(t.steps[i].index), State: rec.State, Attempt: rec.Attempt, Reason: rec.Reason})
	}
	if t.over {
		changes = append(changes, Change{State: t.rec.State, Reason: t.rec.Reason})
	}
	if t.removed {
		changes = append(changes, Change{Removed: true})
	}
	t.changes = changes
	return changes
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
