package conveyortest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/conveyor-go/conveyor/store"
)

// errCrashed is what everybody gets from the store of a dead process. The engine does not try again after a
// store.ErrClosed.
var errCrashed = fmt.Errorf("conveyortest: the engine has crashed: %w", store.ErrClosed)

// crashStore is a store that stops to answer, as if the process that uses it were no more.
type crashStore struct {
	store.Store
	onCrash func() // called once, with mu held; must not use the store

	// Guards what follows. It is held across a commit of the store below, which is in memory, so that no commit of
	// the dead process comes after the crash.
	mu          sync.Mutex
	commitsLeft int // commits until it dies, that one included; 0 for never
	crashed     bool
}

func (s *crashStore) Get(ctx context.Context, key string) (store.Record, error) {
	if s.isCrashed() {
		return store.Record{}, errCrashed
	}
	return s.Store.Get(ctx, key)
}

func (s *crashStore) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if s.isCrashed() {
			yield(store.Record{}, errCrashed)
			return
		}
		s.Store.List(ctx, q)(yield)
	}
}

func (s *crashStore) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commitsLeft > 0 && slices.ContainsFunc(ops, store.Op.Writes) {
		if s.commitsLeft--; s.commitsLeft == 0 {
			s.crashLocked()
		}
	}
	if s.crashed {
		return 0, errCrashed
	}
	return s.Store.Commit(ctx, ops...)
}

// crashAt has it die at the nth commit from now that writes something.
func (s *crashStore) crashAt(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commitsLeft = max(n, 1)
}

func (s *crashStore) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashLocked()
}

func (s *crashStore) crashLocked() {
	if !s.crashed {
		s.crashed = true
		s.onCrash()
	}
}

func (s *crashStore) isCrashed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashed
}
