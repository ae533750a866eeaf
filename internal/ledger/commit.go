package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Commit writes ops in one commit and returns its revision. If the store does not know the outcome of the commit, Commit
// reads back and returns what [Ledger.FindOut] returns.
func (l *Ledger) Commit(ctx context.Context, ops []store.Op) (store.Revision, error) {
	rev, err := l.Store.Commit(ctx, ops...)
	if errors.Is(err, store.ErrUnknown) {
		return l.FindOut(ctx, ops, err)
	}
	return rev, err
}

// ErrNotCommitted means that a commit with an unknown outcome turned out not to have happened. The caller can make the
// same commit again.
var ErrNotCommitted = errors.New("conveyor: the commit did not happen")

// overwritten is a [store.ErrConflict] of a commit whose outcome was unknown: the record that would show whether the commit has happened
// was written since.
type overwritten struct{ error }

// Unwrap returns the conflict.
func (o overwritten) Unwrap() error { return o.error }

// IsOverwritten reports whether a commit that was answered with err has perhaps happened, because another commit has written the record
// that would show it.
func IsOverwritten(err error) bool {
	var o overwritten
	return errors.As(err, &o)
}

// FindOut reads back whether a commit whose outcome is unknown has happened. It looks at the first record that the commit
// puts under a condition. If the commit has happened, that record has the value of the commit, and the condition does not
// hold any more. FindOut returns
//
//   - the revision of the commit if the commit has happened,
//   - an error that wraps [ErrNotCommitted] if it has not,
//   - an error that wraps [store.ErrConflict] if another commit has written the record,
//   - unknown if the records do not show what happened. If reading again cannot help, the error is [Permanent] too.
//
// One goroutine at a time changes the record of a run or of a step. Such a record keeps the value of the commit until that
// goroutine knows the outcome. The record of a resource can have been put by the commit and then overwritten by another
// call, and another call can have put the same record, which does not have the spec. FindOut then looks at the next record of the
// commit: if the revision of the generation is there, the commit has happened.
//
// If the commit puts nothing under a condition, as with log lines alone, FindOut returns an error that wraps
// [ErrNotCommitted], because the same writes can be made again without harm.
func (l *Ledger) FindOut(ctx context.Context, ops []store.Op, unknown error) (store.Revision, error) {
	repeatable, writtenOver := true, false
	var resource store.Revision // of a record of a resource that is as the commit has it
	for _, op := range ops {
		repeatable = repeatable && !(op.Writes() && op.Conditional())
		if !op.Conditional() || op.Value() == nil || (resource != 0 || writtenOver) && !record.IsRevisionKey(op.Key()) {
			continue
		}
		r, err := l.Store.Get(ctx, op.Key())
		switch {
		case errors.Is(err, store.ErrNotFound) && (writtenOver || resource != 0):
			return 0, unknown // it was never written, or it has been removed since, perhaps after the resource was read
		case errors.Is(err, store.ErrNotFound) && op.Holds(0), err == nil && op.Holds(r.Revision):
			return 0, fmt.Errorf("%w: %w", ErrNotCommitted, TextOnly(unknown))
		case err == nil && string(r.Value) == string(op.Value()) && isResource(op):
			resource = r.Revision // the spec is not in it, so that another commit can have written the same
			continue
		case err == nil && string(r.Value) == string(op.Value()):
			return r.Revision, nil
		case err != nil && !errors.Is(err, store.ErrNotFound):
			if Permanent(err) {
				return 0, fmt.Errorf("%w (reading back: %w)", unknown, err)
			}
			return 0, unknown
		case isResource(op):
			writtenOver = true
			continue
		}
		return 0, overwritten{fmt.Errorf("%w: record %q was written by somebody else", store.ErrConflict, op.Key())}
	}
	if resource != 0 {
		return resource, nil
	}
	if repeatable {
		return 0, fmt.Errorf("%w: %w", ErrNotCommitted, TextOnly(unknown))
	}
	return 0, unknown
}

// isResource reports whether an op writes the record of a resource.
func isResource(op store.Op) bool { return strings.HasPrefix(op.Key(), record.ResourcePrefix) }

// TextOnly returns an error with the text of err that wraps nothing.
func TextOnly(err error) error { return errors.New(err.Error()) }

// Taken returns the first record that exists although ops require that there is none, and a zero record if there is no
// such record.
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
