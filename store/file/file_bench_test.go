package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/load"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// BenchmarkSync measures one write with its sync, to compare the commits below with. A commit needs two of them.
func BenchmarkSync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	require.NoError(b, err)
	defer f.Close()
	page := make([]byte, 4096)
	_, err = f.Write(make([]byte, 1<<20))
	require.NoError(b, err)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		_, err := f.WriteAt(page, int64(i%256)*4096)
		require.NoError(b, err)
		require.NoError(b, datasync(f))
	}
}

// BenchmarkCommit measures commits of several concurrent callers.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			load.Commits(b, open(b, filepath.Join(b.TempDir(), "store.db")), callers)
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "store.db"))
	keys := make([]string, 1000)
	ops := make([]store.Op, len(keys))
	for i := range keys {
		keys[i] = fmt.Sprintf("run/%012d", i)
		ops[i] = store.Put(keys[i], make([]byte, 150))
	}
	_, err := s.Commit(b.Context(), ops...)
	require.NoError(b, err)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		_, err := s.Get(b.Context(), keys[i%len(keys)])
		require.NoError(b, err)
	}
}

func open(t testing.TB, path string) *file.Store {
	t.Helper()
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}
