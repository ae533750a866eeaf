package features_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// host has room for some steps at once, and keeps what it was asked.
type host struct {
	room  int
	again time.Duration // after which to ask again

	mu       sync.Mutex
	in, most int
	asked    []conveyor.StepInfo
	released int
}

func (h *host) Admit(_ context.Context, s conveyor.StepInfo) (func(), time.Duration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, s)
	if h.in == h.room {
		return nil, h.again, nil
	}
	h.in++
	h.most = max(h.most, h.in)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.in--
		h.released++
	}, 0, nil
}

func (h *host) seen() (in, most, asked, released int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.in, h.most, len(h.asked), h.released
}

func TestRule10AdmissionHasStepsWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{room: 2, again: 10 * time.Second}
		work := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, conveyor.Options{Admission: h}).MustStart()
		e.Driver("d", work, conveyor.Concurrency(3))
		e.Pipeline("d", "d")
		before := runtime.NumGoroutine()
		var ids []string
		for i := range 20 {
			ids = append(ids, e.MustApply(rig.Object(fmt.Sprint("x", i), nil)).ID)
		}
		time.Sleep(5 * time.Second)
		require.LessOrEqual(t, runtime.NumGoroutine(), before+4, "two workers and what watches their contexts")
		stats, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, stats.Busy)
		require.Equal(t, 2, stats.Slots["d"].Busy)
		waiting := e.MustGetRun(ids[19])
		require.Equal(t, conveyor.StateWaiting, waiting.State)
		require.Equal(t, "step 1: waits for capacity of the host", waiting.Reason)
		for _, id := range ids {
			run := e.Ended(id)
			require.NoError(t, run.Err())
			for _, s := range run.Steps {
				require.Equal(t, 1, s.Attempt)
				require.Zero(t, s.Requeues)
				require.Len(t, s.Attempts, 1)
			}
		}
		require.Len(t, work.All(), 40)
		for _, c := range work.All() {
			require.False(t, c.Resumed)
			require.Equal(t, 1, c.Attempt)
		}
		in, most, asked, released := h.seen()
		require.Zero(t, in)
		require.Equal(t, 2, most)
		require.Equal(t, 40, released)
		require.Greater(t, asked, 40)
		require.Contains(t, h.asked, conveyor.StepInfo{
			Resource: rig.Object("x7", nil).Key(), Pipeline: "p", Run: ids[7], Cause: conveyor.CauseCreated,
			Step: conveyor.Step{ID: "2", Driver: "d"}, Attempt: 1,
		})
	})
}

func TestAdmissionGivesRoomBackHoweverACallEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		step rig.Func
		want conveyor.State
	}{
		{"done", rig.Always(conveyor.Done(), nil), conveyor.StateSucceeded},
		{"error", rig.Always(conveyor.Done(), rig.ErrBoom), conveyor.StateFailed},
		{"requeue, then done", rig.InTurn(rig.Always(conveyor.RequeueAfter(time.Second), nil), rig.Always(conveyor.Done(), nil)), conveyor.StateSucceeded},
		{"panic", func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("kaboom") }, conveyor.StateFailed},
		{"goexit", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			runtime.Goexit()
			return conveyor.Done(), nil
		}, conveyor.StateFailed},
		{"long after it was given up", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(time.Hour)
			return conveyor.Done(), nil
		}, conveyor.StateFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &host{room: 1, again: time.Second}
				work := rig.Recording(c.step)
				e := rig.New(t, conveyor.Options{Admission: h, StepTimeout: time.Minute}).MustStart()
				e.Driver("d", work)
				e.Pipeline("d")
				run := e.Finish(rig.Object("x", nil))
				require.Equal(t, c.want, run.State)
				time.Sleep(10 * time.Hour)
				in, most, _, released := h.seen()
				require.Zero(t, in)
				require.Equal(t, 1, most)
				require.Equal(t, len(work.All()), released, "once for each call")
			})
		})
	}
}

