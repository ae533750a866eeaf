// Package plan holds the rules of order: which steps of a run can start, and how the run ends. It must not know the
// store, a clock, a driver, or where the states of the steps are recorded.
package plan

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/retry"
)

// Plan is what a run pins when it starts: the steps, and the order among them. The position of a step counts through
// Steps and then through Finally.
//
// Invariant: a plan does not change after Ready has returned. The runs of one definition share it without a lock.
type Plan struct {
	// Rule is the rule of order by which the steps were written. Ready translates the steps if it is not the present rule.
	Rule    Rule              `json:"rule,omitempty"`
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

	// after is set by Ready: for each of Steps, the positions of its direct predecessors; see [Plan.Before]. It is nil if the
	// plan is not a graph.
	after [][]int
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

// Ready translates steps that were written by an older rule, resolves the ids in After to positions, and returns p. It must
// be called once before a plan that was made or decoded is used. Check reports an id that names no step; Ready passes it
// over.
func (p *Plan) Ready() *Plan {
	p.translate()
	if !isGraph(p.Steps) {
		return p
	}
	positions := positionsOf(p.Steps)
	p.after = make([][]int, len(p.Steps))
	barrier := 0 // the last step without After, which comes after all the steps in front of it
	for i := range p.Steps {
		if p.Steps[i].After == nil {
			for k := barrier; k < i; k++ {
				p.after[i] = append(p.after[i], k)
			}
			barrier = i
			continue
		}
		for _, id := range p.Steps[i].After {
			if k, known := positions[id]; known {
				p.after[i] = append(p.after[i], k)
			}
		}
		if p.Planned && i > 0 && len(p.after[i]) == 0 {
			p.after[i] = []int{0}
		}
	}
	return p
}

// positionsOf returns the position of each step by its id. If several steps have an equal id, which is a fault, the first
// one counts.
func positionsOf(steps []Step) map[string]int {
	positions := make(map[string]int, len(steps))
	for i, step := range slices.Backward(steps) {
		positions[step.ID] = i
	}
	return positions
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

// Before returns the positions of the direct predecessors of a step. A step can start only after its predecessors. A step
// of a graph without After comes after all the steps listed before it; Before returns the last one of them without After,
// which comes after those in front of it, and what is listed between the two. So a plan has few predecessors in all. The
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
	if p.Rule > PresentRule {
		return UnknownRule
	}
	present := Plan{Rule: p.Rule, Steps: p.Steps}
	if isGraph(p.Steps) {
		present.Steps = slices.Clone(p.Steps)
		present.translate()
	}
	var f fault.Fields
	CheckGraph(present.Steps, &f)
	if f.Any() {
		return "has steps that wait for each other, or for none that there is"
	}
	if len(p.Steps) == 0 && !p.Finalize {
		return "has no steps"
	}
	return ""
}
