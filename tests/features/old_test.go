package features_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store/file"
)

// openOld opens a copy of a file in testdata.
func openOld(t *testing.T, name string) *file.Store {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", name))
	require.NoError(t, err)
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	require.NoError(t, err)
	content, err := io.ReadAll(unpacked)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "conveyor.db")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	st, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return st
}

// TestAFileOfTheFirstVersionIsReadAndItsRunGoesOn opens a file that the first version wrote: each attempt has one kind, and
// the metadata is texts. Resource "waits" is in its second of three steps, "late" ran out of time with something invalid,
// and the driver of "panics" panicked.
func TestAFileOfTheFirstVersionIsReadAndItsRunGoesOn(t *testing.T) {
	st := openOld(t, "first-version.db.gz")
	e := rig.NewOn(t, st, conveyor.Options{})
	labels := map[string]string{"team": "ci", "json": `{"success":true}`, "odd": "<&>\u2028\"\\é"}
	newest := func(name string) (*conveyor.Object, *conveyor.Run) {
		o := e.MustGet(rig.Along(name, name))
		require.Equal(t, labels, o.Metadata)
		require.Nil(t, o.MetadataJSON)
		return o, e.MustGetRun(o.Status.Run)
	}
	_, late := newest("late")
	require.ErrorIs(t, late.Err(), conveyor.ErrInvalid, "the one kind that was recorded")
	require.NotErrorIs(t, late.Err(), conveyor.ErrTimeout)
	_, panics := newest("panics")
	var panicked *conveyor.PanicError
	require.ErrorAs(t, panics.Err(), &panicked)
	require.Equal(t, "kaboom", panicked.Value)
	o, run := newest("waits")
	require.Equal(t, []string{"succeeded", "waiting", "pending"}, rig.StatesOf(run))

	e.Driver("done", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		require.Equal(t, labels, req.Resource.Metadata)
		var n int
		require.NoError(t, req.Output("1", &n))
		require.Equal(t, 1, n)
		return conveyor.Done(), nil
	}))
	e.Driver("wait", rig.DriverOf(rig.Always(conveyor.Done(), nil)))
	e.MustStart()
	require.Equal(t, run.ID, e.MustApply(o).ID, "the metadata is the same")
	require.Equal(t, int64(1), o.Version)
	require.NoError(t, e.Signal(t.Context(), run.ID, "go", nil))
	require.NoError(t, e.Ended(run.ID).Err())
	o = e.MustGet(o)
	o.MetadataJSON = map[string]json.RawMessage{"deleting": json.RawMessage("true")}
	e.MustApply(o)
	require.Equal(t, int64(2), e.MustGet(o).Version)
	require.Equal(t, "true", string(e.MustGet(o).MetadataJSON["deleting"]))
}

// TestTheStepsOfAFileOfTheFirstVersionGoOn opens a file that the first version wrote, and that lacks what the records of
// steps contain today. Resource "halted" was halted by its second step, "polls" has had an error, a requeue and an error,
// "crowded" waits for capacity of the host, the process ended during a call of "logs", which had written lines, "rests" is
// due for a resync, "planned" is being deleted and awaits a signal, and the queued run of "doomed" has become its deletion.
func TestTheStepsOfAFileOfTheFirstVersionGoOn(t *testing.T) {
	e := rig.NewOn(t, openOld(t, "steps-format1.db.gz"), conveyor.Options{})
	newest := func(name string) *conveyor.Run { return e.MustGetRun(e.MustGet(rig.Along(name, name)).Status.Run) }
	halted, polls, crowded, logs, rests, planned, doomed := newest("halted"), newest("polls"), newest("crowded"), newest("logs"), newest("rests"), newest("planned"), newest("doomed")
	require.Equal(t, []string{"succeeded", "succeeded", "skipped"}, rig.StatesOf(halted))
	require.Equal(t, "rejected", halted.Reason)
	require.Equal(t, []string{"retrying"}, rig.StatesOf(polls))
	require.Equal(t, []string{"waiting"}, rig.StatesOf(crowded))
	require.Equal(t, conveyor.StateQueued, doomed.State)
	old := e.AllLogs(logs.ID, conveyor.LogOptions{})
	require.Len(t, old, 3)

	var calls sync.Map // by run: the attempts and whether they were resumed
	register := func(name string, answer rig.Func) {
		e.Driver(name, rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			calls.Store(req.Run+" "+req.Step.ID, fmt.Sprint(req.Attempt, req.Resumed))
			return answer(ctx, req)
		}))
	}
	done := rig.Always(conveyor.Done(), nil)
	register("done", done)
	register("halt", done)
	register("polls", rig.Always(conveyor.Done(), rig.ErrBoom))
	register("crowded", done)
	register("logs", func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		req.Log.Info("new")
		return conveyor.Done(), nil
	})
	undo := new(rig.Recorder)
	e.Driver("fin", rig.Undoing(new(rig.Recorder), undo))
	e.MustStart()

	require.Error(t, e.Ended(polls.ID).Err(), "an error is its third one: a requeue did not end the series when it came")
	require.Len(t, e.MustGetRun(polls.ID).Steps[0].Attempts, 3)
	require.NoError(t, e.Ended(crowded.ID).Err())
	require.NoError(t, e.Ended(logs.ID).Err())
	for id, want := range map[string]string{polls.ID + " 1": "3 false", crowded.ID + " 1": "1 false", logs.ID + " 2": "1 true"} {
		got, _ := calls.Load(id)
		require.Equal(t, want, got)
	}
	lines := e.AllLogs(logs.ID, conveyor.LogOptions{})
	require.Equal(t, old, lines[:3])
	require.Equal(t, "new", lines[3].Message)
	require.Greater(t, lines[3].Seq, old[2].Seq)

	again, err := e.Retry(t.Context(), halted.ID, conveyor.RetryFrom{})
	require.NoError(t, err)
	again = e.Ended(again.ID)
	require.Equal(t, []string{"succeeded", "succeeded", "succeeded"}, rig.StatesOf(again))
	_, first := calls.Load(again.ID + " 1")
	_, second := calls.Load(again.ID + " 2")
	require.Equal(t, []bool{false, true}, []bool{first, second}, "the step that halted the run decides again")

	resynced := e.RunsOf(rig.Along("rests", "rests"))
	for len(resynced) == 1 { // it is made in the background
		runtime.Gosched()
		resynced = e.RunsOf(rig.Along("rests", "rests"))
	}
	require.Equal(t, rests.ID, resynced[0].ID)
	require.Equal(t, conveyor.CauseResync, resynced[1].Cause)

	require.NoError(t, e.Signal(t.Context(), planned.ID, "gone", nil))
	require.NoError(t, e.Ended(planned.ID).Err())
	require.Equal(t, []string{"2", "1"}, undo.Steps())
	require.NoError(t, e.Ended(doomed.ID).Err())
	require.Equal(t, conveyor.CauseDeleted, e.MustGetRun(doomed.ID).Cause)
	for _, name := range []string{"planned", "doomed"} {
		_, err := e.Get(t.Context(), rig.Along(name, name).Key())
		require.ErrorIs(t, err, conveyor.ErrNotFound)
	}
}
