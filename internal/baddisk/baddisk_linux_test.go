package baddisk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/baddisk"
)

func TestACallGetsTheAnswerThatTheTestGives(t *testing.T) {
	const variable = "CONVEYOR_BADDISK_TEST"
	path := filepath.Join(t.TempDir(), "file")
	if os.Getenv(variable) == "" {
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), variable+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	f, err := os.Create(path)
	require.NoError(t, err)
	var mu sync.Mutex
	var calls []baddisk.Call
	answer := baddisk.Through
	answerWith := func(errno syscall.Errno) {
		mu.Lock()
		defer mu.Unlock()
		answer = errno
	}
	require.NoError(t, baddisk.Install(func(c baddisk.Call) syscall.Errno {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, c)
		return answer
	}))
	_, err = f.WriteAt([]byte("hello"), 3)
	require.NoError(t, err)
	answerWith(syscall.EIO)
	_, err = f.WriteAt([]byte("never"), 3)
	require.ErrorIs(t, err, syscall.EIO)
	_, err = f.ReadAt(make([]byte, 2), 4)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, f.Sync(), syscall.EIO)
	require.ErrorIs(t, syscall.Fdatasync(int(f.Fd())), syscall.EIO)
	answerWith(syscall.ENOSPC)
	require.ErrorIs(t, f.Truncate(1), syscall.ENOSPC)
	answerWith(baddisk.Done)
	require.NoError(t, f.Truncate(1))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "\x00\x00\x00hello", string(got))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []baddisk.Call{
		{Op: baddisk.Write, Path: path, Offset: 3, Data: []byte("hello")},
		{Op: baddisk.Write, Path: path, Offset: 3, Data: []byte("never")},
		{Op: baddisk.Read, Path: path, Offset: 4},
		{Op: baddisk.Sync, Path: path}, {Op: baddisk.Sync, Path: path},
		{Op: baddisk.Truncate, Path: path, Offset: 1}, {Op: baddisk.Truncate, Path: path, Offset: 1},
	}, calls)
}
