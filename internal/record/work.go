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
	first := w.Plan == nil
	if first {
		if !run.Plan.HasWork() {
			return
		}
		w.Plan, w.Called = run.Plan, make([]bool, len(run.Plan.Steps))
	}
	for k := range run.Plan.Steps {
		if !run.Steps[k].Rec.Called() {
			continue
		}
		for i := range w.Called {
			if first && i == k || !first && w.Plan.Steps[i].Driver == run.Plan.Steps[k].Driver {
				w.Called[i] = true
			}
		}
	}
}
