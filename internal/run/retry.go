package run

import (
	"errors"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
)

// FromStart is given instead of the id of a step for a retry that keeps no step. No step can have this id.
const FromStart = "/"

// pinRetry pins the steps of the run that this run repeats, or the steps as they are defined now, and keeps what the
// old run has done of them.
func (t *Transition) pinRetry() error {
	old, err := t.reader.Run(t.rec.Of)
	if errors.Is(err, fault.NotFound) {
		return t.finishWith(plan.Failed, originalGone(t.rec.Of))
	}
	if err != nil {
		return err
	}
	if old.Plan == nil {
		return record.Damaged(old.Key(), errors.New("has no steps that could be repeated"))
	}
	if t.rec.Newest {
		if err := t.pinCurrent(); err != nil || t.over {
			return err
		}
	} else {
		t.rec.Pipeline = old.Rec.Pipeline
		if t.plan, t.rec.Hash = old.Plan, old.Rec.Hash; t.rec.Hash == "" {
			if err := t.pinPlan(old.Plan); err != nil || t.over {
				return err
			}
		}
		if t.plan.Timeout > 0 {
			t.rec.Deadline = t.now.Add(time.Duration(t.plan.Timeout))
		}
		t.blankStates(t.plan.Len())
	}
	t.keep(old)
	return nil
}

// originalGone returns the reason of a run whose original is no longer on record.
func originalGone(run string) string {
	return fmt.Sprintf("run %s, which this one repeats, is no longer on record", run)
}

// keep takes over the records of the steps that an old run has done and that need not be repeated.
func (t *Transition) keep(old *record.RunState) {
	for i, done := range keptSteps(old, t.plan, t.rec.From) {
		if done != nil {
			*t.step(i) = *done
			t.states[i] = done.State
		}
	}
}

// keptSteps returns the records of the steps of p that a retry of the run r from a step need not repeat. The records
// have the positions of their steps in p. The record of any other step is nil.
func keptSteps(r *record.RunState, p *plan.Plan, from string) []*record.Step {
	kept := make([]*record.Step, len(p.Steps))
	again := make([]bool, p.Len())
	if from == FromStart {
		for i := range again {
			again[i] = p != r.Plan || !p.Plans(i) // the pinned steps of r include the planned ones, which are not planned again
		}
	}
	if i := p.Index(from); from != "" && i >= 0 {
		again = p.Follows(i)
	}
	for i := range kept {
		k := r.Plan.Index(p.Steps[i].ID)
		if k < 0 || k >= len(r.Plan.Steps) || again[i] || p.Plans(i) && p != r.Plan {
			continue
		}
		if rec := r.Steps[k].Rec; rec.State == plan.Succeeded || rec.State == plan.Skipped {
			rec.Waits, rec.Lines = nil, 0 // they belong to the old run
			kept[i] = &rec
		}
	}
	return kept
}
