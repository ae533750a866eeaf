package crash_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

// logReader follows the log of a run through all lives of the process. After a death it goes on after the last line that it
// has got.
type logReader struct {
	run  string
	last int64
	seen map[int64]string // the messages by their numbers
}

func (r *logReader) follow(t *testing.T, ctx context.Context, e *conveyor.Engine, run string) {
	if r.run != run { // the run that the reader has followed was not on record when the process died
		*r = logReader{run: run, seen: map[int64]string{}}
	}
	for line, err := range e.Logs(ctx, run, conveyor.LogOptions{After: r.last, Follow: true}) {
		if err != nil {
			return
		}
		require.Greater(t, line.Seq, r.last)
		r.last = line.Seq
		if line.Dropped == 0 {
			require.NotContains(t, r.seen, line.Seq)
			r.seen[line.Seq] = line.Message
		}
	}
}

// TestLogNumbersAreNotGivenTwice stops the process at each commit, in one life or in two in a row, while two steps log and a
// reader follows. No number is given to two lines, whether the first was on record or not, and a reader that goes on after
// the last line it has got misses none of those that are kept.
func TestLogNumbersAreNotGivenTwice(t *testing.T) {
	stride := testenv.Some(t, 4, 1)
	for _, d := range disks {
		for _, limit := range []int{1_000, 4} {
			t.Run(fmt.Sprint(d.name, "/", limit, " lines"), func(t *testing.T) {
				t.Parallel()
				for _, first := range d.deaths {
					for n := range spread(stride, d.name, limit, first) {
						if !loggedThrough(t, d, limit, mishap{first, n}) {
							break
						}
						for _, m := range []int{1, 2, 3} {
							loggedThrough(t, d, limit, mishap{first, n}, mishap{diesAfter, m})
						}
					}
				}
				for n := range spread(stride, d.name, limit) {
					if !loggedThrough(t, d, limit, mishap{unknownDone, n}) {
						break
					}
				}
			})
		}
	}
}

// loggedThrough runs two steps that log, with one fault in each life. It reports whether the first fault was reached.
func loggedThrough(t *testing.T, d disk, limit int, faults ...mishap) (reached bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Logf("with %v", faults)
			}
		}()
		reopen := d.insert(t)
		reader := new(logReader)
		lines := 0
		for i, f := range append(faults, mishap{}) {
			struck := logLife(t, reopen(), limit, f, reader, &lines)
			reached = reached || struck && i == 0
			time.Sleep(downtime)
		}
		e, err := conveyor.New(reopen(), conveyor.Options{}) // never started
		require.NoError(t, err)
		kept := map[string]int{}
		last := int64(0)
		for line, err := range e.Logs(t.Context(), reader.run, conveyor.LogOptions{}) {
			require.NoError(t, err)
			require.Greater(t, line.Seq, last)
			last = line.Seq
			if line.Dropped == 0 {
				kept[line.Step]++
				require.Equal(t, line.Message, reader.seen[line.Seq], "the reader has seen it under its number")
			}
		}
		for _, n := range kept {
			require.LessOrEqual(t, n, limit)
		}
		require.Positive(t, last)
	})
	return reached
}

// logLife is one life of the process. lines counts the lines of all lives.
func logLife(t *testing.T, disk store.Store, limit int, f mishap, reader *logReader, lines *int) (struck bool) {
	life, die := context.WithCancelCause(context.Background())
	defer die(nil)
	st := &mortal{Store: disk, fault: f, die: func() { die(rig.ErrDied) }}
	e, err := conveyor.New(st, conveyor.Options{Limits: conveyor.Limits{LogLines: limit}})
	require.NoError(t, err)
	var mu sync.Mutex
	require.NoError(t, e.Register("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		for range 7 {
			if life.Err() != nil {
				break // a process that is dead logs nothing
			}
			mu.Lock()
			*lines++
			req.Log.Info(fmt.Sprint("line ", *lines, " of step ", req.Step.ID))
			mu.Unlock()
			time.Sleep(300 * time.Millisecond)
		}
		if req.Attempt == 1 {
			return conveyor.Done(), conveyor.RetryAfter(time.Second, rig.ErrBoom)
		}
		return conveyor.Done(), nil
	})))
	var reading sync.WaitGroup
	err = func() error {
		p := rig.GraphOf("a", "b", "c<a,b")
		if err := e.SavePipeline(life, p); err != nil {
			if err = e.SavePipeline(life, p); err != nil {
				return err
			}
		}
		if err := e.Start(life); err != nil {
			return err
		}
		run, err := e.Apply(life, rig.Object("x", 1))
		if err != nil {
			if run, err = e.Apply(life, rig.Object("x", 1)); err != nil {
				return err
			}
		}
		reading.Go(func() { reader.follow(t, life, e, run.ID) })
		_, err = e.Wait(life, run.ID)
		return err
	}()
	if life.Err() == nil {
		require.NoError(t, err)
		reading.Wait()
		if err := e.Shutdown(life); life.Err() == nil {
			require.NoError(t, err)
		}
	}
	expired, cancel := context.WithDeadline(context.Background(), time.Now())
	_ = e.Shutdown(expired)
	cancel()
	die(nil)
	reading.Wait()
	time.Sleep(3 * time.Second) // the drivers that the process has left behind return
	synctest.Wait()
	return st.struck
}
