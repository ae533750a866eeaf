package record

import (
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/store"
)

// RunState is what is recorded of a run, without its failed attempts and its log.
type RunState struct {
	ID    string
	under string // the key of Rec, made by Key at the first call
	Rec   Run
	Rev   store.Revision
	Plan  *plan.Plan // nil until the run starts
	Steps []StepState
	// LogEpoch counts the deaths of the process during calls of the run. It is part of the numbers of log lines; see
	// FirstLine. Every call records it before it begins, so that it grows with every death during a call.
	LogEpoch int
}

// StepState is the record of a step with its revision. Revision 0 means that no record has been written.
type StepState struct {
	Rec Step
	Rev store.Revision
	Key string // the key of the record; set when it is first needed
}

// Key returns the key of the record of the run. It must not be called concurrently.
func (r *RunState) Key() string {
	if r.under == "" {
		r.under = RunKey(r.ID)
	}
	return r.under
}

// State returns the state that users see of the run: while the record has the state running, it is the state of the most
// active step.
func (r *RunState) State() plan.State {
	if r.Rec.State == plan.Running {
		first := r.FirstOpen()
		i := Liveliest(len(r.Steps), func(i int) plan.State {
			if state := r.Steps[i].Rec.State; i >= first || state == plan.Running {
				return state
			}
			return plan.Unset
		})
		if i >= 0 {
			return r.Steps[i].Rec.State
		}
	}
	return r.Rec.State
}

// FirstOpen returns the position of the first step that can still start. When no further one of Steps can start, it is
// that of the first step of Finally. What the steps before it wait for has no meaning any more.
func (r *RunState) FirstOpen() int {
	if r.Plan == nil {
		return 0
	}
	return r.Plan.FirstOpen(r.Rec.Ending(), func(i int) plan.State { return r.Steps[i].Rec.State })
}

// Liveliest returns the position of the most active step, or -1 if no step is active. Running is the most active state,
// then retrying, waiting and blocked follow. The first of several equal steps counts.
func Liveliest(n int, state func(i int) plan.State) int {
	best := -1
	for i := range n {
		if s := state(i); s >= plan.Running && s <= plan.Blocked && (best < 0 || s < state(best)) {
			best = i
		}
	}
	return best
}

// IsBlockedBy reports whether a step that can still run is blocked and names this driver. A step is blocked when its driver
// is not registered.
func (r *RunState) IsBlockedBy(driver string) bool {
	for i := r.FirstOpen(); i < len(r.Steps); i++ {
		if r.Steps[i].Rec.State == plan.Blocked && r.Plan.Step(i).Driver == driver {
			return true
		}
	}
	return false
}

// Running returns the number of steps that are at work.
func (r *RunState) Running() (n int) {
	for i := range r.Steps {
		if r.Steps[i].Rec.State == plan.Running {
			n++
		}
	}
	return n
}

// Awaits reports whether a step waits for a signal.
func (r *RunState) Awaits() bool { return len(r.Awaited()) > 0 }

// Awaited returns the names of the signals that steps wait for.
func (r *RunState) Awaited() (names []string) {
	for _, s := range r.Steps[min(r.FirstOpen(), len(r.Steps)):] {
		if s.Rec.State == plan.Waiting && s.Rec.Await != "" {
			names = append(names, s.Rec.Await)
		}
	}
	return names
}

// SleepsForSignal reports whether a run that no worker has sleeps until a time or until a signal comes.
func (r *RunState) SleepsForSignal(now Time) bool { return r.SleepsUntil(now) != 0 && r.Awaits() }

// SleepsUntil returns the time at which a run continues that no worker has. It returns 0 if the run can continue at once,
// if the clock was set back so that the times on record must be corrected, and also if the run has no due time.
func (r *RunState) SleepsUntil(now Time) Time {
	if r.Plan == nil {
		return 0
	}
	states := make([]plan.State, len(r.Steps))
	for i := range r.Steps {
		if states[i] = r.Steps[i].Rec.State; states[i] == plan.Running {
			return 0 // the process ended during the call
		}
		if r.Steps[i].Rec.WaitsFromLater(now) {
			return 0
		}
	}
	if r.Rec.RunsFromLater(r.Plan, now) || r.Rec.Copying {
		return 0
	}
	if start, over := r.Plan.Next(states, r.Rec.Stop != plan.StopNone, r.Rec.CutShort); over || len(start) > 0 {
		return 0
	}
	return r.nextDue()
}

// nextDue returns the earliest of the deadline of the run and the due times of its open steps, or 0 if there is none.
func (r *RunState) nextDue() Time {
	due := r.Rec.Deadline
	for i := r.FirstOpen(); i < len(r.Steps); i++ {
		s := &r.Steps[i].Rec
		if (s.State == plan.Retrying || s.State == plan.Waiting) && s.Due != 0 && (due == 0 || s.Due < due) {
			due = s.Due
		}
	}
	return due
}
