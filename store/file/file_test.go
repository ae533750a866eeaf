package file_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/storetest"
)

func TestStore(t *testing.T) {
	paths := map[store.Store]string{}
	openAt := func(t testing.TB, path string) store.Store {
		s, err := file.Open(t.Context(), path, file.Options{})
		require.NoError(t, err)
		paths[s] = path
		return s
	}
	storetest.Run(t, storetest.Harness{
		Open:   func(t testing.TB) store.Store { return openAt(t, filepath.Join(t.TempDir(), "store.db")) },
		Reopen: func(t testing.TB, closed store.Store) store.Store { return openAt(t, paths[closed]) },
	})
}
