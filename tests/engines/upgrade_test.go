package engines_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

// needs writes into a record what a newer program writes there: the format that it needs, and a field that this program does not know.
func (f *fleet) needs(key string, format int) {
	f.Helper()
	r, err := f.disk.Get(f.Context(), key)
	require.NoError(f, err)
	var rec map[string]any
	require.NoError(f, json.Unmarshal(r.Value, &rec))
	rec["needs"], rec["newer"] = format, "field"
	value, err := json.Marshal(rec)
	require.NoError(f, err)
	_, err = f.disk.Commit(f.Context(), store.Put(key, value).If(r.Revision))
	require.NoError(f, err)
}

// kept reports whether a record still has the field that this program does not know.
func (f *fleet) kept(key string) bool {
	r, err := f.disk.Get(f.Context(), key)
	require.NoError(f, err)
	return strings.Contains(string(r.Value), `"newer":"field"`)
}

// state returns the state of a run as an engine reads it.
func (f *fleet) state(e *rig.Engine, run string) conveyor.State {
	f.Helper()
	got, err := e.GetRun(f.Context(), run)
	require.NoError(f, err)
	return got.State
}

// resources returns the names of the resources with which a driver was called.
func resources(d *rig.Recorder) (names []string) {
	for _, c := range d.All() {
		names = append(names, c.Resource)
	}
	return names
}

// TestEngines14ARunThatNeedsANewerProgramIsLeftToIt has a program that knows one format less than another one that works on the same
// store.
func TestEngines14ARunThatNeedsANewerProgramIsLeftToIt(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		pure := rig.NewOn(t, f.disk.Join(), conveyor.Options{}) // never started
		pure.Pipeline("d")
		newer := pure.MustApply(rig.Object("newer", 1))
		key := record.RunKey(newer.ID)
		f.needs(key, record.SharedVersion+1)
		same := pure.MustApply(rig.Object("same", 1))
		f.needs(record.RunKey(same.ID), record.SharedVersion) // has a field that it can do without

		d := new(rig.Recorder)
		e := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"d": d})
		require.NoError(t, e.Ended(same.ID).Err())
		after(10 * time.Minute)
		for name, call := range map[string]func() error{
			"Cancel": func() error { return e.Cancel(t.Context(), newer.ID, "") },
			"Signal": func() error { return e.Signal(t.Context(), newer.ID, "go", 1) },
		} {
			err := call()
			require.ErrorIs(t, err, conveyor.ErrUnsupported, name)
			require.ErrorContains(t, err, "its records have format 5, and this program knows 4; make the call with the newer program", name)
		}
		require.Equal(t, conveyor.StateQueued, f.state(e, newer.ID), "it can be read")
		require.True(t, f.kept(key))
		require.Equal(t, []string{"same"}, resources(d))

		f.needs(key, record.SharedVersion) // the newer program could not do more than that
		require.NoError(t, e.Ended(newer.ID).Err())
	})
}

func TestEngines14AResourceThatNeedsANewerProgramIsLeftToIt(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		d := new(rig.Recorder)
		pure := rig.NewOn(t, f.disk.Join(), conveyor.Options{}) // never started
		pure.Pipeline("d")
		run := pure.MustApply(rig.Object("a", 1))
		k := run.Resource
		key := record.ResourceKey(record.Key(k))
		f.needs(key, record.SharedVersion+1)

		e := f.engine(conveyor.Options{}, map[string]conveyor.Driver{"d": d})
		for name, call := range map[string]func() error{
			"Apply":    func() error { _, err := e.Apply(t.Context(), rig.Object("a", 2)); return err },
			"Trigger":  func() error { _, err := e.Trigger(t.Context(), k); return err },
			"Delete":   func() error { _, err := e.Delete(t.Context(), k); return err },
			"Rollback": func() error { _, err := e.Rollback(t.Context(), k, 1); return err },
			"Cancel":   func() error { return e.Cancel(t.Context(), run.ID, "") },
		} {
			require.ErrorIs(t, call(), conveyor.ErrUnsupported, name)
		}
		require.NoError(t, e.Finish(rig.Object("b", 1)).Err(), "another resource")
		after(10 * time.Minute)
		require.True(t, f.kept(key))
		require.Equal(t, conveyor.StateQueued, f.state(e, run.ID))
		require.Equal(t, []string{"b"}, resources(d))
	})
}

func TestEngines14ATakeoverLeavesARunToNewerPrograms(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleet) {
		wait := map[string]conveyor.Driver{"d": rig.Recording(rig.Always(conveyor.Await("go", 0), nil))}
		dead := f.engine(conveyor.Options{}, wait)
		dead.Pipeline("d")
		newer, same := dead.MustApply(rig.Object("newer", 1)), dead.MustApply(rig.Object("same", 1))
		after(time.Minute)
		dead.Store.CutOff()
		f.needs(record.RunKey(newer.ID), record.SharedVersion+1)
		e := f.engine(conveyor.Options{}, wait)
		after(10 * time.Minute)
		require.NoError(t, e.Cancel(t.Context(), same.ID, ""))
		require.Equal(t, conveyor.StateCanceled, e.Ended(same.ID).State)
		require.True(t, f.kept(record.RunKey(newer.ID)))
		owner := ""
		for r := range f.disk.List(t.Context(), store.Query{Prefix: "~own/"}) {
			_, run, err := record.ParseOwnedKey(strings.TrimPrefix(r.Key, "~"))
			require.NoError(t, err)
			require.Equal(t, newer.ID, run)
			owner = r.Key
		}
		require.NotEmpty(t, owner, "a newer engine finds it under the dead one")
	})
}
