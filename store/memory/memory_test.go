package memory_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
	"github.com/conveyor-go/conveyor/store/storetest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Harness{Open: func(testing.TB) store.Store { return memory.New() }})
}

func TestSharedStore(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open:   func(testing.TB) store.Store { return memory.NewShared() },
		Reopen: func(_ testing.TB, closed store.Store) store.Store { return closed.(*memory.Shared).Join() },
		Join:   func(_ testing.TB, s store.Store) store.Store { return s.(*memory.Shared).Join() },
		Forget: func(_ testing.TB, s store.Store) { s.(*memory.Shared).Forget() },
	})
}

// TestSharedStoreBehindANetwork runs the suite on a store as a server's: it states limits, and loses answers when asked to.
func TestSharedStoreBehindANetwork(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open: func(testing.TB) store.Store { return &remote{Shared: memory.NewShared(), losing: new(losing)} },
		Reopen: func(_ testing.TB, closed store.Store) store.Store {
			old := closed.(*remote)
			return &remote{Shared: old.Join(), losing: old.losing}
		},
		Join: func(_ testing.TB, s store.Store) store.Store {
			of := s.(*remote)
			return &remote{Shared: of.Join(), losing: of.losing}
		},
		Forget: func(_ testing.TB, s store.Store) { s.(*remote).Forget() },
		Lose: func(t testing.TB, s store.Store) (heal func()) {
			of := s.(*remote).losing
			of.on.Store(true)
			t.Cleanup(of.late.Wait)
			return func() {
				of.on.Store(false)
				of.late.Wait()
			}
		},
	})
}

// remote is a store whose commits are made elsewhere.
type remote struct {
	*memory.Shared
	losing *losing
}

// losing is whether the answers of commits get lost. All handles have it in common.
type losing struct {
	on   atomic.Bool
	late sync.WaitGroup // commits that happen after their callers have given up
}

const unknownFor = time.Millisecond

func (r *remote) Limits() store.Limits {
	return store.Limits{Value: 120_000, Ops: 64, Bytes: 150_000, Unknown: unknownFor}
}

func (r *remote) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if err := r.Limits().Check(ops); err != nil {
		return 0, err
	}
	if !r.losing.on.Load() {
		return r.Shared.Commit(ctx, ops...)
	}
	switch rand.IntN(5) {
	case 0:
		return 0, store.ErrUnavailable
	case 1: // the commit did not arrive
		return 0, store.ErrUnknown
	case 2: // its answer did not arrive
		_, _ = r.Shared.Commit(ctx, ops...)
		return 0, store.ErrUnknown
	case 3: // it arrives late
		r.losing.late.Go(func() {
			time.Sleep(rand.N(unknownFor))
			_, _ = r.Shared.Commit(context.WithoutCancel(ctx), ops...)
		})
		return 0, store.ErrUnknown
	}
	return r.Shared.Commit(ctx, ops...)
}
