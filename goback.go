package conveyor

import (
	"context"
	"errors"
	"fmt"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// RetryFrom selects the steps that [Engine.Retry] runs again. The zero value selects the steps that the old run has
// not done: the failed step and the steps that were left.
type RetryFrom struct {
	// Step is the id of the first step to run again. All steps that come after it are run again too. Empty selects
	// the steps that were not done.
	Step string
	// Start runs all steps again; no earlier success is kept. The steps that a [Planner] has planned are not planned
	// again, unless Newest is set. Start and Step exclude each other.
	Start bool
	// Newest uses the steps of the pipeline as it is defined now. A step that was done is kept if the new definition
	// still has its id. By default the new run uses the steps that the old run had pinned.
	Newest bool
}

// Retry repeats an ended run in a new run (see [Run].Of) of the same generation. The steps that were done, and that
// from does not select, are not called again. Their outputs are available to the other steps. Attempts are counted
// from 1 again, and the idempotency keys are new. The Finally steps are run again.
//
// Retry returns:
//
//   - [ErrNotFound] if there is no such run, or if the run has no such step;
//   - [ErrConflict] if the run has not ended, if it was a deletion (call [Engine.Delete] again), if its generation is no
//     longer the newest, or if another run of the resource has not ended;
//   - an [ErrInvalid] if from contradicts itself;
//   - [ErrClosed] after Shutdown.
func (e *Engine) Retry(ctx context.Context, runID string, from RetryFrom) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	if from.Start && from.Step != "" {
		return nil, invalid("from", "has both Start and Step %q", text.Truncate(from.Step, text.MaxName))
	}
	old, err := e.GetRun(ctx, runID)
	if err != nil {
		return nil, err
	}
	switch {
	case !old.State.Final():
		return nil, fmt.Errorf("%w: run %s is %s", ErrConflict, runID, old.State)
	case old.Cause == CauseDeleted:
		return nil, fmt.Errorf("%w: run %s was a deletion", ErrConflict, runID)
	case from.Step != "" && (old.Step(from.Step) == nil || old.Step(from.Step).Finally):
		return nil, fmt.Errorf("%w: step %q of run %s", ErrNotFound, text.Truncate(from.Step, text.MaxName), runID)
	}
	if len(old.Steps) == 0 {
		return e.Trigger(ctx, old.Resource) // it never began, so there is nothing to keep
	}
	first := from.Step
	if from.Start {
		first = run.FromStart
	}
	run, _, err := e.submit(ctx, record.Key(old.Resource), func(head *record.Resource) (*submission, error) {
		switch {
		case head == nil || head.ID != old.ResourceID:
			return nil, ErrNotFound
		case head.Deleted != 0:
			return nil, fmt.Errorf("%w: it is being deleted", ErrConflict)
		case head.Generation != old.Generation:
			return nil, fmt.Errorf("%w: run %s was of generation %d, and %d is the newest", ErrConflict, runID, old.Generation, head.Generation)
		case head.Active != "" || head.Pending != "":
			return nil, fmt.Errorf("%w: run %s has not ended", ErrConflict, head.Active+head.Pending)
		}
		revision, err := e.ledger.Revision(ctx, record.Key(old.Resource), head.Generation)
		if err != nil {
			return nil, err
		}
		next := *head
		return &submission{
			next: &next, cause: record.Retried, spec: revision.Spec,
			of: record.Run{Of: runID, From: first, Newest: from.Newest},
		}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", old.Resource, err)
	}
	return run, nil
}

// Rollback applies an earlier generation of a resource again. The spec and the pipeline of the earlier generation
// become a new generation, which a run reconciles as after [Engine.Apply]. The metadata does not change. If the spec
// and the pipeline are current already, Rollback makes no generation, like Apply.
//
// Rollback returns [ErrNotFound] if there is no such resource or generation, and [ErrClosed] after Shutdown.
// Otherwise it returns what Apply returns.
func (e *Engine) Rollback(ctx context.Context, k Key, generation int64) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	if _, err := e.head(ctx, k); err != nil {
		return nil, err
	}
	run, _, err := e.submit(ctx, record.Key(k), func(head *record.Resource) (*submission, error) {
		if head == nil || generation < head.First || generation > head.Generation {
			return nil, fmt.Errorf("%w: generation %d", ErrNotFound, generation)
		}
		revision, err := e.ledger.Revision(ctx, record.Key(k), generation)
		if errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("%w: generation %d is no longer kept", ErrNotFound, generation)
		}
		if err != nil {
			return nil, err
		}
		o := &Object{Meta: metaOf(k, head), Spec: revision.Spec}
		o.Pipeline = revision.Pipeline
		return e.change(ctx, o, head, false)
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", k, err)
	}
	return run, nil
}
