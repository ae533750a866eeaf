package run

import (
	"math"
	"slices"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
)

// readStates reads the states of the steps as the plan sees them. A retry or a requeue that is due is queued.
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

// blankStates sets the states of n steps that have not begun.
func (t *Transition) blankStates(n int) {
	t.states = slices.Grow(t.states[:0], n)[:n]
	clear(t.states)
}

// full reports whether the transition must not change another step. What is left is then decided right after its commit.
func (t *Transition) full() bool {
	if t.limits.Changes == 0 || len(t.steps) < t.limits.Changes {
		return false
	}
	t.more = true
	return true
}

// removals returns how many records the transition can remove at the end of the run, beside the changes of steps that it has.
func (t *Transition) removals() int {
	if t.limits.Changes == 0 {
		return math.MaxInt
	}
	return OpsOfStep * max(t.limits.Changes-len(t.steps), 1)
}

// step returns the record of a step, to be changed by the transition. The record can be used until step is called for
// another step.
func (t *Transition) step(i int) *record.Step {
	for k := range t.steps {
		if t.steps[k].index == i {
			return &t.steps[k].rec
		}
	}
	t.steps = append(t.steps, stepChange{index: i, rec: t.was(i).Rec})
	return &t.steps[len(t.steps)-1].rec
}

// was returns what is on record of a step, to be read. It returns an empty record for a step that is pinned in this
// transition.
func (t *Transition) was(i int) *record.StepState {
	if t.begun || t.extended && i > 0 {
		return new(record.StepState)
	}
	return &t.run.Steps[i]
}

// recorded returns the record of a step after the transition, to be read.
func (t *Transition) recorded(i int) *record.Step {
	for k := range t.steps {
		if t.steps[k].index == i {
			return &t.steps[k].rec
		}
	}
	return &t.was(i).Rec
}

// firstOpen returns the position of the first step that can still start; see [plan.Plan.FirstOpen].
func (t *Transition) firstOpen() int {
	if t.plan == nil {
		return 0
	}
	return t.plan.FirstOpen(t.rec.Ending(), func(i int) plan.State { return t.states[i] })
}

// stepID returns the id of the step at a position.
func (t *Transition) stepID(i int) string { return t.plan.Step(i).ID }
