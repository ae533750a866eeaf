package kill_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/baddisk"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// TestAnEngineOnAFullDiskGoesOnWhenThereIsRoom fills a small file system by applying resources.
func TestAnEngineOnAFullDiskGoesOnWhenThereIsRoom(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	onBadDisk(t, "full", &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS})
}

// TestAnEngineOutlivesAFailedSyncAtAnyPoint has one sync of the store fail, the first, then the second, and so on until
// the workload ends without getting there.
func TestAnEngineOutlivesAFailedSyncAtAnyPoint(t *testing.T) {
	t.Parallel()
	onBadDisk(t, "failed sync", nil)
}

// diskEnv tells the test binary that it is a child of these tests, and which one.
const diskEnv = "CONVEYOR_DISK_TEST"

func onBadDisk(t *testing.T, name string, attr *syscall.SysProcAttr) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestDiskChild$", "-test.v", "-test.timeout=9m")
	cmd.Env = append(os.Environ(), diskEnv+"="+name, "TMPDIR="+t.TempDir())
	baddisk.Prepare(cmd)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	for line := range strings.Lines(string(out)) {
		if said, ok := strings.CutPrefix(line, spoken+" "); ok {
			t.Log(said)
		}
	}
}

// TestDiskChild is no test but the main function of the children.
func TestDiskChild(t *testing.T) {
	switch os.Getenv(diskEnv) {
	case "full":
		fillDisk(t)
	case "failed sync":
		failSyncs(t)
	default:
		return
	}
	if !t.Failed() {
		os.Exit(0) // with the disk still as it is, and the directories left to the parent
	}
}

func fillDisk(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("none", dir, "tmpfs", 0, "size=1m"))
	ballast := filepath.Join(dir, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 256<<10), 0o600))

	path := filepath.Join(dir, "records")
	st, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	e, err := conveyor.New(st, conveyor.Options{})
	require.NoError(t, err)
	require.NoError(t, e.Register("d", new(rig.Recorder)))
	require.NoError(t, e.SavePipeline(t.Context(), rig.PipelineOf("d", "d")))
	require.NoError(t, e.Start(t.Context()))
	acknowledged := map[string]string{}
	for i := 0; ; i++ {
		run, err := e.Apply(t.Context(), rig.Object(fmt.Sprint("x", i), strings.Repeat("spec ", 2000)))
		if err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NotErrorIs(t, err, store.ErrUnknown)
			require.NotErrorIs(t, err, store.ErrClosed)
			break
		}
		acknowledged[run.Resource.Name] = run.ID
	}
	// The runs of the last ones may be held up by the disk. Reading works as ever.
	for name, id := range acknowledged {
		run, err := e.GetRun(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, name, run.Resource.Name)
	}
	require.NoError(t, os.Remove(ballast))
	run, err := e.Apply(t.Context(), rig.Object("after", 1))
	require.NoError(t, err)
	acknowledged["after"] = run.ID
	for name, id := range acknowledged {
		run, err := e.Wait(t.Context(), id)
		require.NoError(t, err)
		require.NoError(t, run.Err(), name)
	}
	require.NoError(t, e.Shutdown(t.Context()))
	rig.RequireAtRest(t, st)
	require.NoError(t, st.Close())
	require.NoError(t, file.Check(t.Context(), path, file.Options{}))
	require.Greater(t, len(acknowledged), 5)
	fmt.Println(spoken, len(acknowledged), "applies acknowledged")
}

func failSyncs(t *testing.T) {
	var fails atomic.Int64 // which sync of a file named records fails, counted down
	require.NoError(t, baddisk.Install(func(c baddisk.Call) syscall.Errno {
		switch {
		case c.Op != baddisk.Sync:
			return baddisk.Through
		case filepath.Base(c.Path) == "records" && fails.Add(-1) == 0:
			return syscall.EIO
		}
		return baddisk.Done
	}))
	acknowledged, again, n := 0, 0, int64(1)
	for ; ; n++ {
		acks, calls, reached := failSync(t, &fails, n)
		acknowledged, again = acknowledged+acks, again+calls
		if !reached {
			break
		}
		require.Less(t, n, int64(500), "the workload does not come to an end")
	}
	require.Greater(t, n, int64(20))
	fmt.Println(spoken, n-1, "syncs failed,", acknowledged, "applies acknowledged,", again, "steps called again")
}

func failSync(t *testing.T, fails *atomic.Int64, n int64) (acknowledged, again int, reached bool) {
	c := child{Dir: t.TempDir(), Build: "first", Resources: 2}
	path := filepath.Join(c.Dir, "records")
	st, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	e := c.engine(t, st, io.Discard)
	require.NoError(t, e.Start(t.Context()))
	fails.Store(n)
	generations := map[string]int64{}
	for i := range 4 {
		o := rig.Object(fmt.Sprint("x", i%c.Resources), i)
		run, err := e.Apply(t.Context(), o)
		if err == nil {
			acknowledged++
			generations[o.Name] = o.Generation
			if i == 1 || i == 3 {
				_, err = e.Wait(t.Context(), run.ID)
			}
		}
		if err != nil {
			require.ErrorIs(t, err, syscall.EIO, "sync %d", n)
			require.ErrorIs(t, err, store.ErrClosed, "sync %d", n)
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	require.NoError(t, e.Shutdown(ctx), "sync %d", n)
	reached = fails.Swap(0) <= 0
	if reached {
		_, err = st.Commit(t.Context(), store.Put("more", nil))
		require.ErrorIs(t, err, store.ErrClosed, "sync %d", n)
		require.ErrorIs(t, err, syscall.EIO, "sync %d", n)
	}
	require.NoError(t, st.Close())

	c.Life = 1
	st, err = file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	e = c.engine(t, st, io.Discard)
	require.NoError(t, e.Start(t.Context()))
	for _, run := range rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})) {
		run, err := e.Wait(t.Context(), run.ID)
		require.NoError(t, err)
		require.NoError(t, run.Err())
	}
	for name, generation := range generations {
		o, err := e.Get(t.Context(), conveyor.Key{Type: "r", Name: name})
		require.NoError(t, err, "sync %d", n)
		require.GreaterOrEqual(t, o.Generation, generation, "sync %d", n)
		require.Equal(t, o.Generation, o.Status.ObservedGeneration, "sync %d", n)
	}
	runs := rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{}))
	require.NoError(t, e.Shutdown(t.Context()))
	rig.RequireAtRest(t, st)
	require.NoError(t, st.Close())
	again = requireStepsInOrder(t, readJournal(t, c.Dir), len(runs))
	return acknowledged, again, reached
}
