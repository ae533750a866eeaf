package file_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

// TestAStoreWhoseFileIsGoneAcknowledgesNothingMore takes the file away from under a store, while it is being written.
func TestAStoreWhoseFileIsGoneAcknowledgesNothingMore(t *testing.T) {
	for _, c := range []struct {
		name string
		take func(t *testing.T, path string)
	}{
		{"deleted", func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }},
		{"deleted with its directory", func(t *testing.T, path string) { require.NoError(t, os.RemoveAll(filepath.Dir(path))) }},
		{"replaced by another store", func(t *testing.T, path string) {
			require.NoError(t, open(t, path+".other").Close())
			require.NoError(t, os.Rename(path+".other", path))
		}},
		{"replaced by a text", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".other", []byte("text"), 0o600))
			require.NoError(t, os.Rename(path+".other", path))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "dir", "store.db")
			s := open(t, path)
			taken := make(chan struct{})
			var group sync.WaitGroup
			for caller := range 4 {
				group.Go(func() {
					for i := 0; ; i++ {
						late := false
						select {
						case <-taken:
							late = true
						default:
						}
						_, err := s.Commit(t.Context(), store.Put(fmt.Sprint(caller, i), nil))
						if err != nil {
							if !errors.Is(err, store.ErrClosed) || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrUnknown) {
								t.Error(err)
							}
							return
						}
						if late {
							t.Error("acknowledged, and nowhere to be found")
							return
						}
					}
				})
			}
			c.take(t, path)
			close(taken)
			group.Wait()
			_, err := s.Get(t.Context(), "0 0")
			require.ErrorIs(t, err, store.ErrClosed)
			require.ErrorContains(t, err, path+" must be reopened")
			require.NoError(t, s.Close())
		})
	}
}

func TestAStoreWhoseFileHasAnotherNameGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	require.NoError(t, os.Link(path, path+".link"))
	require.NoError(t, os.Remove(path))
	_, err := s.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = open(t, path+".link").Get(t.Context(), "key")
	require.NoError(t, err)
}
