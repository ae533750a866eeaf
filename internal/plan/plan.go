package plan

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/retry"
)

// Follows tells of each step whether it comes after the one at a position, by whatever way; that one itself does too.
func (p *Plan) Follows(i int) []bool {
	after := make([]bool, p.Len())
	after[i] = true
	for again := true; again; { // once more for each arrow that leads back in the list, and there are none in most
		again = false
		for k := range p.Steps {
			if !after[k] && slices.ContainsFunc(p.Before(k), func(b int) bool { return after[b] }) {
				after[k], again = true, true
			}
		}
	}
	return after
}

// Backwards is the plan of a deletion: what came last is finalized first, one step at a time, and one that fails stops
// the rest. Of a graph, each step comes before all that it was after.
func (p *Plan) Backwards() *Plan {
	b := &Plan{Retry: p.Retry, Finalize: true, Planned: p.Planned}
	placed := make([]bool, len(p.Steps))
	var place func(i int)
	place = func(i int) { // those before it first; there are no rings
		if placed[i] {
			return
		}
		placed[i] = true
		for _, before := range p.Before(i) {
			place(before)
		}
		step := p.Steps[i].Clone()
		step.After, step.ContinueOnError = nil, false
		b.Steps = append(b.Steps, step)
	}
	for i := range p.Steps {
		place(i)
	}
	slices.Reverse(b.Steps)
	return b
}

// Last returns the positions of the steps that no other comes after.
func (p *Plan) Last() (last []int) {
	followed := make([]bool, len(p.Steps))
	for i := range p.Steps {
		for _, before := range p.Before(i) {
			followed[before] = true
		}
	}
	for i := range followed {
		if !followed[i] {
			last = append(last, i)
		}
	}
	return last
}

// Step is one step of a pipeline.
type Step struct {
	// ID is unique in the pipeline. The progress of a run is recorded under this id. Empty means the position of the
	// step: "1", "2", and so on. In the Finally of a pipeline whose steps are planned (see [Planner]), empty means
	// "finally-1", "finally-2", and so on.
	ID string `json:"id"`
	// Name is for people.
	Name string `json:"name,omitempty"`
	// Driver is the name of the driver that carries out the step. One driver can serve several steps.
	Driver string `json:"driver"`
	// After lists the ids of the steps that must come before this step. If no step of the pipeline has an After, the
	// steps run in the order of the list. If any step has one, a step without After starts at once.
	After []string `json:"after,omitempty"`
	// With is any JSON: the settings for this use of the driver (see [Request.Settings]).
	With  json.RawMessage `json:"with,omitempty"`
	Retry *retry.Policy   `json:"retry,omitempty"`
	// Timeout limits one attempt. 0 means the timeout of the driver (see [Timeout]) or, if it has none,
	// [Options].StepTimeout.
	Timeout document.Duration `json:"timeout,omitzero"`
	// ContinueOnError tolerates a failure of this step: the steps after it still start, and the run can still
	// succeed.
	ContinueOnError bool `json:"continueOnError,omitempty"`
}

func (s Step) Clone() Step {
	s.After = slices.Clone(s.After)
	s.With = bytes.Clone(s.With)
	s.Retry = ClonePtr(s.Retry)
	return s
}

func ClonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// A plan is what a run pins when it starts: its steps, and what must be done before each. A plan never changes once it
// is made ready, and is shared by the runs of one pipeline. A step's position counts through Steps and then Finally.
type Plan struct {
	Steps   []Step            `json:"steps"`
	Finally []Step            `json:"finally,omitempty"`
	Timeout document.Duration `json:"timeout,omitzero"`
	Resync  document.Duration `json:"resync,omitzero"`
	Retry   *retry.Policy     `json:"retry,omitempty"`
	// Independent steps start at once, and one that fails holds up no other: the drivers that listen to a type.
	Independent bool `json:"independent,omitempty"`
	// Finalize has the drivers' Finalize called in place of Reconcile.
	Finalize bool `json:"finalize,omitempty"`
	// Planned plans have a first step that plans the others, and the others once it has succeeded.
	Planned bool `json:"planned,omitempty"`

	after [][]int // of a graph: the positions of each step's predecessors; nil for any other plan
}

// Listeners is the plan of a resource without a pipeline: a step for each driver, named after it.
func Listeners(drivers []string) *Plan {
	p := &Plan{Independent: true}
	for _, d := range drivers {
		p.Steps = append(p.Steps, Step{ID: d, Driver: d})
	}
	return p
}

// Ready works out the arrows of a graph. Ids that name no step were refused when the plan was made.
func (p *Plan) Ready() *Plan {
	if !isGraph(p.Steps) {
		return p
	}
	p.after = make([][]int, len(p.Steps))
	for i, step := range p.Steps {
		for _, id := range step.After {
			p.after[i] = append(p.after[i], p.Index(id))
		}
		if p.Planned && i > 0 && len(step.After) == 0 {
			p.after[i] = []int{0}
		}
	}
	return p
}

func (p *Plan) Len() int { return len(p.Steps) + len(p.Finally) }

// Step returns the step at a position, not to be changed.
func (p *Plan) Step(i int) *Step {
	if i < len(p.Steps) {
		return &p.Steps[i]
	}
	return &p.Finally[i-len(p.Steps)]
}

// Index returns the position of the step with the id, or -1.
func (p *Plan) Index(id string) int {
	for i := range p.Len() {
		if p.Step(i).ID == id {
			return i
		}
	}
	return -1
}

