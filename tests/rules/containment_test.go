package rules_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

// brokenError is an error whose text cannot be had, as that of a nil pointer in an error often cannot.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

// brokenOutput panics when it is encoded.
type brokenOutput struct{}

func (brokenOutput) MarshalJSON() ([]byte, error) { panic("no JSON today") }

func TestRule13ADriverThatBreaksFailsItsAttemptAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name   string
		breaks rig.Func
		text   string // of the error
		panics bool
	}{
		{"panic", func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("ouch") }, "driver panicked: ouch", true},
		{"panic with an error", func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic(rig.ErrBoom) }, "driver panicked: boom", true},
		{"panic with nil", func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic(nil) }, "driver panicked: panic called with nil", true},
		{"nil map", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			var m map[string]int
			m["a"]++
			return conveyor.Done(), nil
		}, "assignment to entry in nil map", true},
		{"goexit", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			runtime.Goexit()
			return conveyor.Done(), nil
		}, "runtime.Goexit was called", true},
		{"a nil pointer for an error", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			var e *brokenError
			return conveyor.Done(), e
		}, "nil pointer", true},
		{"an output that panics", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			return conveyor.DoneWith(brokenOutput{}), nil
		}, "no JSON today", true},
		{"an error that wraps itself in a panic", func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), fmt.Errorf("wrapped: %w", &conveyor.PanicError{Value: "other"})
		}, "wrapped", true},
		{"an error", rig.Always(conveyor.Done(), rig.ErrBoom), "boom", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 2}).MustStart()
				e.Driver("bad", rig.DriverOf(rig.InTurn(c.breaks, rig.Always(conveyor.Done(), nil))), conveyor.Concurrency(1))
				e.Driver("good", rig.DriverOf(rig.Taking(time.Minute)))
				e.Pipeline("bad", "bad")
				e.PipelineNamed("q", "good")
				other := rig.Object("other", nil)
				other.Pipeline = "q"
				beside := e.MustApply(other)
				run := e.Finish(rig.Object("a", 1))
				require.NoError(t, run.Err())
				first := run.Steps[0].Attempts[0]
				require.Contains(t, first.Error, c.text)
				require.Equal(t, 1, first.Number)
				require.Len(t, run.Steps[0].Attempts, 2)
				require.NoError(t, e.Ended(beside.ID).Err())
			})
		})
		t.Run(c.name+", for good", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
				e.Driver("bad", rig.DriverOf(c.breaks), conveyor.Concurrency(1), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 2}))
				e.Driver("good", new(rig.Recorder))
				e.Pipeline("bad")
				e.PipelineNamed("q", "good")
				run := e.Finish(rig.Object("a", 1))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Len(t, run.Steps[0].Attempts, 2)
				var step *conveyor.StepError
				require.ErrorAs(t, run.Err(), &step)
				var p *conveyor.PanicError
				require.Equal(t, c.panics, errors.As(run.Err(), &p))
				other := rig.Object("other", nil)
				other.Pipeline = "q"
				require.NoError(t, e.Finish(other).Err(), "worker and slot are free")
				synctest.Wait()
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Zero(t, st.Busy)
				require.Zero(t, st.Stray)
			})
		})
	}
}

func TestRule13APanicKeepsItsStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{ErrorText: 4 << 10}}).MustStart()
		e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return rig.DeepPanic(100) }),
			conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 1}))
		e.Pipeline("d")
		run := e.Finish(rig.Object("a", 1))
		var p *conveyor.PanicError
		require.ErrorAs(t, run.Err(), &p)
		require.Contains(t, string(p.Stack), "DeepPanic")
		require.LessOrEqual(t, len(p.Stack), 4<<10)
		require.Equal(t, string(p.Stack), run.Steps[0].Attempts[0].Stack)
	})
}

func TestRule13AThousandGoexitsLeakNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 3}).MustStart()
		e.Driver("d", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			runtime.Goexit()
			return conveyor.Done(), nil
		}), conveyor.Concurrency(2), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 10}))
		e.Pipeline("d")
		var ids []string
		for i := range 100 {
			ids = append(ids, e.MustApply(rig.Object(fmt.Sprint("n", i), nil)).ID)
		}
		for _, id := range ids {
			require.Equal(t, conveyor.StateFailed, e.Ended(id).State)
		}
		synctest.Wait()
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Busy)
		require.Zero(t, st.Slots["d"].Busy)
	})
}

