// Package ledger reads and writes the records of the engine. It must not know what becomes of a run: it takes no decision,
// starts nothing and waits only for the store.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Ledger reads and writes the records in a store. It keeps the plans and the pipelines that were read last in decoded
// form. A Ledger is safe for concurrent use.
type Ledger struct {
	Store store.Store // opened and closed by the caller of New
	Batch int         // the largest number of records that one commit removes; never changed

	mu        sync.Mutex               // guards what follows; held for a look-up and never during a call of the store
	plans     map[string]*plan.Plan    // by the key of their definition; a plan is shared and never changed
	pipelines map[string]pipelineState // by name
	returned  map[uint64]struct{}      // hashes of the keys of all definitions whose pipelines were returned; see hasReturned
}

// pipelineState is the record of a pipeline as it was read last. The record is shared and never changed.
type pipelineState struct {
	Rec *record.Pipeline
	rev store.Revision
}

// open is a store whose owner may close it too early.
type open struct{ store.Store }

// Get implements [store.Store].
func (s open) Get(ctx context.Context, key string) (store.Record, error) {
	r, err := s.Store.Get(ctx, key)
	return r, needed(err)
}

// List implements [store.Store].
func (s open) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	all := s.Store.List(ctx, q)
	return func(yield func(store.Record, error) bool) {
		all(func(r store.Record, err error) bool { return yield(r, needed(err)) })
	}
}

// Commit implements [store.Store].
func (s open) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	rev, err := s.Store.Commit(ctx, ops...)
	return rev, needed(err)
}

// needed says in an error that a store was closed, and nothing else, that the store is needed. An error that says more, such as
// that the store must be reopened, is returned as it is.
func needed(err error) error {
	if err == store.ErrClosed {
		return fmt.Errorf("%w: the engine needs its store until Shutdown has returned, and for each call that reads", err)
	}
	return err
}

// New returns a ledger on a store. The caller opens and closes the store.
func New(st store.Store) *Ledger {
	return &Ledger{
		Store: open{st}, Batch: removeBatch(store.LimitsOf(st)),
		plans: map[string]*plan.Plan{}, pipelines: map[string]pipelineState{}, returned: map[uint64]struct{}{},
	}
}

// Load reads and decodes one record. If there is none, Load returns revision 0 and an error that wraps
// [store.ErrNotFound].
func Load[T any](ctx context.Context, l *Ledger, key string) (*T, store.Revision, error) {
	r, err := l.Store.Get(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	into := new(T)
	if err := record.Decode(r, into); err != nil {
		return nil, 0, err
	}
	return into, r.Revision, nil
}

// Permanent reports whether another attempt cannot help against an error of a store.
func Permanent(err error) bool {
	return errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrClosed)
}

// missingReference adds [store.ErrCorrupt] to an error if it reports that a record was not found to which another record refers.
// The result still wraps [store.ErrNotFound]: a caller whose read is stale, or that finds the other record removed too,
// can recognize the missing reference and read again.
func missingReference(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return err
}
