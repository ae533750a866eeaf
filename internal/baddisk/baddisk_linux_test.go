package baddisk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/baddisk"
)

// inChild reports whether this process may install the filter. If not, inChild runs the test in a process that may.
func inChild(t *testing.T) bool {
	const variable = "CONVEYOR_BADDISK_TEST"
	if os.Getenv(variable) != "" {
		return true
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"=1")
	baddisk.Prepare(cmd)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return false
}

func TestAProcessThatIsNotPreparedIsRefused(t *testing.T) {
	t.Setenv("GODEBUG", "")
	require.ErrorContains(t, baddisk.Install(nil), "asyncpreemptoff=1")
}

// TestACallIsJudgedOnce has the runtime preempt all goroutines again and again. By default, it does so with signals.
func TestACallIsJudgedOnce(t *testing.T) {
	if !inChild(t) {
		return
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	var judged atomic.Int64
	require.NoError(t, baddisk.Install(func(baddisk.Call) syscall.Errno {
		if judged.Add(1)%2 == 0 {
			return syscall.EIO
		}
		return baddisk.Done
	}))
	var done atomic.Bool
	defer done.Store(true)
	go func() {
		for !done.Load() {
			runtime.GC()
		}
	}()
	for n := int64(1); n <= 5000; n++ {
		if err := f.Sync(); n%2 == 0 {
			require.ErrorIs(t, err, syscall.EIO, "call %d", n)
		} else {
			require.NoError(t, err, "call %d", n)
		}
		require.Equal(t, n, judged.Load())
	}
}

func TestACallGetsTheAnswerThatTheTestGives(t *testing.T) {
	if !inChild(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "file")
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