func TestRule13ADriverThatIgnoresItsTimeoutIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		name string
		late conveyor.Result
		err  error
	}{
		{"and succeeds late", conveyor.DoneWith("late"), nil},
		{"and fails late", conveyor.Done(), rig.ErrBoom},
		{"and halts late", conveyor.Halt("late"), nil},
		{"and asks for a requeue late", conveyor.RequeueAfter(0), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g rig.Gauge
				began := time.Now()
				e := rig.New(t, conveyor.Options{}).MustStart()
				d := rig.Recording(g.Around(rig.ByResource, rig.InTurn(rig.Deaf(time.Hour, c.late, c.err), rig.Taking(time.Second))))
				e.Driver("d", d, conveyor.Timeout(10*time.Second))
				e.Pipeline("d", "d")
				run := e.MustApply(rig.Object("a", 1))
				synctest.Wait()
				require.NoError(t, e.Finish(rig.Object("b", 1)).Err())

				time.Sleep(time.Until(began.Add(10*time.Second + rig.Patience)))
				synctest.Wait()
				given := e.MustGetRun(run.ID)
				require.Equal(t, conveyor.StateRetrying, given.State)
				require.Contains(t, given.Steps[0].Reason, "timed out")
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Equal(t, []int{1, 0, 1}, []int{st.Stray, st.Busy, st.Slots["d"].Busy}, "it keeps its slot, and no worker")

				ended := e.Ended(run.ID)
				require.NoError(t, ended.Err())
				require.Equal(t, began.Add(time.Hour), d.All()[3].Began, "no second call before the first returned")
				require.Empty(t, ended.Steps[0].Output)
				require.Equal(t, 2, ended.Steps[0].Attempt)
				require.Equal(t, 1, g.Peak("a"))
				synctest.Wait()
				st, err = e.Stats(t.Context())
				require.NoError(t, err)
				require.Zero(t, st.Stray)
			})
		})
	}
}

func TestRule13ADriverThatIgnoresACancelDoesNotHoldUpItsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g rig.Gauge
		began := time.Now()
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(g.Around(rig.ByResource, rig.InTurn(rig.Deaf(time.Hour, conveyor.DoneWith("late"), nil), rig.Taking(time.Second))))
		e.Driver("d", d)
		e.Pipeline("d", "d")
		run := e.MustApply(rig.Object("a", 1))
		time.Sleep(time.Minute)
		require.NoError(t, e.Cancel(t.Context(), run.ID, "no more"))
		canceled := e.Ended(run.ID)
		require.Equal(t, conveyor.StateCanceled, canceled.State)
		require.ErrorIs(t, canceled.Err(), conveyor.ErrCanceled)
		require.Equal(t, began.Add(time.Minute+rig.Patience).UTC(), canceled.EndedAt)

		next := e.MustApply(rig.Object("a", 2))
		require.NoError(t, e.Ended(next.ID).Err())
		require.Equal(t, began.Add(time.Hour), d.All()[1].Began)
		require.Equal(t, 1, g.Peak("a"))
		require.Equal(t, canceled, e.MustGetRun(run.ID), "the late result changes nothing")
	})
}

func TestRule13CancelEndsTheContextWithItsCause(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(cause error) (conveyor.Result, error)
		step   string
	}{
		{"returning the cause", func(cause error) (conveyor.Result, error) { return conveyor.Done(), cause }, "canceled"},
		{"returning another error", func(error) (conveyor.Result, error) { return conveyor.Done(), rig.ErrBoom }, "canceled"},
		{"finishing all the same", func(error) (conveyor.Result, error) { return conveyor.DoneWith(1), nil }, "succeeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				causes := make(chan error, 1)
				e.Driver("d", rig.DriverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return c.answer(context.Cause(ctx))
				}))
				e.Pipeline("d", "d")
				run := e.MustApply(rig.Object("a", 1))
				synctest.Wait()
				require.NoError(t, e.Cancel(t.Context(), run.ID, "no more"))
				require.ErrorIs(t, <-causes, conveyor.ErrCanceled)
				ended := e.Ended(run.ID)
				require.Equal(t, conveyor.StateCanceled, ended.State)
				require.Equal(t, "no more", ended.Reason)
				require.Equal(t, []string{c.step, "skipped"}, rig.StatesOf(ended))
				require.ErrorIs(t, e.Cancel(t.Context(), run.ID, ""), conveyor.ErrConflict)
			})
		})
	}
}

func TestRule13CancelEndsARunThatWaitsAtOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		driver rig.Func // nil for none
	}{
		{"for a retry", rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom))},
		{"for a requeue", rig.Always(conveyor.RequeueAfter(time.Hour), nil)},
		{"for a driver", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				if c.driver != nil {
					e.Driver("d", rig.DriverOf(c.driver))
				}
				e.Pipeline("d")
				run := e.MustApply(rig.Object("a", 1))
				synctest.Wait()
				queued := e.MustApply(rig.Object("a", 2))
				require.NoError(t, e.Cancel(t.Context(), queued.ID, "not this one"))
				require.Equal(t, conveyor.StateCanceled, e.Ended(queued.ID).State)
				at := time.Now()
				require.NoError(t, e.Cancel(t.Context(), run.ID, ""))
				ended := e.Ended(run.ID)
				require.Equal(t, conveyor.StateCanceled, ended.State)
				require.Equal(t, at.UTC(), ended.EndedAt)
				require.Equal(t, []string{"canceled"}, rig.StatesOf(ended))
				synctest.Wait()
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Zero(t, st.Unfinished+st.Due+len(st.Blocked))
			})
		})
	}
}

