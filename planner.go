package conveyor

import (
	"context"
	"errors"
	"fmt"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/store"
)

// Planner is an optional ability of a [Pipeline]: its steps are computed for each resource, for a fan-out or a matrix.
// Such a pipeline is given to [Engine.SavePipeline] with no Steps, at each start of every program that shall plan runs of
// it: what a Planner does is code and not on record. Where it is missing, a run of the pipeline is blocked until it is
// saved with one. What [Engine.GetPipeline] returns of it has no steps, and cannot be saved as it is.
type Planner interface {
	// Plan returns the steps of a run of res, which are pinned in the run as if they had been in the definition: in
	// order, or a graph, with their positions as ids where they have none. No steps are fine, and the run has succeeded.
	// The steps are copied; res belongs to the callee.
	//
	// A run calls Plan in a step of its own, the first one, whose id is [PlanStep]. All that is said of
	// [Driver.Reconcile] holds: an error is retried as the pipeline's policy says, a panic is one, ctx ends with the time
	// of the attempt or when the run is canceled, and after a crash Plan is called again, but not once its answer is on
	// record. Steps that are refused, as [PipelineSpec.Validate] would, fail the run. A deletion plans too, and
	// finalizes the steps in the reverse order. Plan is called concurrently for different resources.
	Plan(ctx context.Context, res *Object) ([]Step, error)
}

// PlanStep is the id of the step in which a [Planner] is called. No step of a program can have it.
const PlanStep = ".plan"

// planner is the driver of that step. It is registered under a name that no driver of a program can have.
type planner struct{ Planner }

func plannerName(pipeline string) string { return PlanStep + "/" + pipeline }

func (p planner) Reconcile(ctx context.Context, req *Request) (Result, error) {
	steps, err := p.Plan(ctx, req.Resource)
	if err != nil {
		return Result{}, err
	}
	return Result{kind: resultPlan, output: steps}, nil
}

// unplanned is the plan of a run whose steps are to be planned.
func (s PipelineSpec) unplanned() *plan {
	p := s.plan()
	p.Steps = []Step{{ID: PlanStep, Name: "Plan the steps", Driver: plannerName(s.Name)}}
	p.Planned = true
	return p
}

// plans says that the step at a position is the one that plans the others.
func (p *plan) plans(i int) bool { return p.Planned && i == 0 }

// planned returns the plan with the steps that its first one came to.
func (p *plan) planned(steps []Step, limits Limits) (*plan, error) {
	steps = cloneSteps(steps)
	giveIDs(steps, 0)
	var f fault.Fields
	validateStepLists(steps, p.Finally, &f, limits)
	if err := fieldErrors(f.List()); err != nil {
		return nil, Permanent(fmt.Errorf("plan: %w", err))
	}
	rest := (&plan{Steps: steps}).ready()
	if p.Finalize {
		rest = rest.backwards()
	}
	whole := *p
	whole.Steps = append([]Step{p.Steps[0]}, rest.Steps...)
	if doc, err := document.Marshal(&whole); err != nil {
		return nil, Permanent(fmt.Errorf("plan: %w: cannot be written as JSON: %w", ErrInvalid, err))
	} else if len(doc) > limits.Document {
		return nil, Permanent(fmt.Errorf("plan: %w", tooLarge("steps", len(doc), limits.Document, "bytes as a document")))
	}
	return whole.ready(), nil
}

// extend pins the steps that were planned.
func (d *draft) extend(p *plan) error {
	var old *runState // whose steps are kept as far as the new plan has them
	if d.rec.Of != "" && d.rec.Newest {
		var err error
		old, err = d.s.ledger.run(d.s.base, d.rec.Of)
		if errors.Is(err, ErrNotFound) {
			rec := d.step(0)
			rec.State, rec.Reason = StateFailed, originalGone(d.rec.Of)
			d.states[0] = StateFailed
			return nil
		}
		if err != nil {
			return err
		}
	}
	d.plan, d.extended = p, true
	d.extra = append(d.extra, store.Put(planKey(d.j.id), encode(p)))
	done := d.states[0]
	d.blankStates(p.len())
	d.states[0] = done
	if old != nil {
		d.keep(old)
	}
	return nil
}
