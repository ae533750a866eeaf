package hostile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// holdings is what a process has that a store or an engine could leave behind.
type holdings struct {
	goroutines, descriptors, locks, maps int
}

// holds counts the goroutines of the process, its open descriptors, and of the files in a folder the locks and the maps.
func holds(t *testing.T, dir string) (h holdings) {
	t.Helper()
	h.goroutines = runtime.NumGoroutine()
	descriptors, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	h.descriptors = len(descriptors)
	for _, line := range linesOf(t, "/proc/locks") {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == fmt.Sprint(os.Getpid()) {
			h.locks++
		}
	}
	for _, line := range linesOf(t, "/proc/self/maps") {
		if strings.Contains(line, dir) {
			h.maps++
		}
	}
	return h
}

func linesOf(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return strings.Split(string(data), "\n")
}

func TestAThousandRoundsLeaveNoGoroutineDescriptorLockOrMap(t *testing.T) {
	testenv.NeedLinux(t)
	rounds := testenv.Bound(t, "CONVEYOR_ROUNDS", testenv.Some(t, 100, 1_000), 100)
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	require.NoError(t, os.WriteFile(foreign, []byte(strings.Repeat("no database", 1000)), 0o600))
	r := &roundTrip{t: t, dir: dir, foreign: foreign, damaged: damagedFile(t, dir)}
	r.play(0) // what is made once
	runtime.GC()
	before := holds(t, dir)
	heap := rig.HeapInUse()
	require.Zero(t, before.locks+before.maps)
	for n := 1; n <= rounds; n++ {
		r.play(n)
	}
	for deadline := time.Now().Add(5 * time.Minute); holds(t, dir) != before && time.Now().Before(deadline); {
		runtime.Gosched() // the last goroutines are about to return
	}
	require.Equal(t, before, holds(t, dir))
	require.LessOrEqual(t, int64(rig.HeapInUse())-int64(heap), int64(4<<20))
	testenv.Figure(t, "%d rounds, 0 goroutines, descriptors, locks and mappings left", rounds)
}

// roundTrip is a program that is started and ended again and again, not always well.
type roundTrip struct {
	t                     *testing.T
	dir, foreign, damaged string
}

// damagedFile makes a file whose only record does not have its checksum.
func damagedFile(t *testing.T, dir string) string {
	path := filepath.Join(dir, "damaged")
	st, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	_, err = st.Commit(t.Context(), store.Put("key", []byte("as it was written")))
	require.NoError(t, err)
	require.NoError(t, st.Close())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(data), "as it was written")
	require.NoError(t, os.WriteFile(path, bytes.ReplaceAll(data, []byte("as it was"), []byte("as it is!")), 0o600))
	return path
}

func (r *roundTrip) play(n int) {
	t, ctx := r.t, r.t.Context()
	path := filepath.Join(r.dir, fmt.Sprint("db", n/100))
	st, err := file.Open(ctx, path, file.Options{})
	require.NoError(t, err)
	r.failToOpen(n, path)
	tapped := &rig.Tap{Store: st}
	e, err := conveyor.New(tapped, conveyor.Options{Observer: conveyor.ObserverFunc(func(context.Context, conveyor.Event) {})})
	require.NoError(t, err)
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	sticks := n%50 == 7
	if !sticks {
		close(release)
	}
	require.NoError(t, e.Register("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		req.Log.Info("hello")
		return conveyor.DoneWith(n), req.Checkpoint(context.Background(), n)
	})))
	require.NoError(t, e.Register("stuck", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		entered <- struct{}{}
		<-release
		return conveyor.Done(), nil
	})))
	require.NoError(t, e.SavePipeline(ctx, rig.PipelineOf("d", "d")))
	require.NoError(t, e.SavePipeline(ctx, rig.Named("stuck", rig.PipelineOf("stuck"))))
	require.NoError(t, e.Start(ctx))
	watched := make(chan error, 1)
	if n%3 == 0 {
		events := e.Watch(ctx, conveyor.WatchOptions{})
		go func() {
			for _, err := range events {
				if err != nil {
					watched <- err
				}
			}
		}()
	}
	run, err := e.Apply(ctx, rig.Object("x", n))
	require.NoError(t, err)
	run, err = e.Wait(ctx, run.ID)
	require.NoError(t, err)
	require.NoError(t, run.Err())

	end, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	switch {
	case n%10 == 3: // dies
		tapped.CutOff()
		require.NoError(t, e.Shutdown(end))
	case sticks: // is left with a driver that is stuck, which returns when all is over
		_, err := e.Apply(ctx, rig.Along("stuck", fmt.Sprint("stuck", n)))
		require.NoError(t, err)
		<-entered
		now, cancel := context.WithDeadline(ctx, time.Now())
		defer cancel()
		require.Error(t, e.Shutdown(now)) // which names the driver, or says that the store is too slow to record it
		defer close(release)
	case n%10 == 8: // closes its store too early
		require.NoError(t, st.Close())
		require.NoError(t, e.Shutdown(end))
	default:
		require.NoError(t, e.Shutdown(end))
	}
	require.NoError(t, st.Close())
	if n%3 == 0 {
		require.ErrorIs(t, <-watched, conveyor.ErrClosed)
	}
}

// failToOpen opens what cannot be opened.
func (r *roundTrip) failToOpen(n int, path string) {
	if n%50 == 9 {
		_, err := file.Open(r.t.Context(), path, file.Options{})
		require.ErrorIs(r.t, err, store.ErrLocked)
	}
	if n%5 == 0 {
		ended, cancel := context.WithCancelCause(r.t.Context())
		cancel(rig.ErrBoom)
		_, err := file.Open(ended, path, file.Options{Wait: true})
		require.True(r.t, errors.Is(err, rig.ErrBoom) || errors.Is(err, store.ErrLocked), err)
		for _, path := range []string{r.foreign, r.damaged} {
			_, err = file.Open(r.t.Context(), path, file.Options{})
			require.ErrorIs(r.t, err, store.ErrCorrupt)
		}
		_, err = file.Open(r.t.Context(), r.dir, file.Options{})
		require.Error(r.t, err)
	}
}
