package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Resource returns the record of a resource, and nil with revision 0 if there is none.
func (l *Ledger) Resource(ctx context.Context, k record.Key) (*record.Resource, store.Revision, error) {
	head, rev, err := Load[record.Resource](ctx, l, record.ResourceKey(k))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	return head, rev, err
}

// Revision returns the record of a generation of a resource. If there is none, the error wraps [store.ErrCorrupt] and
// [store.ErrNotFound], because another record refers to the generation.
func (l *Ledger) Revision(ctx context.Context, k record.Key, generation int64) (*record.Revision, error) {
	r, _, err := Load[record.Revision](ctx, l, record.RevisionKey(k, generation))
	if err != nil {
		return nil, fmt.Errorf("generation %d of resource %s: %w", generation, k, missingReference(err))
	}
	return r, nil
}

// Stale reports whether an error can be explained by a stale read: a record that belongs to a resource was not found,
// because the record of the resource has changed or has been removed since it was read at revision rev. The caller then
// must read everything again. Stale also returns true if the record of the resource cannot be read now, because reading
// it again returns the reason.
func (l *Ledger) Stale(ctx context.Context, k record.Key, rev store.Revision, err error) bool {
	if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, fault.NotFound) {
		return false
	}
	_, now, err := l.Resource(ctx, k)
	return err != nil || now != rev
}

// Target returns what the first pending run of a resource is to pin.
func (l *Ledger) Target(ctx context.Context, k record.Key, head *record.Resource) (*record.Target, error) {
	generation := head.Generation
	if head.FixedGeneration != 0 {
		generation = head.FixedGeneration
	}
	revision, err := l.Revision(ctx, k, generation)
	if err != nil {
		return nil, err
	}
	if generation == head.Generation {
		return head.Newest(revision.Spec), nil // with the present metadata
	}
	return &record.Target{
		Generation: generation, Pipeline: revision.Pipeline, Metadata: revision.Metadata, Version: revision.Version,
		Updated: revision.At, UpdatedBy: revision.By, Spec: revision.Spec,
	}, nil
}

// NextPending returns the run that is pending directly behind the first pending run of a resource, and the key of its
// record. It must be called only if the resource has such a run; if the record is missing, the error wraps
// [store.ErrCorrupt].
func (l *Ledger) NextPending(ctx context.Context, k record.Key) (*record.Pending, string, error) {
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.PendingOf(k), Limit: 1}) {
		if err != nil {
			return nil, "", err
		}
		next := new(record.Pending)
		return next, r.Key, record.Decode(r, next)
	}
	return nil, "", fmt.Errorf("%w: resource %s has a pending run without a record", store.ErrCorrupt, k)
}

// IsPending reports whether a queued run is pending behind another pending run. If the record of its place is damaged, the
// run is taken to be pending, because nothing else uses the place.
func (l *Ledger) IsPending(ctx context.Context, run string, rec *record.Run) (bool, error) {
	if rec.Position == 0 {
		return false, nil
	}
	place, _, err := Load[record.Pending](ctx, l, record.PendingKey(rec.Key(), rec.Position))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case errors.Is(err, store.ErrCorrupt):
		return true, nil
	case err != nil:
		return false, err
	}
	return place.Run == run, nil
}
