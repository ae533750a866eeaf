package run

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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
		if gone := t.placeGone(t.plan); gone != "" && !t.plan.Planned {
			return t.finishWith(plan.Failed, gone)
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

// placeGone returns what is wrong if p lacks the step from which the run is to repeat its original, and an empty text
// otherwise.
func (t *Transition) placeGone(p *plan.Plan) string {
	if t.rec.From == "" || t.rec.From == FromStart {
		return ""
	}
	if i := p.Index(t.rec.From); i >= 0 && i < len(p.Steps) {
		return ""
	}
	return fmt.Sprintf("pipeline %q has no step %q any more", t.rec.Pipeline, t.rec.From)
}

// keep takes over the records of the steps that an old run has done and that need not be repeated. What is too much for one
// transition is left to the next ones: until then the run is Copying, and nothing else becomes of it.
func (t *Transition) keep(old *record.RunState) {
	copying := false
	for i, done := range keptSteps(old, t.plan, t.rec.From, t.rec.Newest) {
		if done == nil || t.recorded(i).State != plan.Unset {
			continue
		}
		if copying = t.full() || t.begun && len(t.steps)+1 >= t.limits.Changes && t.limits.Changes > 0; copying {
			t.more = true
			break
		}
		*t.step(i) = *done
		t.states[i] = done.State
	}
	if copying != t.rec.Copying {
		t.rec.Copying, t.rewrite = copying, true
	}
}

// keepRest goes on with keep. The old run is on record, because this one has not ended.
func (t *Transition) keepRest() error {
	old, err := t.reader.Run(t.rec.Of)
	if errors.Is(err, fault.NotFound) {
		return t.finishWith(plan.Failed, originalGone(t.rec.Of))
	}
	if err == nil {
		t.keep(old)
	}
	return err
}

// keptSteps returns the records of the steps of p that a retry of the run r from a step need not repeat. The records
// have the positions of their steps in p. The record of any other step is nil. newest is set if p need not be the plan of r.
//
// Invariant: no step is kept that comes after a step that is not kept.
func keptSteps(r *record.RunState, p *plan.Plan, from string, newest bool) []*record.Step {
	kept := make([]*record.Step, len(p.Steps))
	again := make([]bool, len(p.Steps))
	for i := range kept {
		if p.Plans(i) && newest {
			continue // the steps are planned anew, and the steps of p are here because they have been
		}
		kept[i] = doneBefore(r, p, i)
		again[i] = kept[i] == nil || p.Steps[i].ID == from || from == FromStart && !p.Plans(i)
	}
	p.SpreadToFollowing(again)
	for i := range kept {
		if again[i] {
			kept[i] = nil
		}
	}
	return kept
}

// doneBefore returns the record that step i of p has if it is a step that the run r has done, and nil otherwise. Done are
// a success, a skip, and a failure that is tolerated, because the steps after such a step have been allowed to start. A
// step that has ended the run by a halt is not done: it must decide again.
func doneBefore(r *record.RunState, p *plan.Plan, i int) *record.Step {
	step := &p.Steps[i]
	k := r.Plan.Index(step.ID)
	if k < 0 || k >= len(r.Plan.Steps) || !sameWork(step, r.Plan.Step(k)) || halted(r, k) {
		return nil
	}
	rec := r.Steps[k].Rec
	switch {
	case rec.State == plan.Succeeded, rec.State == plan.Skipped:
	case rec.State == plan.Failed && step.ContinueOnError:
	default:
		return nil
	}
	rec.Waits, rec.Lines = nil, 0 // they belong to the old run
	return &rec
}

// sameWork reports whether two steps with one id do the same. The ids of a definition that gives none are the positions
// of its steps, so that an equal id alone means nothing.
func sameWork(a, b *plan.Step) bool { return a.Driver == b.Driver && bytes.Equal(a.With, b.With) }

// halted reports whether step i has ended the run by a halt. A record of an earlier version does not say it of the step.
// The run has the reason of the step then.
func halted(r *record.RunState, i int) bool {
	rec := &r.Steps[i].Rec
	if rec.Halted || r.Rec.Stop != plan.StopHalt {
		return rec.Halted
	}
	known := slices.ContainsFunc(r.Steps, func(s record.StepState) bool { return s.Rec.Halted })
	return !known && rec.State == plan.Succeeded && rec.Reason == r.Rec.StopReason
}
