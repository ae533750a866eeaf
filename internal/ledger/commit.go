package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Commit writes. An outcome that the store does not know is found out by reading back, if that can be done at once.
func (l *Ledger) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	rev, err := l.Store.Commit(ctx, ops...)
	if errors.Is(err, store.ErrUnknown) {
		return l.FindOut(ctx, ops, err)
	}
	return rev, err
}

// ErrNotCommitted is what an unknown outcome turned out to be.
var ErrNotCommitted = errors.New("conveyor: the commit did not happen")

// FindOut tells whether a commit whose outcome is unknown has happened, by the first record that it puts under a
// condition: if it has, the record is this one, and the condition no longer holds. It returns the revision of the
// commit; errNotCommitted; a store.ErrConflict if somebody else wrote since; or unknown, if nothing tells, which is
// beyondRepair too if reading again cannot help.
//
// A record of a run or of one of its steps is changed by one goroutine at a time, and stays as it was put until that
// one knows. A resource's record may have been put, and written over since by another call: then the next one tells, if
// it is there: the generation that came with it.
//
// Where nothing is written under a condition, as with log lines alone, nothing tells, and the answer is errNotCommitted:
// the same writes once more change nothing.
func (l *Ledger) FindOut(ctx context.Context, ops []store.Op, unknown error) (store.Revision, error) {
	repeatable, writtenOver := true, false
	for _, op := range ops {
		repeatable = repeatable && !(op.Writes() && op.Conditional())
		if !op.Conditional() || op.Value() == nil {
			continue
		}
		r, err := l.Store.Get(ctx, op.Key())
		switch {
		case errors.Is(err, store.ErrNotFound) && writtenOver:
			return 0, unknown // it never was, or was removed since
		case errors.Is(err, store.ErrNotFound) && op.Holds(0), err == nil && op.Holds(r.Revision):
			return 0, fmt.Errorf("%w: %w", ErrNotCommitted, TextOnly(unknown))
		case err == nil && string(r.Value) == string(op.Value()):
			return r.Revision, nil
		case err != nil && !errors.Is(err, store.ErrNotFound):
			if Permanent(err) {
				return 0, fmt.Errorf("%w (reading back: %w)", unknown, err)
			}
			return 0, unknown
		case strings.HasPrefix(op.Key(), record.ResourcePrefix):
			writtenOver = true
			continue
		}
		return 0, fmt.Errorf("%w: record %s was written by somebody else", store.ErrConflict, op.Key())
	}
	if repeatable {
		return 0, fmt.Errorf("%w: %w", ErrNotCommitted, TextOnly(unknown))
	}
	return 0, unknown
}

// TextOnly keeps an error's text alone.
func TextOnly(err error) error { return errors.New(err.Error()) }

// Taken returns the record under the first key at which ops want none, if there is one.
func (l *Ledger) Taken(ctx context.Context, ops []store.Op) (store.Record, error) {
	for _, op := range ops {
		if !op.Writes() || !op.Conditional() || !op.Holds(0) {
			continue
		}
		r, err := l.Store.Get(ctx, op.Key())
		if !errors.Is(err, store.ErrNotFound) {
			return r, err
		}
	}
	return store.Record{}, nil
}
