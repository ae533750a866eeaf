//go:build unix

package file_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// modesCount says whether the system keeps the permissions of a file.
const modesCount = true

func TestOpenRefusesWhatIsNoFileAndDoesNotHang(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
	}{
		{"a pipe", func(t *testing.T, path string) { require.NoError(t, syscall.Mkfifo(path, 0o600)) }},
		{"a directory", func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) }},
		{"a socket", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, l.Close()) })
		}},
		{"a device without bytes", func(t *testing.T, path string) { require.NoError(t, os.Symlink("/dev/null", path)) }},
		{"a device without end", func(t *testing.T, path string) { require.NoError(t, os.Symlink("/dev/zero", path)) }},
		{"a link to a directory", func(t *testing.T, path string) { require.NoError(t, os.Symlink(t.TempDir(), path)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "f") // the path of a socket has to be short
			require.NoError(t, err)
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			path := filepath.Join(dir, "f")
			c.make(t, path)
			_, err = file.Open(t.Context(), path, file.Options{})
			require.ErrorIs(t, err, store.ErrCorrupt)
			require.ErrorContains(t, err, path)
			require.Equal(t, err.Error(), file.Check(t.Context(), path, file.Options{}).Error())
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 1)
		})
	}
}

func TestAPathThatLeadsNowhereIsTheErrorOfTheSystem(t *testing.T) {
	for _, c := range []struct {
		name  string
		path  func(dir string) string
		open  error
		check error
	}{
		{"a link to itself", func(dir string) string {
			path := filepath.Join(dir, "loop")
			_ = os.Symlink(path, path)
			return path
		}, syscall.ELOOP, syscall.ELOOP},
		{"a link to nowhere", func(dir string) string {
			path := filepath.Join(dir, "dangling")
			_ = os.Symlink(filepath.Join(dir, "absent"), path)
			return path
		}, fs.ErrNotExist, fs.ErrNotExist},
		{"a name that is too long", func(dir string) string { return filepath.Join(dir, strings.Repeat("x", 300)) },
			syscall.ENAMETOOLONG, syscall.ENAMETOOLONG},
		{"a path that is too long", func(dir string) string { return dir + strings.Repeat("/x", 5000) },
			syscall.ENAMETOOLONG, syscall.ENAMETOOLONG},
		{"a path with a zero in it", func(dir string) string { return filepath.Join(dir, "a\x00b") }, syscall.EINVAL, syscall.EINVAL},
		{"a path below a file", func(dir string) string {
			path := filepath.Join(dir, "file")
			_ = os.WriteFile(path, nil, 0o600)
			return filepath.Join(path, "store.db")
		}, syscall.ENOTDIR, syscall.ENOTDIR},
		{"no path at all", func(string) string { return "" }, fs.ErrNotExist, fs.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(t.TempDir())
			path := c.path(dir)
			before := entriesOf(t, dir)
			_, err := file.Open(t.Context(), path, file.Options{})
			require.ErrorIs(t, err, c.open)
			require.NotErrorIs(t, err, store.ErrCorrupt)
			require.ErrorContains(t, err, path)
			err = file.Check(t.Context(), path, file.Options{})
			require.ErrorIs(t, err, c.check)
			require.NotErrorIs(t, err, store.ErrCorrupt)
			require.Equal(t, before, entriesOf(t, dir), "something is left behind")
			require.Empty(t, entriesOf(t, "."))
		})
	}
}

func entriesOf(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestAFileOfSomebodyElseIsNotCorrupt tests permissions. They have no effect for root, so a child gives up its rights.
func TestAFileOfSomebodyElseIsNotCorrupt(t *testing.T) {
	dir, err := os.MkdirTemp("", "conveyor-") // unlike TempDir, it can be made one that others may enter
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = os.Chmod(filepath.Join(dir, "closed"), 0o700)
		_ = os.RemoveAll(dir)
	})
	require.NoError(t, os.Chmod(dir, 0o755))
	for name, mode := range map[string]fs.FileMode{"nothing": 0, "reading": 0o444} {
		path := filepath.Join(dir, name)
		require.NoError(t, open(t, path).Close())
		require.NoError(t, os.Chmod(path, mode))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "closed"), 0))
	var out bytes.Buffer
	child := childCommand(t, "be nobody", dir)
	child.Stdout, child.Stderr = &out, &out
	require.NoError(t, child.Run(), &out)
}

func init() {
	children["be nobody"] = func(t *childTest, dir string) {
		if os.Geteuid() == 0 {
			require.NoError(t, syscall.Setgid(65534))
			require.NoError(t, syscall.Setuid(65534))
			require.NotZero(t, os.Geteuid())
		} else if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o200 != 0 {
			require.NoError(t, os.Chmod(dir, 0o555)) // it is ours, so that we may make files in it
			defer os.Chmod(dir, 0o755)
		}
		for _, name := range []string{"nothing", "reading", "absent", "closed/store.db", "absent/store.db"} {
			path := filepath.Join(dir, name)
			_, err := file.Open(t.Context(), path, file.Options{})
			require.ErrorIs(t, err, fs.ErrPermission, name)
			require.NotErrorIs(t, err, store.ErrCorrupt, name)
			require.ErrorContains(t, err, path)
		}
		require.ErrorIs(t, file.Check(t.Context(), filepath.Join(dir, "nothing"), file.Options{}), fs.ErrPermission)
		require.NoError(t, file.Check(t.Context(), filepath.Join(dir, "reading"), file.Options{}), "reading is enough for it")
	}
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
