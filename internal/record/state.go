package record

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/store"
)

// RunState is all that is recorded of a run, but for its failed attempts and its log.
type RunState struct {
	ID    string
	under string // the key of rec; see key
	Rec   Run
	Rev   store.Revision
	Plan  *plan.Plan // nil until the run starts
	Steps []StepState
}

// StepState is a step's record; revision 0 stands for none yet.
type StepState struct {
	Rec Step
	Rev store.Revision
	Key string // of the record, once it was written
}

// Key is the key of the run's record.
func (r *RunState) Key() string {
	if r.under == "" {
		r.under = RunKey(r.ID)
	}
	return r.under
}

// State is the same for a run as it is recorded.
func (r *RunState) State() plan.State {
	if r.Rec.State == plan.Running {
		if i := Liveliest(len(r.Steps), func(i int) plan.State { return r.Steps[i].Rec.State }); i >= 0 {
			return r.Steps[i].Rec.State
		}
	}
	return r.Rec.State
}

// Liveliest returns the first step of those that do most, or -1 if none does anything.
func Liveliest(n int, state func(i int) plan.State) int {
	best := -1
	for i := range n {
		if s := state(i); s >= plan.Running && s <= plan.Blocked && (best < 0 || s < state(best)) {
			best = i
		}
	}
	return best
}

// IsBlockedBy says that a step waits for a driver that is not registered.
func (r *RunState) IsBlockedBy(driver string) bool {
	first := 0
	if r.Rec.Outcome != plan.Unset {
		first = len(r.Plan.Steps) // what is left is Finally
	}
	for i := first; i < len(r.Steps); i++ {
		if r.Steps[i].Rec.State == plan.Blocked && r.Plan.Step(i).Driver == driver {
			return true
		}
	}
	return false
}

// Awaits says that a step waits for a signal.
func (r *RunState) Awaits() bool {
	return slices.ContainsFunc(r.Steps, func(s StepState) bool { return s.Rec.State == plan.Waiting && s.Rec.Await != "" })
}

// SleepsUntil returns when a run that nobody works on goes on by itself; 0 if it can go on at once.
func (r *RunState) SleepsUntil() Time {
	if r.Plan == nil {
		return 0
	}
	states := make([]plan.State, len(r.Steps))
	for i := range r.Steps {
		if states[i] = r.Steps[i].Rec.State; states[i] == plan.Running {
			return 0 // cut short
		}
	}
	if start, over := r.Plan.Next(states, r.Rec.Stop != plan.StopNone, r.Rec.CutShort); over || len(start) > 0 {
		return 0
	}
	return r.nextDue()
}

// nextDue is the earliest time at which something is to happen to the run by itself; 0 for never.
func (r *RunState) nextDue() Time {
	due := r.Rec.Deadline
	for i := range r.Steps {
		s := &r.Steps[i].Rec
		if (s.State == plan.Retrying || s.State == plan.Waiting) && s.Due != 0 && (due == 0 || s.Due < due) {
			due = s.Due
		}
	}
	return due
}
