package main

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

// asNobody calls fn with the rights of a user who owns dir and is not root. Root could remove anything.
func asNobody(t *testing.T, dir string, fn func()) {
	t.Helper()
	testenv.NeedRoot(t)
	const nobody = 65534
	require.NoError(t, os.Chown(dir, nobody, nobody))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// The file system rights are those of a thread, so that other tests keep theirs. The goroutine never unlocks the
		// thread, and the thread therefore ends with the goroutine.
		runtime.LockOSThread()
		syscall.RawSyscall(syscall.SYS_SETFSGID, nobody, 0, 0)
		syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0)
		fn()
	}()
	<-ended
}

// openFolder returns a new folder that each user can reach.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "conveyor-*")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// leaveReadOnly makes folders in dir from which nothing can be removed, as a test with a module cache of its own does.
func leaveReadOnly(dir string) error {
	inner := filepath.Join(dir, "mod", "cache")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(inner, "file"), nil, 0o400); err != nil {
		return err
	}
	if err := os.Chmod(inner, 0); err != nil { // nobody may even read it
		return err
	}
	return os.Chmod(filepath.Dir(inner), 0o500)
}

func TestWorkspaceIsEmptiedThoughItHasReadOnlyFolders(t *testing.T) {
	work := workspace{root: openFolder(t)}
	asNobody(t, work.root, func() {
		req, _ := newRequest("2")
		for range 2 { // the second attempt finds what the first one left
			_, err := work.fill(req, leaveReadOnly)
			require.NoError(t, err)
		}
		// An attempt that was killed has left a folder under a name of its own.
		killed := filepath.Join(work.root, req.Run, ".2~killed")
		require.NoError(t, leaveReadOnly(killed))
		require.NoError(t, work.lend(req, leaveReadOnly))
		left, err := os.ReadDir(filepath.Join(work.root, req.Run))
		require.NoError(t, err)
		require.Len(t, left, 1, "only the folder of the step stays")

		kept, err := work.prune(func(string) (bool, error) { return false, nil })
		require.NoError(t, kept)
		require.NoError(t, err)
		runs, err := os.ReadDir(work.root)
		require.NoError(t, err)
		require.Empty(t, runs)
	})
}

func TestWorkspaceGoesOnAfterAFolderThatCannotBeRemoved(t *testing.T) {
	work := workspace{root: openFolder(t)}
	foreign := filepath.Join(work.root, "run-1", "of root")
	require.NoError(t, os.MkdirAll(filepath.Join(foreign, "folder"), 0o700))
	asNobody(t, work.root, func() {
		require.NoError(t, os.Mkdir(filepath.Join(work.root, "run-2"), 0o700))
		left, err := work.prune(func(string) (bool, error) { return false, nil })
		require.NoError(t, err)
		require.ErrorContains(t, left, "run-1")
		require.NoDirExists(t, filepath.Join(work.root, "run-2"))
	})
	require.DirExists(t, foreign)
}