func TestRule13NeverTwoCallsAtOnceForOneResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g rig.Gauge
		e := rig.New(t, conveyor.Options{Workers: 4}).MustStart()
		e.Driver("d", rig.DriverOf(g.Around(rig.ByResource, func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(time.Duration(rand.IntN(20)) * time.Second)
			return [...]conveyor.Result{conveyor.Done(), conveyor.RequeueAfter(time.Second)}[rand.IntN(2)],
				[...]error{nil, nil, rig.ErrBoom}[rand.IntN(3)]
		})), conveyor.Timeout(3*time.Second), conveyor.Concurrency(3))
		e.Pipeline("d", "d", "d")
		for i := range 200 {
			name := fmt.Sprint("n", i%3)
			run := e.MustApply(rig.Object(name, i))
			time.Sleep(time.Duration(rand.IntN(5000)) * time.Millisecond)
			if rand.IntN(3) == 0 {
				if err := e.Cancel(t.Context(), run.ID, ""); err != nil {
					require.ErrorIs(t, err, conveyor.ErrConflict)
				}
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for i := range 3 {
			o := e.MustGet(rig.Object(fmt.Sprint("n", i), nil))
			require.Equal(t, 1, g.Peak(o.Name))
			require.Equal(t, o.Generation, o.Status.ObservedGeneration)
		}
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Unfinished+st.Busy+st.Stray+st.Ready)
	})
}

func TestRule13AnOutputOverTheLimitFailsTheStepForGood(t *testing.T) {
	for _, c := range []struct {
		name   string
		output any
		is     error // nil for accepted
	}{
		{"as large as allowed", strings.Repeat("x", 98), nil},
		{"one byte larger", strings.Repeat("x", 99), conveyor.ErrTooLarge},
		{"huge", strings.Repeat("x", 2<<20), conveyor.ErrTooLarge},
		{"as deep as allowed", [][][]int{{{1}}}, nil},
		{"too deep", [][][][]int{{{{1}}}}, conveyor.ErrTooLarge},
		{"a channel", make(chan int), conveyor.ErrInvalid},
		{"no number", math.NaN(), conveyor.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Output: 100, Depth: 3}}).MustStart()
				d := rig.Recording(rig.Always(conveyor.DoneWith(c.output), nil))
				e.Driver("d", d)
				e.Pipeline("d")
				run := e.Finish(rig.Object("a", 1))
				require.ErrorIs(t, run.Err(), c.is)
				require.Len(t, d.All(), 1)
				require.Equal(t, c.is == nil, run.State == conveyor.StateSucceeded)
				for _, record := range rig.Dump(t, e.Store) {
					require.Less(t, len(record), 1<<10)
				}
			})
		})
	}
}

func TestRule13AnErrorTextIsCutAndMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.Permanent(errors.New(strings.Repeat("é", 1<<20))))))
		e.Driver("skip", rig.DriverOf(rig.Always(conveyor.Skip(strings.Repeat("x", 1<<20)), nil)))
		e.Pipeline("skip", "d")
		run := e.Finish(rig.Object("a", 1))
		for _, text := range []string{run.Reason, run.Steps[0].Reason, run.Steps[1].Reason, run.Steps[1].Attempts[0].Error, e.MustGet(rig.Object("a", 1)).Status.Message} {
			require.LessOrEqual(t, len(text), 8<<10)
			require.Greater(t, len(text), 8<<10-32)
			require.True(t, strings.HasSuffix(text, "[cut]"), text[len(text)-20:])
		}
	})
}

func TestRule13ARequestIsTheDriversOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		var saw []string
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			saw = append(saw, fmt.Sprintf("%s %v %s %v %s", req.Resource.Spec, req.Resource.Metadata, req.Step.With, req.Step.Retry.MaxAttempts, req.Resource.Name))
			for _, b := range [][]byte{req.Resource.Spec, req.Step.With} {
				copy(b, "!!!!!!!!!!!!!!!!!!!")
			}
			req.Resource.Metadata["m"], req.Resource.Metadata["n"] = "changed", "new"
			req.Step.Retry.MaxAttempts = 1
			req.Resource.Name, req.Run, req.Step.ID, req.Attempt, req.Log = "x", "y", "z", 99, nil
			if len(saw) == 1 {
				return conveyor.Done(), rig.ErrBoom
			}
			return conveyor.Done(), nil
		}))
		p := rig.PipelineOf("d", "d")
		for i := range p.Steps {
			p.Steps[i].With = []byte(`{"with":1}`)
			p.Steps[i].Retry = &conveyor.RetryPolicy{MaxAttempts: 5}
		}
		e.Save(p)
		o := rig.Object("a", "spec")
		o.Metadata = map[string]string{"m": "mine"}
		run := e.MustApply(o)
		copy(o.Spec, "!!!!!!")
		o.Metadata["m"] = "not mine"
		p.Steps[1].With[1], p.Steps[1].Retry.MaxAttempts = '!', 1
		require.NoError(t, e.Ended(run.ID).Err())
		one := `"spec" map[m:mine] {"with":1} 5 a`
		require.Equal(t, []string{one, one, one}, saw)
		require.Equal(t, `"spec"`, string(e.MustGet(o).Spec))
		for _, step := range e.MustGetRun(run.ID).Steps {
			require.JSONEq(t, `{"with":1}`, string(step.With))
		}
	})
}

