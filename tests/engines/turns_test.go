package engines_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// TestEngines03ABegunRunThatLostItsTurnGoesToAFreeEngine has a run wait in an engine all of whose workers are busy for hours.
func TestEngines03ABegunRunThatLostItsTurnGoesToAFreeEngine(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		first, second := rig.Recording(rig.Always(conveyor.RequeueAfter(time.Second), nil)), new(rig.Recorder)
		busy := f.engine(conveyor.Options{Workers: 1}, map[string]conveyor.Driver{"poll": first, "long": rig.Recording(rig.Taking(5 * time.Hour))})
		busy.Pipeline("poll")
		busy.Save(rig.Named("q", rig.PipelineOf("long")))
		alone := busy.MustApply(rig.Object("alone", 1))
		synctest.Wait()
		busy.MustApply(rig.Along("q", "long"))
		synctest.Wait()
		require.Len(t, first.All(), 1)
		after(time.Hour)
		require.Len(t, first.All(), 1, "it waits for the only worker")
		free := f.engine(conveyor.Options{Workers: 1}, map[string]conveyor.Driver{"other": new(rig.Recorder)})
		after(time.Hour)
		require.NotEqual(t, conveyor.StateSucceeded, f.state(free, alone.ID), "the free engine has not got the driver")
		require.NoError(t, free.Register("poll", second))
		began := time.Now()
		require.NoError(t, untilEnded(t, free.Engine, alone.ID, 10*time.Minute).Err())
		require.Less(t, time.Since(began), time.Minute)
		require.Len(t, second.All(), 1)
	})
}

// TestEngines03ARunKeepsItsEngineWhileItsTurnComes has runs wait for a short time in an engine beside a free one.
func TestEngines03ARunKeepsItsEngineWhileItsTurnComes(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		first, second := rig.Recording(rig.Taking(time.Second)), new(rig.Recorder)
		busy := f.engine(conveyor.Options{Workers: 1}, map[string]conveyor.Driver{"d": first})
		f.engine(conveyor.Options{Workers: 1}, map[string]conveyor.Driver{"d": second})
		busy.Save(conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{
			{ID: "a", Driver: "d"}, {ID: "b", Driver: "d", After: []string{"a"}}, {ID: "c", Driver: "d", After: []string{"a"}}, {ID: "e", Driver: "d", After: []string{"a"}},
		}})
		require.NoError(t, busy.Finish(rig.Object("a", 1)).Err())
		require.Len(t, first.All(), 4)
		require.Empty(t, second.All())
	})
}
