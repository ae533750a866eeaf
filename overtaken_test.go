package conveyor_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Here something comes between two things that a call does to the store.

// first calls fn after the next Get of a key with a prefix.
func (p *probe) first(prefix string, fn func()) {
	p.on(func(key string) {
		if strings.HasPrefix(key, prefix) {
			p.on(nil)
			fn()
		}
	})
}

// TestARunThatBeginsWhileItIsReadIsReadAnew reads a queued run that begins between the reads of its record and of its
// resource's: it is not shown as queued with the generation that it was made for.
func TestARunThatBeginsWhileItIsReadIsReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &probe{Store: memory.New()}
		e := newEngineOn(t, st, conveyor.Options{}).start()
		e.driver("d", driverOf(taking(time.Second)))
		e.pipeline("d")
		e.apply(object("x", 1))
		queued := e.apply(object("x", 2))
		e.apply(object("x", 3))
		st.first("run/"+queued.ID, func() { time.Sleep(1500 * time.Millisecond) })
		run := e.run(queued.ID)
		require.Equal(t, conveyor.StateRunning, run.State)
		require.EqualValues(t, 3, run.Generation)
	})
}

// TestRunsPassesOverARunThatIsRemovedMeanwhile removes an old run while they are listed.
func TestRunsPassesOverARunThatIsRemovedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &probe{Store: memory.New()}
		e := newEngineOn(t, st, conveyor.Options{Retention: conveyor.Retention{Runs: 2}}).start()
		e.driver("d", driverOf(always(conveyor.Done(), nil)))
		e.pipeline("d")
		e.finish(object("x", 1))
		e.finish(object("x", 2))
		var ids []string
		for run, err := range e.Runs(t.Context(), conveyor.RunFilter{Resource: object("x", nil).Key()}) {
			require.NoError(t, err)
			ids = append(ids, run.ID)
			if len(ids) == 1 { // which is kept for one run more, the second of the list not
				e.finish(object("x", 3))
				e.finish(object("x", 4))
				synctest.Wait()
			}
		}
		require.Len(t, ids, 1)
	})
}

// TestGenerationsGoOnFromAResourceThatCameAndWent has a resource come and go while another call is about to create it.
func TestGenerationsGoOnFromAResourceThatCameAndWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &probe{Store: memory.New()}
		e := newEngineOn(t, st, conveyor.Options{}).start()
		e.driver("d", driverOf(always(conveyor.Done(), nil)))
		e.pipeline("d")
		var other *conveyor.Object
		st.first("tmb/r/x", func() {
			other = object("x", 1)
			e.finish(other)
			run, err := e.Delete(t.Context(), other.Key())
			require.NoError(t, err)
			require.NoError(t, e.ended(run.ID).Err())
		})
		o := object("x", 1)
		e.finish(o)
		require.EqualValues(t, 1, other.Generation)
		require.EqualValues(t, 2, o.Generation)
		require.Greater(t, o.ID, other.ID)
	})
}

// TestARunThatLeavesTheLineDoesNotStrandTheOneBeforeIt cancels the last run in line when the first one has read that it
// is there, and looks for it.
func TestARunThatLeavesTheLineDoesNotStrandTheOneBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &probe{Store: memory.New()}
		e := newEngineOn(t, st, conveyor.Options{}).start()
		e.driver("d", driverOf(taking(time.Second)))
		e.save(queueing(pipelineOf("d")))
		e.apply(object("x", 1))
		second, third := e.apply(object("x", 2)), e.apply(object("x", 3))
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		st.first("res/r/x", func() { // of the end of the first run, or of the beginning of the second
			st.first("res/r/x", func() { require.NoError(t, e.Cancel(t.Context(), third.ID, "not needed")) })
		})
		require.NoError(t, e.ended(second.ID).Err())
		require.Equal(t, conveyor.StateCanceled, e.run(third.ID).State)
	})
}