func TestRule13ADriverMayCallAnyMethodOnItsOwnResource(t *testing.T) {
	key := conveyor.Key{Type: "r", Name: "a"}
	for _, c := range []struct {
		name string
		call func(ctx context.Context, e *rig.Engine, req *conveyor.Request) error
		ends conveyor.State // of the run
		runs int
	}{
		{"Apply", func(ctx context.Context, e *rig.Engine, _ *conveyor.Request) error {
			_, err := e.Apply(ctx, rig.Object("a", "new"))
			return err
		}, conveyor.StateSucceeded, 2},
		{"Apply of a new one", func(ctx context.Context, e *rig.Engine, req *conveyor.Request) error {
			if req.Resource.Name != "a" {
				return nil
			}
			_, err := e.Apply(ctx, rig.Object("b", "new"))
			return err
		}, conveyor.StateSucceeded, 1},
		{"Get, List and Revisions", func(ctx context.Context, e *rig.Engine, _ *conveyor.Request) error {
			_, err := e.Get(ctx, key)
			n := len(rig.Drain(e.T, e.List(ctx, conveyor.ResourceFilter{}))) + len(rig.Drain(e.T, e.Revisions(ctx, key)))
			return errors.Join(err, want(2, n))
		}, conveyor.StateSucceeded, 1},
		{"Trigger", func(ctx context.Context, e *rig.Engine, req *conveyor.Request) error {
			if req.Cause == conveyor.CauseTriggered {
				return nil
			}
			_, err := e.Trigger(ctx, key)
			return err
		}, conveyor.StateSucceeded, 2},
		{"GetRun, Runs and Logs", func(ctx context.Context, e *rig.Engine, req *conveyor.Request) error {
			req.Log.Info("hello")
			_, err := e.GetRun(ctx, req.Run)
			n := len(rig.Drain(e.T, e.Runs(ctx, conveyor.RunFilter{}))) + len(rig.Drain(e.T, e.Logs(ctx, req.Run, conveyor.LogOptions{})))
			return errors.Join(err, want(2, n))
		}, conveyor.StateSucceeded, 1},
		{"Wait and Logs", func(ctx context.Context, e *rig.Engine, req *conveyor.Request) error {
			if _, err := e.Wait(ctx, req.Run); !errors.Is(err, conveyor.ErrConflict) {
				return fmt.Errorf("wait: %w", err)
			}
			for _, err := range e.Logs(ctx, req.Run, conveyor.LogOptions{Follow: true}) {
				if !errors.Is(err, conveyor.ErrConflict) {
					return fmt.Errorf("logs: %w", err)
				}
			}
			return nil
		}, conveyor.StateSucceeded, 1},
		{"Cancel", func(ctx context.Context, e *rig.Engine, req *conveyor.Request) error {
			err := e.Cancel(ctx, req.Run, "myself")
			if context.Cause(ctx) == nil {
				return rig.ErrBoom
			}
			return err
		}, conveyor.StateCanceled, 1},
		{"Register and Stats", func(ctx context.Context, e *rig.Engine, _ *conveyor.Request) error {
			err := e.Register("another", new(rig.Recorder), conveyor.Listen("r"))
			_, statsErr := e.Stats(ctx)
			return errors.Join(err, statsErr)
		}, conveyor.StateSucceeded, 1},
		{"SavePipeline and DeletePipeline", func(ctx context.Context, e *rig.Engine, _ *conveyor.Request) error {
			return errors.Join(e.SavePipeline(ctx, rig.PipelineOf("x")), e.DeletePipeline(ctx, "p"), want(0, len(rig.Drain(e.T, e.Pipelines(ctx)))))
		}, conveyor.StateSucceeded, 1},
		{"Start", func(ctx context.Context, e *rig.Engine, _ *conveyor.Request) error {
			if err := e.Start(ctx); !errors.Is(err, conveyor.ErrConflict) {
				return fmt.Errorf("start: %w", err)
			}
			return nil
		}, conveyor.StateSucceeded, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
				e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					return conveyor.Done(), conveyor.Permanent(c.call(ctx, e, req))
				}), conveyor.Concurrency(1))
				e.Pipeline("d")
				run := e.Ended(e.MustApply(rig.Object("a", nil)).ID)
				require.Equal(t, c.ends, run.State, run.Reason)
				time.Sleep(time.Minute)
				require.Len(t, e.RunsOf(rig.Object("a", nil)), c.runs)
			})
		})
	}
}

func want(want, got int) error {
	if want != got {
		return fmt.Errorf("want %d, got %d", want, got)
	}
	return nil
}

func TestRule13ADriverMayShutDownItsEngine(t *testing.T) {
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: workers}).MustStart()
				stopped := make(chan error, 1)
				e.Driver("d", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if req.Resource.Name == "a" {
						stopped <- e.Shutdown(ctx)
					}
					return conveyor.DoneWith("did it"), nil
				}))
				e.Pipeline("d", "d")
				run := e.MustApply(rig.Object("a", 1))
				require.NoError(t, <-stopped)
				synctest.Wait()
				_, err := e.Apply(t.Context(), rig.Object("b", 1))
				require.ErrorIs(t, err, conveyor.ErrClosed)
				e = e.Reborn(conveyor.Options{})
				d := new(rig.Recorder)
				e.Driver("d", d)
				e.MustStart()
				require.NoError(t, e.Ended(run.ID).Err())
				require.Equal(t, "2", d.Last().Step)
			})
		})
	}
}

