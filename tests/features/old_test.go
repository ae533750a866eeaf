package features_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store/file"
)

// TestAFileOfTheFirstVersionIsReadAndItsRunGoesOn opens a file that the first version wrote: each attempt has one kind, and
// the metadata is texts. Resource "waits" is in its second of three steps, "late" ran out of time with something invalid,
// and the driver of "panics" panicked.
func TestAFileOfTheFirstVersionIsReadAndItsRunGoesOn(t *testing.T) {
	packed, err := os.Open("testdata/first-version.db.gz")
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
