package plan

import (
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/retry"
)

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