func TestRule16ShutdownReturnsByItsDeadlineAndNamesWhatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("deaf", rig.DriverOf(rig.Deaf(time.Hour, conveyor.DoneWith("late"), nil)))
		e.Driver("fine", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("deaf", "fine")
		e.PipelineNamed("q", "fine")
		a, b := e.MustApply(rig.Object("a", 1)), e.MustApply(rig.Object("b", 1))
		fine := rig.Object("c", 1)
		fine.Pipeline = "q"
		c := e.MustApply(fine)
		synctest.Wait()

		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := e.Shutdown(ctx)
		require.LessOrEqual(t, time.Since(began), 10*time.Second)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		for _, run := range []*conveyor.Run{a, b} {
			require.ErrorContains(t, err, fmt.Sprintf("run %s step 1 (driver deaf, resource %s)", run.ID, run.Resource))
			require.Equal(t, 1, e.MustGetRun(run.ID).Steps[0].Interruptions)
			require.Equal(t, 1, e.MustGetRun(run.ID).Steps[0].Attempt)
		}
		require.NotContains(t, err.Error(), c.ID)
		require.Equal(t, 1, e.MustGetRun(c.ID).Steps[0].Interruptions)

		before := rig.Dump(t, e.Store)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, before, rig.Dump(t, e.Store), "late results are discarded")
		require.NoError(t, e.Shutdown(t.Context()), "again")

		e = e.Reborn(conveyor.Options{})
		d := new(rig.Recorder)
		e.Driver("deaf", d)
		e.Driver("fine", d)
		e.MustStart()
		for _, run := range []*conveyor.Run{a, b, c} {
			require.NoError(t, e.Ended(run.ID).Err())
		}
		for _, call := range d.All() {
			require.Equal(t, 1, call.Attempt)
			require.Equal(t, call.Step == "1", call.Resumed)
		}
	})
}

func TestRule16ShutdownLetsAttemptsFinishAndStartsNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		ctx    func(context.Context) (context.Context, context.CancelFunc)
		took   time.Duration
		first  string // state of the step that was under way
		errors bool
	}{
		{"without a deadline", func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }, 20 * time.Second, "succeeded", false},
		{"with time enough", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}, 20 * time.Second, "succeeded", false},
		{"with too little time", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 10*time.Second)
		}, 9 * time.Second, "queued", false},
		{"canceled later", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(5*time.Second, cancel)
			return ctx, cancel
		}, 5 * time.Second, "queued", false},
		{"canceled already", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, 0, "queued", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
				d := rig.Recording(rig.Taking(30 * time.Second))
				e.Driver("d", d)
				e.Pipeline("d", "d")
				run := e.MustApply(rig.Object("a", 1))
				e.MustApply(rig.Object("b", 1))
				time.Sleep(10 * time.Second)
				began := time.Now()
				ctx, cancel := c.ctx(t.Context())
				defer cancel()
				require.NoError(t, e.Shutdown(ctx))
				require.Equal(t, c.took, time.Since(began))
				require.Len(t, d.All(), 1)
				require.Equal(t, []string{c.first, "pending"}, rig.StatesOf(e.MustGetRun(run.ID)))
			})
		})
	}
}

func TestRule16ShutdownMayBeCalledAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		e.Pipeline("d")
		o := rig.Object("a", 1)
		run := e.MustApply(o)
		require.NoError(t, e.Shutdown(t.Context()), "before the start")
		require.NoError(t, e.Shutdown(t.Context()), "twice")
		require.ErrorIs(t, e.Start(t.Context()), conveyor.ErrClosed)
		require.ErrorIs(t, e.Run(t.Context()), conveyor.ErrClosed)
		require.ErrorIs(t, e.Register("d", new(rig.Recorder)), conveyor.ErrClosed)
		require.ErrorIs(t, e.SavePipeline(t.Context(), rig.PipelineOf("d")), conveyor.ErrClosed)
		require.ErrorIs(t, e.DeletePipeline(t.Context(), "p"), conveyor.ErrClosed)
		require.ErrorIs(t, e.Cancel(t.Context(), run.ID, ""), conveyor.ErrClosed)
		for _, call := range []func() (*conveyor.Run, error){
			func() (*conveyor.Run, error) { return e.Apply(t.Context(), o) },
			func() (*conveyor.Run, error) { return e.Create(t.Context(), o) },
			func() (*conveyor.Run, error) { return e.Trigger(t.Context(), o.Key()) },
			func() (*conveyor.Run, error) { return e.Wait(t.Context(), run.ID) },
		} {
			_, err := call()
			require.ErrorIs(t, err, conveyor.ErrClosed)
		}
		require.EqualValues(t, 1, e.MustGet(o).Generation, "reading goes on")
		require.Equal(t, conveyor.StateQueued, e.MustGetRun(run.ID).State)
	})
}

func TestRule16ShutdownMayBeCalledFromManyPlacesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("d")
		waiting := e.MustApply(rig.Object("a", 1))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := e.Wait(t.Context(), waiting.ID)
			require.ErrorIs(t, err, conveyor.ErrClosed)
		})
		synctest.Wait()
		began := time.Now()
		for i := range 10 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Minute)
				defer cancel()
				require.NoError(t, e.Shutdown(ctx))
			})
		}
		wg.Wait()
		require.LessOrEqual(t, time.Since(began), time.Minute)
	})
}