// Before returns the positions of the steps that must be done before the one at a position may start. What comes
// before the first of Finally is all of Steps, however they went.
func (p *Plan) Before(i int) []int {
	switch {
	case i < len(p.Steps) && p.after != nil:
		return p.after[i]
	case i == 0 || i == len(p.Steps) || i < len(p.Steps) && p.Independent:
		return nil
	default:
		return []int{i - 1}
	}
}

// Next decides: it returns the steps that may start now, in order, and whether the run is over. The states are what
// is recorded of the steps, by position; a retry or a wait that has come due is given as queued. Steps that are to
// stop start nothing more, and are over as soon as none of them runs; then comes Finally, unless that is to stop too.
//
// Invariant: a step is never returned before each of the steps it depends on has a recorded success, skip, or failure
// that is tolerated; and none of Finally before nothing of Steps can run any more.
func (p *Plan) Next(states []State, stop, stopFinally bool) (start []int, over bool) {
	start, over = p.nextOfSteps(states[:len(p.Steps)], stop)
	if !over {
		return start, false
	}
	return p.NextOfFinally(states, stopFinally)
}

func (p *Plan) nextOfSteps(states []State, stop bool) (start []int, over bool) {
	running, waiting, failed := p.survey(states)
	stop = stop || failed && !p.Independent
	if stop {
		return nil, !running
	}
	if p.Independent || p.after != nil {
		start = p.startableSteps(states)
	} else {
		start = p.nextInOrder(states)
	}
	return start, !running && !waiting && len(start) == 0
}

// survey looks for what keeps a run from being over, and for a failure that is not tolerated.
func (p *Plan) survey(states []State) (running, waiting, failed bool) {
	for i, s := range states {
		switch s {
		case Running:
			running = true
		case Retrying, Waiting:
			waiting = true
		case Failed:
			failed = failed || !p.Step(i).ContinueOnError
		}
	}
	return running, waiting, failed
}

// nextInOrder returns the first step that is not done, if it may start.
func (p *Plan) nextInOrder(states []State) []int {
	for i := range states {
		if !p.passed(states, i) {
			if states[i].startable() {
				return only(i)
			}
			return nil
		}
	}
	return nil
}

// startableSteps returns every step that may start and whose predecessors are done.
func (p *Plan) startableSteps(states []State) (start []int) {
	for i, s := range states {
		if s.startable() && !slices.ContainsFunc(p.Before(i), func(b int) bool { return !p.passed(states, b) }) {
			start = append(start, i)
		}
	}
	return start
}

// passed says that a step is done, as far as those after it are concerned.
func (p *Plan) passed(states []State, i int) bool {
	return states[i] == Succeeded || states[i] == Skipped || states[i] == Failed && p.Step(i).ContinueOnError
}

// NextOfFinally goes through Finally in order. A step of it that fails holds up none of the others, for each may be
// the one that puts something back.
func (p *Plan) NextOfFinally(states []State, stop bool) (start []int, over bool) {
	for i := len(p.Steps); i < len(states); i++ {
		switch s := states[i]; {
		case s == Running:
			return nil, false
		case s.Final() || stop:
			continue
		case s.startable():
			return only(i), false
		default:
			return nil, false
		}
	}
	return nil, true
}

// Through says that nothing of Steps can run any more, so that what is left is Finally.
func (p *Plan) Through(states []State, stop bool) bool {
	_, over := p.nextOfSteps(states[:len(p.Steps)], stop)
	return over
}

// Succeeded says that the steps are through and none of them stands in the way of a success.
func (p *Plan) Succeeded(states []State) bool {
	end, _ := p.Outcome(states, StopNone)
	return p.Through(states, false) && end == Succeeded
}

// Outcome decides how the steps of a run that is through with them have ended. The step is the one that made it fail,
// or -1.
func (p *Plan) Outcome(states []State, stop Stop) (end State, step int) {
	failed := -1
	for i, s := range states[:len(p.Steps)] {
		if s == Failed && !p.Steps[i].ContinueOnError {
			failed = i
			break
		}
	}
	switch stop {
	case StopCancel:
		return Canceled, -1
	case StopSupersede:
		return Superseded, -1
	case StopTimeout:
		return Failed, failed
	}
	if failed >= 0 {
		return Failed, failed
	}
	return Succeeded, -1
}

// FailedCleanup returns the first step of Finally whose failure is not tolerated, or -1. It turns a success into a
// failure.
func (p *Plan) FailedCleanup(states []State) int {
	for i := len(p.Steps); i < len(states); i++ {
		if states[i] == Failed && !p.Step(i).ContinueOnError {
			return i
		}
	}
	return -1
}

// PlannerStep is PlanStep for those below.
const PlannerStep = ".plan"

func PlannerName(pipeline string) string { return PlannerStep + "/" + pipeline }

// Unplanned is the plan of a run of a pipeline whose steps are to be planned.
func (p *Plan) Unplanned(pipeline string) *Plan {
	u := *p
	u.Steps = []Step{{ID: PlannerStep, Name: "Plan the steps", Driver: PlannerName(pipeline)}}
	u.Planned = true
	return &u
}

// Plans says that the step at a position is the one that plans the others.
func (p *Plan) Plans(i int) bool { return p.Planned && i == 0 }

// Check keeps [plan.ready] from finding no step for an id.
func (p *Plan) Check() string {
	var f fault.Fields
	CheckGraph(p.Steps, &f)
	if f.Any() {
		return "has steps that wait for each other, or for none that there is"
	}
	if len(p.Steps) == 0 && !p.Finalize {
		return "has no steps"
	}
	return ""
}
