package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// slowStore takes its time for each commit, and forgets the log lines.
type slowStore struct {
	store.Store
	takes time.Duration

	mu     sync.Mutex
	failed error
}

func (s *slowStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
}

func (s *slowStore) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if failed != nil {
		return 0, failed
	}
	time.Sleep(s.takes)
	var rest []store.Op
	for _, op := range ops {
		if !strings.HasPrefix(op.Key(), "log/") {
			rest = append(rest, op)
		}
	}
	return s.Store.Commit(ctx, rest...)
}

// logHeap is what a step that logs may hold: the lines that wait, those that are being written, and their records.
const logHeap = 5 << 20

// TestAFloodOfLogLinesHoldsAboutAMegabyteAStep has eight steps log without pause, on a store that is slow, or fails. What
// they hold is bounded, and none of them waits for ever.
func TestAFloodOfLogLinesHoldsAboutAMegabyteAStep(t *testing.T) {
	lines := testenv.Some(t, 2_000, 10_000)
	if testenv.Race {
		lines /= 4
	}
	const steps = 8
	for _, c := range []struct {
		name   string
		limit  int
		takes  time.Duration
		failed error
	}{
		{"a slow store", 10_000, time.Second / 10, nil},
		{"a slow store, and more than is kept", 200, time.Second / 10, nil},
		{"a store that fails", 10_000, 0, errors.New("disk on fire")},
		{"a store that has been closed", 10_000, 0, store.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &slowStore{Store: memory.New()}
				e, err := conveyor.New(st, conveyor.Options{Workers: steps, Limits: conveyor.Limits{LogLines: c.limit}})
				require.NoError(t, err)
				text := strings.Repeat("x", 7<<10)
				var logged sync.WaitGroup
				begin, release := make(chan struct{}), make(chan struct{})
				logged.Add(steps)
				require.NoError(t, e.Register("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					<-begin
					for i := range lines {
						req.Log.Info(fmt.Sprint(i, text))
						if c.failed != nil && i%200 == 0 {
							time.Sleep(time.Minute) // in which the store is asked again and again
						}
					}
					logged.Done()
					<-release
					return conveyor.Done(), nil
				})))
				require.NoError(t, e.SavePipeline(t.Context(), rig.PipelineOf("d")))
				require.NoError(t, e.Start(t.Context()))
				var runs []*conveyor.Run
				for i := range steps {
					run, err := e.Apply(t.Context(), rig.Object(fmt.Sprint("x", i), nil))
					require.NoError(t, err)
					runs = append(runs, run)
				}
				synctest.Wait()
				before, began := rig.HeapInUse(), time.Now()
				st.fail(c.failed)
				st.takes = c.takes
				close(begin)
				logged.Wait()
				took, grown := time.Since(began), int64(rig.HeapInUse())-int64(before)
				testenv.Figure(t, "%s: %d bytes of heap for each step, after %s", c.name, grown/steps, took)
				require.LessOrEqual(t, grown, int64(steps*logHeap))
				if c.failed != nil {
					require.LessOrEqual(t, took, time.Duration(lines/200+1)*time.Minute+2*time.Second, "a store that fails delays a driver once")
				}
				st.fail(nil)
				close(release)
				if !errors.Is(c.failed, store.ErrClosed) {
					for _, run := range runs {
						ended, err := e.Wait(t.Context(), run.ID)
						require.NoError(t, err)
						require.NoError(t, ended.Err())
					}
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				_ = e.Shutdown(ctx)
			})
		})
	}
}

// TestADriverWhoseTimeIsOverDoesNotWaitToLog has a driver that logs for ever while the store hangs. Its context ends, and so
// does its wait.
func TestADriverWhoseTimeIsOverDoesNotWaitToLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		text := strings.Repeat("x", 7<<10)
		var late time.Duration
		e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for range 100 {
				req.Log.Info(text)
			}
			deadline, _ := ctx.Deadline()
			time.Sleep(time.Until(deadline) - time.Millisecond)
			for range 1_000 {
				req.Log.Info(text)
			}
			late = time.Since(deadline)
			return conveyor.Done(), nil
		}), conveyor.Timeout(time.Minute))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		began := time.Now()
		e.Store.Refusing(func([]string) error {
			if time.Since(began) > 59*time.Second {
				time.Sleep(time.Minute)
			}
			return nil
		})
		require.NoError(t, e.Ended(run.ID).Err())
		require.Zero(t, late)
		lines := e.AllLogs(run.ID, conveyor.LogOptions{})
		total := 0
		for _, l := range lines {
			total += int(max(l.Dropped, 1))
		}
		require.Equal(t, 1_100, total, "what is dropped is counted")
	})
}