func TestRule16RunStartsAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{ShutdownGrace: 4 * time.Second})
		e.Driver("d", rig.DriverOf(rig.Deaf(time.Hour, conveyor.Done(), nil)))
		e.Pipeline("d")
		e.MustApply(rig.Object("a", 1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		require.ErrorContains(t, e.Run(ctx), "still running")
		require.LessOrEqual(t, time.Since(began), time.Minute+4*time.Second)
		time.Sleep(time.Hour)
	})
}

func TestRule17BadInputIsATypedError(t *testing.T) {
	type typed struct {
		*conveyor.Meta
		Spec int `json:"spec"`
	}
	names := []string{"", "k/1", "with space", ".x", "..", "/", "a/../b", "é", "a\x00b", "a\n", strings.Repeat("n", 254), strings.Repeat("n", 64<<10)}
	for _, name := range names {
		t.Run(fmt.Sprintf("name %.20q", name), func(t *testing.T) {
			e := rig.New(t, conveyor.Options{})
			e.Pipeline("d")
			e.MustApply(rig.Object("a", 1))
			before := rig.Dump(t, e.Store)
			ctx := t.Context()
			refused := func(err error) {
				t.Helper()
				var field *conveyor.FieldError
				require.ErrorIs(t, err, conveyor.ErrInvalid)
				require.ErrorAs(t, err, &field)
				require.Less(t, len(err.Error()), 2<<10)
			}
			absent := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, conveyor.ErrNotFound)
				require.Less(t, len(err.Error()), 2<<10)
			}
			o := rig.Object("a", 2)
			o.Type = name
			_, err := e.Apply(ctx, o)
			refused(err)
			_, err = e.Apply(ctx, rig.Object(name, 2))
			refused(err)
			_, err = e.Create(ctx, rig.Object(name, 2))
			refused(err)
			refused(e.Register(name, new(rig.Recorder)))
			refused(e.Register("d", new(rig.Recorder), conveyor.Listen("r", name)))
			p := rig.PipelineOf("d")
			p.Name = name
			refused(e.SavePipeline(ctx, p))
			p = rig.PipelineOf("d")
			p.Resource = name
			refused(e.SavePipeline(ctx, p))
			p = rig.PipelineOf("d", name)
			refused(e.SavePipeline(ctx, p))

			for _, k := range []conveyor.Key{{Type: "r", Name: name}, {Type: name, Name: "a"}, {Type: name, Name: name}} {
				_, err = e.Get(ctx, k)
				absent(err)
				_, err = e.Trigger(ctx, k)
				absent(err)
				for _, err := range e.Revisions(ctx, k) {
					absent(err)
				}
				if k != (conveyor.Key{}) {
					require.Empty(t, rig.Drain(t, e.Runs(ctx, conveyor.RunFilter{Resource: k})))
				}
			}
			_, err = e.GetPipeline(ctx, name)
			absent(err)
			absent(e.DeletePipeline(ctx, name))
			_, err = e.GetRun(ctx, name)
			absent(err)
			_, err = e.Wait(ctx, name)
			absent(err)
			absent(e.Cancel(ctx, name, name))
			for _, err := range e.Logs(ctx, name, conveyor.LogOptions{Step: name, After: -1}) {
				absent(err)
			}
			if name != "" {
				require.Empty(t, rig.Drain(t, e.List(ctx, conveyor.ResourceFilter{Type: name})))
				require.Empty(t, rig.Drain(t, e.List(ctx, conveyor.ResourceFilter{Type: "r", NamePrefix: name})))
				require.Empty(t, rig.Drain(t, e.Runs(ctx, conveyor.RunFilter{Pipeline: name})))
				for _, err := range e.Watch(ctx, conveyor.WatchOptions{Since: conveyor.Cursor(name)}) {
					require.Error(t, err)
					require.Less(t, len(err.Error()), 2<<10)
				}
			}
			rig.Drain(t, e.List(ctx, conveyor.ResourceFilter{Type: "r", After: name, Limit: -1}))
			rig.Drain(t, e.Runs(ctx, conveyor.RunFilter{After: name, Limit: -1}))
			require.Equal(t, before, rig.Dump(t, e.Store))
		})
	}

	ctx := t.Context()
	e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Spec: 10, Steps: 2, Depth: 4}})
	e.Pipeline("d")
	before := rig.Dump(t, e.Store)
	for _, c := range []struct {
		name string
		call func() error
		is   error
	}{
		{"New without a store", func() error { _, err := conveyor.New(nil, conveyor.Options{}); return err }, conveyor.ErrInvalid},
		{"New with a nil store", func() error { _, err := conveyor.New((*rig.Tap)(nil), conveyor.Options{}); return err }, conveyor.ErrInvalid},
		{"New with bad options", func() error {
			_, err := conveyor.New(e.Store, conveyor.Options{
				Workers: -1, StepTimeout: -1, ShutdownGrace: -1, Limits: conveyor.Limits{Spec: -1, WatchBuffer: -1},
				Retry: conveyor.RetryPolicy{MaxAttempts: -2, Initial: -1, Max: -1, Multiplier: math.NaN(), Jitter: 2},
			})
			require.Len(t, strings.Split(err.Error(), "\n"), 10, "every fault at once")
			return err
		}, conveyor.ErrInvalid},
		{"New with a limit that no store holds", func() error {
			_, err := conveyor.New(e.Store, conveyor.Options{Limits: conveyor.Limits{Output: math.MaxInt}})
			return err
		}, conveyor.ErrInvalid},
		{"Register nothing", func() error { return e.Register("x", nil) }, conveyor.ErrInvalid},
		{"Register a nil pointer", func() error { return e.Register("x", (*rig.Recorder)(nil)) }, conveyor.ErrInvalid},
		{"Register a nil function", func() error { return e.Register("x", conveyor.DriverFunc(nil)) }, conveyor.ErrInvalid},
		{"Register with a nil option", func() error { return e.Register("x", new(rig.Recorder), nil) }, conveyor.ErrInvalid},
		{"Register with bad options", func() error {
			return e.Register("x", new(rig.Recorder), conveyor.Concurrency(-1), conveyor.Timeout(-1), conveyor.Retry(conveyor.RetryPolicy{Jitter: -2}))
		}, conveyor.ErrInvalid},
		{"SavePipeline of nothing", func() error { return e.SavePipeline(ctx, nil) }, conveyor.ErrInvalid},
		{"SavePipeline of a nil pointer", func() error { return e.SavePipeline(ctx, (*conveyor.PipelineSpec)(nil)) }, conveyor.ErrInvalid},
		{"SavePipeline of an empty one", func() error { return e.SavePipeline(ctx, conveyor.PipelineSpec{}) }, conveyor.ErrInvalid},
		{"SavePipeline with equal ids", func() error {
			p := rig.PipelineOf("d", "d")
			p.Steps[0].ID = "2"
			return e.SavePipeline(ctx, p)
		}, conveyor.ErrInvalid},
		{"SavePipeline with settings that are no JSON", func() error {
			p := rig.PipelineOf("d")
			p.Steps[0].With = []byte(`{"a":`)
			return e.SavePipeline(ctx, p)
		}, conveyor.ErrInvalid},
		{"SavePipeline with infinite numbers", func() error {
			p := rig.PipelineOf("d")
			p.Retry = &conveyor.RetryPolicy{Multiplier: math.Inf(1), Jitter: math.NaN()}
			return e.SavePipeline(ctx, p)
		}, conveyor.ErrInvalid},
		{"SavePipeline with one step too many", func() error { return e.SavePipeline(ctx, rig.PipelineOf("d", "d", "d")) }, conveyor.ErrTooLarge},
		{"Apply of nothing", func() error { _, err := e.Apply(ctx, nil); return err }, conveyor.ErrInvalid},
		{"Apply of a nil object", func() error { _, err := e.Apply(ctx, (*conveyor.Object)(nil)); return err }, conveyor.ErrInvalid},
		{"Apply of an empty object", func() error { _, err := e.Apply(ctx, new(conveyor.Object)); return err }, conveyor.ErrInvalid},
		{"Apply of a nil type", func() error { _, err := e.Apply(ctx, (*typed)(nil)); return err }, conveyor.ErrInvalid},
		{"Apply of a type without a Meta", func() error { _, err := e.Apply(ctx, new(typed)); return err }, conveyor.ErrInvalid},
		{"Apply of a type whose Meta cannot be had", func() error { _, err := e.Apply(ctx, metaless{}); return err }, conveyor.ErrInvalid},
		{"Apply of a spec that is no JSON", func() error {
			o := rig.Object("a", nil)
			o.Spec = []byte("{")
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrInvalid},
		{"Apply of a spec with a field twice", func() error {
			o := rig.Object("a", nil)
			o.Spec = []byte(`{"":1,"":2}`)[:11]
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrTooLarge},
		{"Apply of a spec one byte too large", func() error { _, err := e.Apply(ctx, rig.Object("a", "123456789")); return err }, conveyor.ErrTooLarge},
		{"Apply of a spec one level too deep", func() error { _, err := e.Apply(ctx, rig.Object("a", [][][][]int{{{{}}}})); return err }, conveyor.ErrTooLarge},
		{"Apply of metadata too large", func() error {
			o := rig.Object("a", 1)
			o.Metadata = map[string]string{"12345": "123456"}
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrTooLarge},
		{"Apply of a negative version", func() error {
			o := rig.Object("a", 1)
			o.Version = -1
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrInvalid},
		{"Apply along a pipeline that is not there", func() error {
			o := rig.Object("a", 1)
			o.Pipeline = "q"
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrNotFound},
		{"Apply along a pipeline for another type", func() error {
			o := rig.Object("a", 1)
			o.Type = "other"
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrInvalid},
		{"Apply in a context that has ended", func() error {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			_, err := e.Apply(ended, rig.Object("a", 1))
			return err
		}, context.Canceled},
		{"Watch from a cursor of another engine", func() error {
			for _, err := range e.Watch(ctx, conveyor.WatchOptions{Since: "00vhnd22wg9bkqzhcs59hja7yc-1"}) {
				return err
			}
			return nil
		}, conveyor.ErrGap},
		{"Watch from no cursor", func() error {
			for _, err := range e.Watch(ctx, conveyor.WatchOptions{Since: "x"}) {
				return err
			}
			return nil
		}, conveyor.ErrInvalid},
		{"Decode into nothing", func() error { return rig.Object("a", 1).Decode(nil) }, conveyor.ErrInvalid},
		{"Decode into a nil pointer", func() error { return rig.Object("a", 1).Decode((*conveyor.Object)(nil)) }, conveyor.ErrInvalid},
		{"Decode into a type without a Meta", func() error { return rig.Object("a", 1).Decode(new(typed)) }, nil},
		{"Output of a request that no engine made", func() error { return new(conveyor.Request).Output("1", new(int)) }, conveyor.ErrNotFound},
		{"Settings of an empty request", func() error { return new(conveyor.Request).Settings(nil) }, nil},
		{"Permanent of nothing", func() error { return conveyor.Permanent(nil) }, nil},
		{"RetryAfter nothing", func() error { return conveyor.RetryAfter(-1, nil) }, nil},
		{"Err of an empty run", func() error { return new(conveyor.Run).Err() }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorIs(t, c.call(), c.is)
			require.Equal(t, before, rig.Dump(t, e.Store))
		})
	}
}

// metaless is a resource that says it has no Meta, though its document has all that is needed.
type metaless struct{}

func (metaless) ResourceMeta() *conveyor.Meta { return nil }
func (metaless) MarshalJSON() ([]byte, error) {
	return []byte(`{"name":"a","resource":"r","pipeline":"p"}`), nil
}

func TestRule17LimitsHoldAtTheirVeryEdge(t *testing.T) {
	e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Spec: 10, Steps: 2, Depth: 4}})
	e.Pipeline("d", "d")
	for _, o := range []*conveyor.Object{
		rig.Object(strings.Repeat("n", 253), nil),
		rig.Object("spec", "12345678"),
		rig.Object("deep", [][][]int{{{1}}}),
		{Meta: conveyor.Meta{Type: "r", Name: "meta", Pipeline: "p", Metadata: map[string]string{"1": "12"}}}, // {"1":"12"} has 10 bytes
	} {
		e.MustApply(o)
	}
}

func TestRule17SpecsAndOutputsAreNeverLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out rig.Buffer
		e := rig.New(t, conveyor.Options{Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.Level(-100)}))}).MustStart()
		e.Driver("ok", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("hello from the driver")
			return conveyor.DoneWith("sEcReT"), nil
		}))
		e.Driver("bad", rig.DriverOf(rig.InTurn(
			func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("ouch") }, rig.Always(conveyor.Done(), rig.ErrBoom))))
		e.Pipeline("ok", "bad")
		e.Finish(rig.Object("a", map[string]string{"password": "sEcReT"}))
		from := time.Now()
		e.Store.Refusing(func([]string) error {
			if time.Since(from) < time.Minute {
				return store.ErrUnknown
			}
			return nil
		})
		_, _ = e.Trigger(t.Context(), conveyor.Key{Type: "r", Name: "a"})
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Contains(t, out.String(), "hello from the driver")
		require.NotContains(t, out.String(), "sEcReT")
	})
}

