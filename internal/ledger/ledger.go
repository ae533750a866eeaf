// Package ledger reads and writes the records of the engine. It must not know what becomes of a run: it takes no decision,
// starts nothing and waits only for the store.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Ledger reads and writes the records in a store. It keeps the plans and the pipelines that were read last in decoded
// form. A Ledger is safe for concurrent use.
type Ledger struct {
	Store store.Store // opened and closed by the caller of New

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

// New returns a ledger on a store. The caller opens and closes the store.
func New(st store.Store) *Ledger {
	return &Ledger{Store: st, plans: map[string]*plan.Plan{}, pipelines: map[string]pipelineState{}, returned: map[uint64]struct{}{}}
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
