package conveyortest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/conveyor-go/conveyor/store"
)

// errCrashed is the error of every call after the crash. It wraps store.ErrClosed, after which the engine does not
// retry.
var errCrashed = fmt.Errorf("conveyortest: the engine has crashed: %w", store.ErrClosed)

// crashStore is a store that refuses every call after a crash, as if the process that uses it had died.
type crashStore struct {
	store.Store
	onCrash func() // called once, with mu held; must not use the store

	// mu guards the fields below. It is held across a commit of the underlying store, which is in memory, so that no
	// commit of the crashed process happens after the crash.
	mu          sync.Mutex
	commitsLeft int // commits until the crash, including the one that crashes; 0 for never
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

// crashAt makes the store crash at the nth commit from now that writes something.
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
