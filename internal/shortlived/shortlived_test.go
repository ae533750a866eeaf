package shortlived

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestAStoreThatIsNotSharedKeepsItsKeys(t *testing.T) {
	st := memory.New()
	require.Same(t, st, On(st))
}

func TestEachCallFindsARecordUnderTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewShared()
		st := On(disk)
		rev, err := st.Commit(t.Context(), store.Put("own/e/r1", nil), store.Put("own/e/r2", []byte("x")).IfAbsent(), store.Put("run/r1", nil))
		require.NoError(t, err)
		var kept []string
		for r, err := range disk.List(t.Context(), store.Query{}) {
			require.NoError(t, err)
			kept = append(kept, r.Key)
		}
		require.Equal(t, []string{"run/r1", "~own/e/r1", "~own/e/r2"}, kept)

		r, err := st.Get(t.Context(), "own/e/r2")
		require.NoError(t, err)
		require.Equal(t, store.Record{Key: "own/e/r2", Value: []byte("x"), Revision: rev}, r)
		for prefix, want := range map[string][]string{"own/": {"own/e/r2"}, "run/": {"run/r1"}} {
			var listed []string
			for r, err := range st.List(t.Context(), store.Query{Prefix: prefix, After: map[string]string{"own/": "own/e/r1"}[prefix]}) {
				require.NoError(t, err)
				listed = append(listed, r.Key)
			}
			require.Equal(t, want, listed)
		}
		for c, err := range st.(store.Watcher).Watch(t.Context(), "own/", 0) {
			require.NoError(t, err)
			require.Equal(t, store.Change{Key: "own/e/r1", Revision: rev}, c)
			break
		}

		_, err = st.Commit(t.Context(), store.Check("own/e/r1", rev+1))
		require.ErrorIs(t, err, store.ErrConflict)
		_, err = st.Commit(t.Context(), store.Check("own/e/r1", rev), store.Delete("own/e/r2").If(rev+1))
		require.ErrorIs(t, err, store.ErrConflict)
		_, err = st.Commit(t.Context(), store.Check("own/e/r1", rev), store.Delete("own/e/r2").If(rev), store.Put("sig/r/s/1", nil), store.Delete("own/e/r1"))
		require.ErrorContains(t, err, "second op")
		_, err = st.Commit(t.Context(), store.Check("own/e/r1", rev), store.Delete("own/e/r2").If(rev), store.Put("sig/r/s/1", nil))
		require.NoError(t, err)
		_, err = st.Get(t.Context(), "own/e/r2")
		require.ErrorIs(t, err, store.ErrNotFound)
		require.Equal(t, store.LimitsOf(disk), store.LimitsOf(st))
	})
}