func TestAdmissionThatGoesWrongFailsTheAttempt(t *testing.T) {
	calls := func(first conveyor.AdmissionFunc) conveyor.Admission {
		var once sync.Once
		return conveyor.AdmissionFunc(func(ctx context.Context, s conveyor.StepInfo) (release func(), after time.Duration, err error) {
			mine := false
			once.Do(func() { mine = true })
			if mine {
				return first(ctx, s)
			}
			return nil, 0, nil
		})
	}
	for _, c := range []struct {
		name    string
		first   conveyor.AdmissionFunc
		state   conveyor.State
		attempt int    // at the end
		failure string // of the first attempt
	}{
		{"an error", func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) { return nil, 0, rig.ErrBoom },
			conveyor.StateSucceeded, 2, "admission: boom"},
		{"an error, and a time", func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
			return nil, time.Hour, rig.ErrBoom
		},
			conveyor.StateSucceeded, 2, "admission: boom"},
		{"an error for good", func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
			return nil, 0, conveyor.Permanent(errors.New("it will never fit"))
		}, conveyor.StateFailed, 1, "admission: it will never fit"},
		{"a panic", func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) { panic("kaboom") },
			conveyor.StateSucceeded, 2, "admission: driver panicked: kaboom"},
		{"a goexit", func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
			runtime.Goexit()
			return nil, 0, nil
		}, conveyor.StateSucceeded, 2, "driver panicked: runtime.Goexit was called"},
		{"a call that hangs", func(ctx context.Context, _ conveyor.StepInfo) (func(), time.Duration, error) {
			time.Sleep(5 * time.Minute)
			return nil, 0, nil
		}, conveyor.StateSucceeded, 2, "conveyor: timed out: the attempt took longer than 1m0s, and the driver did not return"},
		{"no release", func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) { return nil, 0, nil },
			conveyor.StateSucceeded, 1, ""},
		{"a release that ends its goroutine", func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
			return runtime.Goexit, 0, nil
		}, conveyor.StateSucceeded, 1, ""},
		{"a release that panics", func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
			return func() { panic("kaboom") }, 0, nil
		}, conveyor.StateSucceeded, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Admission: calls(c.first), StepTimeout: time.Minute}).MustStart()
				e.Driver("d", new(rig.Recorder))
				e.Pipeline("d")
				run := e.Finish(rig.Object("x", nil))
				require.Equal(t, c.state, run.State)
				step := run.Steps[0]
				require.Equal(t, c.attempt, step.Attempt)
				require.Equal(t, c.failure, step.Attempts[0].Error)
			})
		})
	}
}

func TestAdmissionKeepsWhatAStepIsToBeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{room: 1, again: time.Minute}
		work := rig.Recording(rig.InTurn(
			rig.Always(conveyor.Await("go", 0), nil),
			func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
				var payload string
				got, err := req.Signal(&payload)
				return conveyor.DoneWith(fmt.Sprint(got, payload)), err
			},
		))
		e := rig.New(t, conveyor.Options{Admission: h}).MustStart()
		e.Driver("d", work)
		e.Driver("long", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("d")
		e.Save(rig.Named("q", rig.PipelineOf("long")))
		run := e.MustApply(rig.Object("x", nil))
		time.Sleep(time.Second)
		e.MustApply(rig.Along("q", "other")) // takes the room
		time.Sleep(time.Second)
		require.NoError(t, e.Signal(t.Context(), run.ID, "go", "on"))
		time.Sleep(time.Second)
		require.Equal(t, "step 1: waits for capacity of the host", e.MustGetRun(run.ID).Reason)

		e = e.Crashed(conveyor.Options{Admission: h}) // the long step goes on in the dead process, and holds its room
		e.Driver("d", work)
		e.Driver("long", rig.DriverOf(rig.Taking(time.Hour)))
		e.MustStart()
		time.Sleep(30 * time.Minute)
		require.Equal(t, conveyor.StateWaiting, e.MustGetRun(run.ID).State)
		require.JSONEq(t, `"trueon"`, string(e.Ended(run.ID).Steps[0].Output))
		require.Equal(t, []string{"1", "1"}, work.Steps())
	})
}

func TestAdmissionDoesNotHoldUpACancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Admission: &host{room: 0, again: time.Hour}}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Driver("undo", new(rig.Recorder))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("x", nil))
		time.Sleep(time.Minute)
		require.NoError(t, e.Cancel(t.Context(), run.ID, "no room"))
		require.Equal(t, conveyor.StateCanceled, e.Ended(run.ID).State)
		require.Equal(t, "canceled", e.MustGetRun(run.ID).Steps[0].State.String())
	})
}

func TestAdmissionThatOutlivesItsAttemptCallsNoDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := new(rig.Recorder)
		var released atomic.Int64
		e := rig.New(t, conveyor.Options{Admission: conveyor.AdmissionFunc(
			func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) {
				time.Sleep(time.Minute)
				return func() { released.Add(1) }, 0, nil
			})}).MustStart()
		e.Driver("d", work)
		e.Pipeline("d")
		run := e.MustApply(rig.Object("x", 1))
		time.Sleep(time.Second)
		require.NoError(t, e.Cancel(t.Context(), run.ID, ""))
		time.Sleep(10 * time.Second)
		require.Equal(t, conveyor.StateCanceled, e.MustGetRun(run.ID).State)
		time.Sleep(time.Hour)
		require.Equal(t, int64(1), released.Load())
		require.Empty(t, work.All(), "nothing of a canceled run starts any more")
	})
}
