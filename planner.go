package conveyor

import (
	"context"
	"fmt"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/run"
)

// Planner is an optional interface of a [Pipeline]. It computes the steps for each resource, for instance for a
// fan-out or a matrix.
//
// Such a pipeline has no Steps. Every program that plans runs of the pipeline must pass it to [Engine.SavePipeline]
// at each start, because a Planner is code and is not recorded. If the Planner is missing, a run of the pipeline is
// blocked until the pipeline is saved with one. The definition that [Engine.GetPipeline] returns has no steps and
// cannot be saved as it is.
type Planner interface {
	// Plan returns the steps of a run of res. The steps are pinned in the run as if they were in the definition: they
	// are a list or a graph, and a step without an id gets its position as its id. If Plan returns no steps, the run
	// succeeds. The engine copies the steps. Plan owns res.
	//
	// A run calls Plan in a step of its own. This step is the first one, and its id is [PlanStep]. The rules of
	// [Driver.Reconcile] apply: an error is retried as the retry policy of the pipeline specifies, a panic counts as
	// an error, and ctx ends with the time of the attempt or when the run is canceled. After a crash, Plan is called
	// again unless its result is recorded. If the steps are not valid in the sense of [PipelineSpec.Validate], the
	// run fails. A deletion calls Plan too, and finalizes the steps in the reverse order. Plan is called concurrently
	// for different resources.
	Plan(ctx context.Context, res *Object) ([]Step, error)
}

// PlanStep is the id of the step in which a [Planner] is called. No step of a program can have this id.
const PlanStep = ".plan"

// planner is the driver of that step. It is registered under a name that no driver of a program can have.
type planner struct{ Planner }

func (p planner) Reconcile(ctx context.Context, req *Request) (Result, error) {
	steps, err := p.Plan(ctx, req.Resource)
	if err != nil {
		return Result{}, err
	}
	return Result{kind: run.Planned, output: steps}, nil
}

// plannedBy returns the plan with the steps that its first one came to.
func plannedBy(p *plan.Plan, steps []Step, limits Limits) (*plan.Plan, error) {
	steps = cloneSteps(steps)
	giveIDs(steps, 0)
	var f fault.Fields
	validateStepLists(steps, fromSteps(p.Finally), &f, limits)
	if err := fieldErrors(f.List()); err != nil {
		return nil, Permanent(fmt.Errorf("plan: %w", err))
	}
	rest := (&plan.Plan{Steps: toSteps(steps)}).Ready()
	if p.Finalize {
		rest = rest.Backwards()
	}
	whole := *p
	whole.Steps = append([]plan.Step{p.Steps[0]}, rest.Steps...)
	if doc, err := document.Marshal(&whole); err != nil {
		return nil, Permanent(fmt.Errorf("plan: %w: cannot be written as JSON: %w", ErrInvalid, err))
	} else if len(doc) > limits.Document {
		return nil, Permanent(fmt.Errorf("plan: %w", tooLarge("steps", len(doc), limits.Document, "bytes as a document")))
	}
	return whole.Ready(), nil
}
