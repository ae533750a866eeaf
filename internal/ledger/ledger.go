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

// Ledger reads and writes records. It knows what they look like and decides nothing.
type Ledger struct {
	Store store.Store // opened and closed by the caller of New

	mu        sync.Mutex // guards what follows; held for a look-up
	plans     map[string]*plan.Plan
	pipelines map[string]pipelineState
}

// pipelineState is a pipeline's record as it was read last. The record is shared and never changed.
type pipelineState struct {
	Rec *record.Pipeline
	rev store.Revision
}

func New(st store.Store) *Ledger {
	return &Ledger{Store: st, plans: map[string]*plan.Plan{}, pipelines: map[string]pipelineState{}}
}

// Load reads and decodes one record. A record that is not there is a store.ErrNotFound and revision 0.
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

// Permanent tells the errors of a store that another attempt cannot mend.
func Permanent(err error) bool {
	return errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrClosed)
}

// dangling makes an ErrCorrupt of an error that says that a record was not found which another one refers to. Whoever
// may have been overtaken, or finds the other one gone too, still sees the store.ErrNotFound in it.
func dangling(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return err
}
