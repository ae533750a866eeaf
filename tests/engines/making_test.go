package engines_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// TestEngines02ARunIsKeptThatIsGivenATurnWhileItIsMade has the commit that makes a run take its time, while another engine saves the
// pipeline again and again. Each time the engine gives the runs of the pipeline a turn. The run is not in the store yet, and must not be
// dropped: then its engine would not find the call that it makes.
func TestEngines02ARunIsKeptThatIsGivenATurnWhileItIsMade(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var cause atomic.Value
		var armed atomic.Bool
		first := w.start("first", conveyor.Options{}, map[string]rig.Func{"a": caused(&cause, 10*lease)}, func(*process, int) fault {
			if armed.CompareAndSwap(true, false) {
				return slow
			}
			return fine
		})
		t.Cleanup(func() { require.NoError(t, first.stop()) })
		second := w.begin("second", nil)
		first.mustSave(rig.PipelineOf("a"))
		time.Sleep(5 * lease)
		armed.Store(true)
		applied := make(chan *conveyor.Run, 1)
		go func() { applied <- first.mustApply(rig.Object("x", 1)) }()
		var run *conveyor.Run
		saved := 0
		for ; run == nil; saved++ {
			p := rig.PipelineOf("a")
			p.Description = fmt.Sprint("definition ", saved)
			second.mustSave(p)
			time.Sleep(time.Millisecond)
			select {
			case run = <-applied:
			default:
			}
		}
		synctest.Wait()
		require.Greater(t, saved, 100, "the commit has taken its time")
		require.NoError(t, first.Cancel(t.Context(), run.ID, "enough"))
		require.Equal(t, conveyor.StateCanceled, untilEnded(t, second.Engine, run.ID, lease).State)
		require.NotNil(t, cause.Load(), "the engine finds the call of its run")
		require.ErrorIs(t, cause.Load().(error), conveyor.ErrCanceled)
	})
}
