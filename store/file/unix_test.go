//go:build unix

package file_test

import (
	"bytes"
	"fmt"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// modesCount says whether files have the permissions that they were made with.
const modesCount = true

func TestOpenRefusesAPipeAndDoesNotHang(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	_, err := file.Open(t.Context(), path, file.Options{})
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorContains(t, err, path)
}

func TestAFullDiskFailsTheCommitAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	require.NoError(t, open(t, path).Close())
	var out bytes.Buffer
	child := childCommand(t, "fill the disk", path)
	child.Stdout, child.Stderr = &out, &out
	require.NoError(t, child.Run(), &out)

	s := open(t, path)
	rec, err := s.Get(t.Context(), "after")
	require.NoError(t, err)
	require.Equal(t, "room again", string(rec.Value))
}

func init() {
	children["fill the disk"] = func(t *childTest, path string) {
		signal.Ignore(syscall.SIGXFSZ)
		var limit syscall.Rlimit
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
		most := limit.Cur
		s, err := file.Open(t.Context(), path, file.Options{})
		require.NoError(t, err)
		defer s.Close()

		limit.Cur = 300 << 10
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
		n := 0
		for err == nil {
			_, err = s.Commit(t.Context(), store.Put(fmt.Sprint("key", n), make([]byte, 50<<10)))
			n++
		}
		require.ErrorIs(t, err, syscall.EFBIG)
		require.NotErrorIs(t, err, store.ErrUnknown)
		require.NotErrorIs(t, err, store.ErrCorrupt)

		seen := 0
		for _, err := range s.List(t.Context(), store.Query{Prefix: "key"}) {
			require.NoError(t, err)
			seen++
		}
		require.Equal(t, n-1, seen)
		limit.Cur = most
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
		_, err = s.Commit(t.Context(), store.Put("after", []byte("room again")))
		require.NoError(t, err)
	}
}
