package record

import "github.com/conveyor-go/conveyor/internal/plan"

// Work is what the runs of a resource have done.
type Work struct {
	Plan   *plan.Plan // pinned by the newest run that had steps; nil if no run had any
	Called []bool     // for each step of Plan: whether it may have something to finalize; see Add
}

// Add adds what a run has done. The newest run comes first. Of this run, the steps that were called have something to
// finalize. Of an earlier run, it is all steps of the driver of a step that was called: the ids of steps change when others
// are put in front of them.
func (w *Work) Add(run *RunState) {
	newest := w.Plan == nil
	if newest {
		if !run.Plan.HasWork() {
			return
		}
		w.Plan, w.Called = run.Plan, make([]bool, len(run.Plan.Steps))
	}
	for k := range run.Plan.Steps {
		switch {
		case !run.Steps[k].Rec.Called():
		case newest:
			w.Called[k] = true
		default:
			w.addDriver(run.Plan.Steps[k].Driver)
		}
	}
}

// addDriver notes that a driver was called for some step.
func (w *Work) addDriver(name string) {
	for i := range w.Called {
		w.Called[i] = w.Called[i] || w.Plan.Steps[i].Driver == name
	}
}