func TestRule16AContextThatOutlivesItsAttemptDoesNotCutShutdownShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		kept := make(chan context.Context, 1)
		e.Driver("first", rig.DriverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			kept <- context.WithoutCancel(ctx)
			return conveyor.Done(), nil
		}))
		e.Driver("second", rig.DriverOf(rig.Taking(time.Minute)))
		e.Pipeline("first", "second")
		run := e.MustApply(rig.Object("a", 1))
		time.Sleep(time.Second)
		require.NoError(t, e.Shutdown(<-kept))
		require.NoError(t, e.MustGetRun(run.ID).Err())
		require.Equal(t, []string{"succeeded", "succeeded"}, rig.StatesOf(e.MustGetRun(run.ID)))
	})
}

func TestRule13ADriverMayShutDownItsEngineFromAGoroutineItLeavesBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
		stopped := make(chan error, 1)
		e.Driver("d", rig.DriverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			go func() { stopped <- e.Shutdown(context.WithoutCancel(ctx)) }()
			time.Sleep(time.Minute)
			return conveyor.Done(), nil
		}))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		require.NoError(t, <-stopped)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State)
	})
}

// chatty logs while it is being logged.
type chatty struct{ log *slog.Logger }

func (c chatty) LogValue() slog.Value {
	c.log.Info("from within", "n", 1)
	return slog.StringValue("logged")
}

func TestRule13NoLockIsHeldWhileAValueIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("outer", "value", chatty{req.Log}, "again", chatty{req.Log.With("x", 1)})
			return conveyor.Done(), nil
		}), conveyor.Timeout(time.Minute))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		time.Sleep(time.Second)
		require.Equal(t, conveyor.StateSucceeded, e.MustGetRun(run.ID).State)
		lines := e.AllLogs(run.ID, conveyor.LogOptions{})
		require.Equal(t, "outer", lines[len(lines)-1].Message)
		require.JSONEq(t, `{"value":"logged","again":"logged"}`, string(lines[len(lines)-1].Attrs))
	})
}
