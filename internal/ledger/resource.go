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

func (l *Ledger) Revision(ctx context.Context, k record.Key, generation int64) (*record.Revision, error) {
	r, _, err := Load[record.Revision](ctx, l, record.RevisionKey(k, generation))
	if err != nil {
		return nil, fmt.Errorf("generation %d of resource %s: %w", generation, k, dangling(err))
	}
	return r, nil
}

// Stale explains an error: a record that belongs to a resource, its newest run for one, was not found, since the
// resource's own record, read before, is another one by now, or gone. Then all of it is to be read again, and so if that
// cannot be told, for the reading will say why.
func (l *Ledger) Stale(ctx context.Context, k record.Key, rev store.Revision, err error) bool {
	if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, fault.NotFound) {
		return false
	}
	_, now, err := l.Resource(ctx, k)
	return err != nil || now != rev
}

// Target returns what the pending run of a resource stands for.
func (l *Ledger) Target(ctx context.Context, k record.Key, head *record.Resource) (*record.Target, error) {
	generation := head.Generation
	if head.Keeps != 0 {
		generation = head.Keeps
	}
	revision, err := l.Revision(ctx, k, generation)
	if err != nil {
		return nil, err
	}
	if generation == head.Generation {
		return head.Newest(revision.Spec), nil // with the metadata as they are now
	}
	return &record.Target{
		Generation: generation, Pipeline: revision.Pipeline, Metadata: revision.Metadata, Version: revision.Version,
		Updated: revision.At, Spec: revision.Spec,
	}, nil
}

// NextPending returns the run that comes after the pending one, and the key of its record.
func (l *Ledger) NextPending(ctx context.Context, k record.Key) (*record.Pending, string, error) {
	for r, err := range l.Store.List(ctx, store.Query{Prefix: record.PendingOf(k), Limit: 1}) {
		if err != nil {
			return nil, "", err
		}
		next := new(record.Pending)
		return next, r.Key, record.Decode(r, next)
	}
	return nil, "", fmt.Errorf("%w: resource %s has a run in line that is not on record", store.ErrCorrupt, k)
}

// IsPending says that a queued run waits behind another one that does.
func (l *Ledger) IsPending(ctx context.Context, rec *record.Run) (bool, error) {
	if rec.Place == 0 {
		return false, nil
	}
	_, err := l.Store.Get(ctx, record.PendingKey(rec.Key(), rec.Place))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
