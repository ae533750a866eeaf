package histories_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// hooked is a store that does something of its own in the middle of a commit.
type hooked struct {
	store.Store
	during func()
}

func (h hooked) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	h.during()
	return h.Store.Commit(ctx, ops...)
}

// TestAnAppeasedStoreDoesNotDie appeases a store while the commit after which it would die is under way. The keeper of a
// history relies on it: a process that lives when its store has been appeased lives until it is shut down.
func TestAnAppeasedStoreDoesNotDie(t *testing.T) {
	w := &world{tally: &tally{}}
	s := &shaky{w: w, left: 1, after: true, bury: func() {}}
	appeased := make(chan struct{})
	s.Store = hooked{memory.New(), func() {
		go func() {
			defer close(appeased)
			s.appease()
		}()
		for s.mu.TryRLock() { // until the store is about to be appeased, before anything else that locks it
			s.mu.RUnlock()
			runtime.Gosched()
		}
	}}
	_, err := s.Commit(t.Context(), store.Put("k", nil))
	<-appeased
	require.NoError(t, err)
	require.False(t, s.isDead())
}

// TestTheSummaryCountsEachVerdict judges histories that are unsound in one way or another.
func TestTheSummaryCountsEachVerdict(t *testing.T) {
	var tally tally
	for _, v := range []verdict{
		{}, {illegal: []string{"runs"}, undecided: 1, faults: []string{"and more"}}, {undecided: 2}, {faults: []string{"one", "two"}}, {},
	} {
		tally.judged(&v)
	}
	require.Equal(t, "5 histories, 500 operations, 0 deaths of the process, 0 events watched, 1 illegal, 1 undecided, 1 faulty otherwise", tally.summary())
}

func TestAProcessThatDoesNotStartIsAFault(t *testing.T) {
	for _, starts := range []int{0, 1} {
		var tally tally
		w := newWorld(1, 10*operations, &tally) // it is restarted long before they are done
		w.restart = true
		open, begun := inMemory(), 0
		v := happen(t, w, func() (store.Store, error) {
			if begun++; begun > starts {
				return nil, errRefused
			}
			return open()
		})
		require.False(t, v.sound())
		require.Contains(t, v.faults, "the process does not start: "+errRefused.Error())
	}
}
