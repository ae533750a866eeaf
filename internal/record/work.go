package record

import "github.com/conveyor-go/conveyor/internal/plan"

// Work is what the runs of a resource have done.
type Work struct {
	Plan   *plan.Plan // pinned by the newest run that had steps; nil if no run had any
	Called []bool     // for each step of Plan: whether a driver may have been called for it, in this run or an earlier one
}

// Add adds what a run has done. The newest run comes first.
func (w *Work) Add(run *RunState) {
	if w.Plan == nil {
		if !run.Plan.HasWork() {
			return
		}
		w.Plan, w.Called = run.Plan, make([]bool, len(run.Plan.Steps))
	}
	for i := range w.Called {
		step := &w.Plan.Steps[i]
		if k := run.Plan.Index(step.ID); k >= 0 && run.Plan.Step(k).Driver == step.Driver && run.Steps[k].Rec.Attempt > 0 {
			w.Called[i] = true
		}
	}
}
