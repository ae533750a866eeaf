package kill_test

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// perishable is a store that must be reopened after a number of commits, as the file store must after a failed sync.
type perishable struct {
	store.Store
	happens bool // the last commit, though it is reported unknown

	mu   sync.Mutex
	left int // commits; negative for no end
	gone bool
}

var errReopen = fmt.Errorf("%w: it must be reopened: %w", store.ErrClosed, syscall.EIO)

func (s *perishable) perish(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = n
}

func (s *perishable) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return errReopen
	}
	return nil
}

func (s *perishable) Get(ctx context.Context, key string) (store.Record, error) {
	if err := s.err(); err != nil {
		return store.Record{}, err
	}
	return s.Store.Get(ctx, key)
}

func (s *perishable) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if err := s.err(); err != nil {
			yield(store.Record{}, err)
			return
		}
		s.Store.List(ctx, q)(yield)
	}
}

func (s *perishable) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, errReopen
	}
	if s.left--; s.left != 0 {
		return s.Store.Commit(ctx, ops...)
	}
	s.gone = true
	if s.happens {
		if _, err := s.Store.Commit(ctx, ops...); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: %w", store.ErrUnknown, errReopen)
}

// TestAStoreThatMustBeReopenedStopsTheEngineAndLosesNothing has the store perish at each commit of a workload in turn.
// Nobody who calls the engine, or waits for it, is left waiting; it shuts down without another try; and the next engine
// on the records goes on with all that was acknowledged, as rule 8 says.
func TestAStoreThatMustBeReopenedStopsTheEngineAndLosesNothing(t *testing.T) {
	for _, happens := range []bool{false, true} {
		t.Run(fmt.Sprintf("the last commit happens: %t", happens), func(t *testing.T) {
			n := 1
			for ; outlive(t, &perishable{Store: memory.New(), happens: happens}, n); n++ {
				require.Less(t, n, 100, "the workload does not come to an end")
			}
			require.Greater(t, n, 3*4)
		})
	}
}

// TestWaitForARunThatAClosedStoreHasHeldUpBefore waits for a run when the engine has given it up already.
func TestWaitForARunThatAClosedStoreHasHeldUpBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &perishable{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d", "d")
		run := e.MustApply(rig.Object("x", 1))
		st.perish(1)
		time.Sleep(time.Minute)
		_, err := e.Wait(t.Context(), run.ID)
		require.ErrorIs(t, err, store.ErrClosed)
		require.ErrorIs(t, err, syscall.EIO)
	})
}

func outlive(t *testing.T, st *perishable, n int) (reached bool) {
	synctest.Test(t, func(t *testing.T) {
		var d rig.Recorder
		d.Answer = rig.Taking(time.Second)
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", &d)
		e.Pipeline("d", "d", "d")
		st.perish(n)
		began, acknowledged := time.Now(), int64(0)
		for i := range 3 {
			o := rig.Object("x", i)
			run, err := e.Apply(t.Context(), o)
			if err == nil {
				acknowledged = o.Generation
				run, err = e.Wait(t.Context(), run.ID)
			}
			if err != nil {
				require.ErrorIs(t, err, store.ErrClosed)
				require.ErrorIs(t, err, syscall.EIO)
				reached = true
				break
			}
			require.NoError(t, run.Err())
		}
		if !reached {
			return
		}
		_, err := e.Apply(t.Context(), rig.Object("y", 1))
		require.ErrorIs(t, err, store.ErrClosed)
		require.ErrorIs(t, err, syscall.EIO)
		require.NotErrorIs(t, err, store.ErrUnknown)
		_, err = e.Get(t.Context(), conveyor.Key{Type: "r", Name: "x"})
		require.ErrorIs(t, err, store.ErrClosed)
		e.Stop()
		require.LessOrEqual(t, time.Since(began), 9*time.Second, "the engine waited for the store")

		next := rig.NewOn(t, st.Store, conveyor.Options{})
		next.Driver("d", &d)
		next.MustStart()
		for _, run := range rig.Drain(t, next.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})) {
			require.NoError(t, next.Ended(run.ID).Err())
		}
		rig.RequireAtRest(t, st.Store)
		if acknowledged > 0 {
			x := next.MustGet(rig.Object("x", nil))
			require.GreaterOrEqual(t, x.Generation, acknowledged)
			require.Equal(t, x.Generation, x.Status.ObservedGeneration)
		}
		requireCallsInOrder(t, d.All())
	})
	return reached
}

// requireCallsInOrder checks that each run called its steps in turn, and one again only where it was cut off. A start on
// record whose driver was not called any more counts as cut off too.
func requireCallsInOrder(t *testing.T, calls []rig.Call) {
	t.Helper()
	last := map[string]rig.Call{} // by run
	for _, c := range calls {
		was, step := last[c.Run], 0
		if was.Step != "" {
			step, _ = strconv.Atoi(was.Step)
		}
		if c.Resumed && c.Step == was.Step {
			require.Equal(t, was.Key, c.Key)
		} else {
			require.Equal(t, strconv.Itoa(step+1), c.Step)
		}
		last[c.Run] = c
	}
}
