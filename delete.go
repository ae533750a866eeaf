package conveyor

import (
	"context"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Delete marks a resource as to be deleted, and returns the run that does it. Work under way for the resource is
// canceled, and so are the runs that are queued for it. Then the drivers of its pipeline that are a [Finalizer], or
// those that listen to its type, are finalized in the reverse order of the steps; when all have succeeded, the resource
// and its revisions are gone, in one commit with the end of the run.
//
// Until then Apply and Trigger answer [ErrConflict]. Afterwards the name is free: a resource applied under it is a new
// one, with another ID, whose generations go on from where they were. The run and its log stay.
//
// A deletion is a run like any other: it can be canceled and can fail, and the resource then stays, marked; Delete
// again begins anew. While a deletion is under way, Delete returns its run. It returns [ErrNotFound] if there is no such
// resource, and [ErrClosed] after Shutdown.
func (e *Engine) Delete(ctx context.Context, k Key) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	if text.NameFault(k.Type) != "" || text.NameFault(k.Name) != "" {
		return nil, fmt.Errorf("%w: resource %q", ErrNotFound, text.Truncate(k.String(), 2*text.MaxName))
	}
	run, _, err := e.submit(ctx, k, func(head *resourceRecord) (*submission, error) {
		if head == nil {
			return nil, ErrNotFound
		}
		next := *head
		if head.Deleted != 0 && !head.Status.Phase.Final() {
			return &submission{next: &next}, nil // under way
		}
		revision, err := e.ledger.revision(ctx, k, head.Generation)
		if err != nil {
			return nil, err
		}
		next.Deleted = instant(e.clock.Next(time.Now()))
		return &submission{next: &next, write: true, cause: CauseDeleted, spec: revision.Spec}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", k, err)
	}
	return run, nil
}
