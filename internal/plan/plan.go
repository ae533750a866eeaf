// Package plan holds the rules of order: which steps of a run can start, and how the run ends. It must not know the
// store, a clock, a driver, or where the states of the steps are recorded.
package plan

import (
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/retry"
)

// Plan is what a run pins when it starts: the steps, and the order among them. The position of a step counts through
// Steps and then through Finally.
//
// Invariant: a plan does not change after Ready has returned. The runs of one definition share it without a lock.
type Plan struct {
	Steps   []Step            `json:"steps"`
	Finally []Step            `json:"finally,omitempty"`
	Timeout document.Duration `json:"timeout,omitzero"`
	Resync  document.Duration `json:"resync,omitzero"`
	Retry   *retry.Policy     `json:"retry,omitempty"`
	// Independent means that all of Steps can start at once, and that a step that fails stops no other step. The plan of a
	// resource without a pipeline is independent; see [Listeners].
	Independent bool `json:"independent,omitempty"`
	// Finalize means that the method Finalize of each driver is called, and not Reconcile.
	Finalize bool `json:"finalize,omitempty"`
	// Planned means that the first of Steps plans the other steps. The other steps are added when the first one has
	// succeeded.
	Planned bool `json:"planned,omitempty"`

	after [][]int // set by Ready: for each of Steps, the positions of its predecessors; nil if the plan is not a graph
}

// Listeners returns the plan of a resource without a pipeline. The plan has one step for each driver, and the id of the
// step is the name of the driver.
func Listeners(drivers []string) *Plan {
	p := &Plan{Independent: true}
	for _, d := range drivers {
		p.Steps = append(p.Steps, Step{ID: d, Driver: d})
	}
	return p
}

// Ready resolves the ids in After to positions, and returns p. It must be called once before a plan that was made or
// decoded is used. Each id must name a step of the plan; Check reports an id that does not.
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

// Len returns the number of steps, with those of Finally.
func (p *Plan) Len() int { return len(p.Steps) + len(p.Finally) }

// Step returns the step at a position. The caller must not change the step.
func (p *Plan) Step(i int) *Step {
	if i < len(p.Steps) {
		return &p.Steps[i]
	}
	return &p.Finally[i-len(p.Steps)]
}

// Index returns the position of the step with an id, or -1 if there is none.
func (p *Plan) Index(id string) int {
	for i := range p.Len() {
		if p.Step(i).ID == id {
			return i
		}
	}
	return -1
}

// Before returns the positions of the direct predecessors of a step. A step can start only after its predecessors. The
// predecessor of a step of Finally is the one in front of it; the first of Finally has none here, although it starts only
// after all of Steps.
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

// Check returns what is wrong with a plan that was read from the store, and an empty text if nothing is. A plan without
// faults can be passed to Ready.
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
