package run

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
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

// recorded returns a step's record as it is in the draft, to be read.
func (t *Transition) recorded(i int) *record.Step {
	for k := range t.steps {
		if t.steps[k].index == i {
			return &t.steps[k].rec
		}
	}
	return &t.was(i).Rec
}

func (t *Transition) stepID(i int) string { return t.plan.Step(i).ID }
