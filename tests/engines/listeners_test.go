package engines_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// TestEngines05AListenerThatIsDownIsKeptWhileAnotherRegisters has the process of a listener be down while another engine applies and
// deletes, and a third one registers another listener at each commit of that. What is changed meanwhile waits for the listener that is
// down, and each listener gets its share once.
func TestEngines05AListenerThatIsDownIsKeptWhileAnotherRegisters(t *testing.T) {
	for _, c := range []struct {
		name string
		kill bool
		wait time.Duration // until the changes come
	}{
		{"it was shut down", false, 2 * lease},
		{"it was killed, and that is known", true, 4 * lease},
		{"it was killed, and that is not known", true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 1; ; n++ {
				struck := false
				inWorld(t, func(t *testing.T, w *world) { struck = registerDuringChanges(t, w, c.kill, c.wait, n) })
				if t.Failed() || !struck {
					require.Greater(t, n, 3)
					break
				}
			}
		})
	}
}

// registerDuringChanges registers a listener at commit n of the changes that the first process makes, and reports whether there was such
// a commit.
func registerDuringChanges(t *testing.T, w *world, kill bool, wait time.Duration, n int) (struck bool) {
	loose := func(name string) *conveyor.Object { return rig.Loose("loose", name, 1) }
	late := rig.Undoing(new(rig.Recorder), new(rig.Recorder))
	another := rig.Undoing(new(rig.Recorder), new(rig.Recorder))
	var third *process
	var armed, hit atomic.Bool
	var commits atomic.Int64
	first := w.start("first", conveyor.Options{}, map[string]rig.Func{"listens to loose": quick}, func(*process, int) fault {
		if armed.Load() && int(commits.Add(1)) == n {
			hit.Store(true)
			require.NoError(t, third.Register("another", another, conveyor.Listen("loose")))
		}
		return fine
	})
	t.Cleanup(func() { require.NoError(t, first.stop()) })
	second := w.start("second", conveyor.Options{}, nil, nil)
	require.NoError(t, second.Register("late", late, conveyor.Listen("loose")))
	third = w.begin("third", nil)
	time.Sleep(2 * lease)
	require.NoError(t, untilEnded(t, third.Engine, first.mustApply(loose("x")).ID, lease).Err())
	require.Len(t, late.All(), 1)

	if kill {
		second.kill()
	}
	require.NoError(t, second.stop())
	time.Sleep(wait)
	armed.Store(true)
	y := first.mustApply(loose("y"))
	deletion, err := first.Delete(t.Context(), loose("x").Key())
	require.NoError(t, err)
	time.Sleep(lease / 2)
	armed.Store(false)
	if !hit.Load() {
		require.NoError(t, third.Register("another", another, conveyor.Listen("loose")))
	}
	runs := []string{y.ID, deletion.ID, first.mustApply(loose("z")).ID}
	time.Sleep(4 * lease)
	for _, id := range runs {
		run, err := third.GetRun(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, conveyor.StateBlocked, run.State, "%s of %s does not wait for the listener that is down", run.Cause, run.Resource.Name)
	}
	require.Len(t, late.All(), 1)
	require.Empty(t, late.Undo.All())

	again := w.start("second-again", conveyor.Options{}, nil, nil)
	require.NoError(t, again.Register("late", late, conveyor.Listen("loose")))
	for _, id := range runs {
		require.NoError(t, untilEnded(t, third.Engine, id, 2*lease).Err())
	}
	require.NoError(t, again.stop())
	require.Equal(t, map[string]int{"x": 1, "y": 1, "z": 1}, perResource(late.Recorder))
	require.Equal(t, map[string]int{"x": 1}, perResource(late.Undo))
	require.Equal(t, 1, perResource(another.Recorder)["z"])
	require.LessOrEqual(t, perResource(another.Recorder)["y"], 1)
	require.LessOrEqual(t, perResource(another.Undo)["x"], 1)
	return hit.Load()
}

// perResource counts the calls of a driver.
func perResource(r *rig.Recorder) map[string]int {
	n := map[string]int{}
	for _, c := range r.All() {
		n[c.Resource]++
	}
	return n
}
