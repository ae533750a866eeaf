package conveyor

import (
	"context"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Delete marks a resource for deletion and returns the run that deletes it. The active run of the resource is
// canceled, and so are the runs that are queued for it. Then the drivers of the resource's pipeline, or the drivers
// that listen to its type, are finalized in the reverse order of the steps, if they are a [Finalizer]. When all
// finalizers have succeeded, the resource and its revisions are removed in the same commit that ends the run.
//
// Until then Apply and Trigger return [ErrConflict]. Afterwards the name is free. A resource that is applied under
// the name later is a new resource with another ID. Its generations continue from those of the deleted resource. The
// run of the deletion and its log are kept.
//
// A deletion is a run like any other: it can be canceled, and it can fail. The resource then stays, and stays marked.
// Another call of Delete begins a new deletion. While a deletion is in progress, Delete returns its run. Delete
// returns [ErrNotFound] if there is no such resource, and [ErrClosed] after Shutdown.
func (e *Engine) Delete(ctx context.Context, k Key) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	if text.NameFault(k.Type) != "" || text.NameFault(k.Name) != "" {
		return nil, fmt.Errorf("%w: resource %q", ErrNotFound, text.Truncate(k.String(), 2*text.MaxName))
	}
	run, _, err := e.submit(ctx, record.Key(k), func(head *record.Resource) (*submission, error) {
		if head == nil {
			return nil, ErrNotFound
		}
		next := *head
		if head.Deleted != 0 && !head.Status.Phase.Final() {
			return &submission{next: &next}, nil // under way
		}
		revision, err := e.ledger.Revision(ctx, record.Key(k), head.Generation)
		if err != nil {
			return nil, err
		}
		next.Deleted = record.Time(e.clock.Next(time.Now()))
		return &submission{next: &next, write: true, cause: record.Deleted, spec: revision.Spec}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", k, err)
	}
	return run, nil
}
