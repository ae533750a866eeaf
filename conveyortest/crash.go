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

// mortal is a store that stops to answer, as if the process that uses it were no more.
type mortal struct {
	store.Store
	died func() // called once, with mu held; must not use the store

	// Guards what follows. It is held across a commit of the store below, which is in memory, so that no commit of
	// the dead process comes after the crash.
	mu   sync.Mutex
	left int // commits until it dies, that one included; 0 for never
	dead bool
}

func (m *mortal) Get(ctx context.Context, key string) (store.Record, error) {
	if m.isDead() {
		return store.Record{}, errCrashed
	}
	return m.Store.Get(ctx, key)
}

func (m *mortal) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if m.isDead() {
			yield(store.Record{}, errCrashed)
			return
		}
		m.Store.List(ctx, q)(yield)
	}
}

func (m *mortal) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left > 0 && slices.ContainsFunc(ops, store.Op.Writes) {
		if m.left--; m.left == 0 {
			m.dieLocked()
		}
	}
	if m.dead {
		return 0, errCrashed
	}
	return m.Store.Commit(ctx, ops...)
}

// dieAt has it die at the nth commit from now that writes something.
func (m *mortal) dieAt(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = max(n, 1)
}

func (m *mortal) die() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dieLocked()
}

func (m *mortal) dieLocked() {
	if !m.dead {
		m.dead = true
		m.died()
	}
}

func (m *mortal) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}
