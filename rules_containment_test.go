package conveyor_test

import (
	"bytes"
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
		breaks driverFunc
		text   string // of the error
		panics bool
	}{
		{"panic", func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("ouch") }, "driver panicked: ouch", true},
		{"panic with an error", func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic(errBoom) }, "driver panicked: boom", true},
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
		{"an error", always(conveyor.Done(), errBoom), "boom", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{Workers: 2}).start()
				e.driver("bad", driverOf(inTurn(c.breaks, always(conveyor.Done(), nil))), conveyor.Concurrency(1))
				e.driver("good", driverOf(taking(time.Minute)))
				e.pipeline("bad", "bad")
				e.pipelineNamed("q", "good")
				other := object("other", nil)
				other.Pipeline = "q"
				beside := e.apply(other)
				run := e.finish(object("a", 1))
				require.NoError(t, run.Err())
				first := run.Steps[0].Attempts[0]
				require.Contains(t, first.Error, c.text)
				require.Equal(t, 1, first.Number)
				require.Len(t, run.Steps[0].Attempts, 2)
				require.NoError(t, e.ended(beside.ID).Err())
			})
		})
		t.Run(c.name+", for good", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{Workers: 1}).start()
				e.driver("bad", driverOf(c.breaks), conveyor.Concurrency(1), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 2}))
				e.driver("good", new(recorder))
				e.pipeline("bad")
				e.pipelineNamed("q", "good")
				run := e.finish(object("a", 1))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Len(t, run.Steps[0].Attempts, 2)
				var step *conveyor.StepError
				require.ErrorAs(t, run.Err(), &step)
				var p *conveyor.PanicError
				require.Equal(t, c.panics, errors.As(run.Err(), &p))
				other := object("other", nil)
				other.Pipeline = "q"
				require.NoError(t, e.finish(other).Err(), "worker and slot are free")
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
		e := newEngine(t, conveyor.Options{Limits: conveyor.Limits{ErrorText: 4 << 10}}).start()
		e.driver("d", driverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return deepPanic(100) }),
			conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 1}))
		e.pipeline("d")
		run := e.finish(object("a", 1))
		var p *conveyor.PanicError
		require.ErrorAs(t, run.Err(), &p)
		require.Contains(t, string(p.Stack), "deepPanic")
		require.LessOrEqual(t, len(p.Stack), 4<<10)
		require.Equal(t, string(p.Stack), run.Steps[0].Attempts[0].Stack)
	})
}

func deepPanic(n int) (conveyor.Result, error) {
	if n == 0 {
		panic("deep")
	}
	return deepPanic(n - 1)
}

func TestRule13AThousandGoexitsLeakNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Workers: 3}).start()
		e.driver("d", driverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			runtime.Goexit()
			return conveyor.Done(), nil
		}), conveyor.Concurrency(2), conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: 10}))
		e.pipeline("d")
		var ids []string
		for i := range 100 {
			ids = append(ids, e.apply(object(fmt.Sprint("n", i), nil)).ID)
		}
		for _, id := range ids {
			require.Equal(t, conveyor.StateFailed, e.ended(id).State)
		}
		synctest.Wait()
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Busy)
		require.Zero(t, st.Slots["d"].Busy)
	})
}

// deaf takes its time whatever its context says.
func deaf(d time.Duration, result conveyor.Result, err error) driverFunc {
	return func(context.Context, *conveyor.Request) (conveyor.Result, error) {
		time.Sleep(d)
		return result, err
	}
}

const patience = 5 * time.Second // that the engine has with a driver whose context has ended

func TestRule13ADriverThatIgnoresItsTimeoutIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		name string
		late conveyor.Result
		err  error
	}{
		{"and succeeds late", conveyor.DoneWith("late"), nil},
		{"and fails late", conveyor.Done(), errBoom},
		{"and halts late", conveyor.Halt("late"), nil},
		{"and asks for a requeue late", conveyor.RequeueAfter(0), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g gauge
				began := time.Now()
				e := newEngine(t, conveyor.Options{}).start()
				d := recording(g.around(byResource, inTurn(deaf(time.Hour, c.late, c.err), taking(time.Second))))
				e.driver("d", d, conveyor.Timeout(10*time.Second))
				e.pipeline("d", "d")
				run := e.apply(object("a", 1))
				synctest.Wait()
				require.NoError(t, e.finish(object("b", 1)).Err())

				time.Sleep(time.Until(began.Add(10*time.Second + patience)))
				synctest.Wait()
				given := e.run(run.ID)
				require.Equal(t, conveyor.StateRetrying, given.State)
				require.Contains(t, given.Steps[0].Reason, "timed out")
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Equal(t, []int{1, 0, 1}, []int{st.Stray, st.Busy, st.Slots["d"].Busy}, "it keeps its slot, and no worker")

				ended := e.ended(run.ID)
				require.NoError(t, ended.Err())
				require.Equal(t, began.Add(time.Hour), d.all()[3].Began, "no second call before the first returned")
				require.Empty(t, ended.Steps[0].Output)
				require.Equal(t, 2, ended.Steps[0].Attempt)
				require.Equal(t, 1, g.peak("a"))
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
		var g gauge
		began := time.Now()
		e := newEngine(t, conveyor.Options{}).start()
		d := recording(g.around(byResource, inTurn(deaf(time.Hour, conveyor.DoneWith("late"), nil), taking(time.Second))))
		e.driver("d", d)
		e.pipeline("d", "d")
		run := e.apply(object("a", 1))
		time.Sleep(time.Minute)
		require.NoError(t, e.Cancel(t.Context(), run.ID, "no more"))
		canceled := e.ended(run.ID)
		require.Equal(t, conveyor.StateCanceled, canceled.State)
		require.ErrorIs(t, canceled.Err(), conveyor.ErrCanceled)
		require.Equal(t, began.Add(time.Minute+patience).UTC(), canceled.EndedAt)

		next := e.apply(object("a", 2))
		require.NoError(t, e.ended(next.ID).Err())
		require.Equal(t, began.Add(time.Hour), d.all()[1].Began)
		require.Equal(t, 1, g.peak("a"))
		require.Equal(t, canceled, e.run(run.ID), "the late result changes nothing")
	})
}

func TestRule13CancelEndsTheContextWithItsCause(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(cause error) (conveyor.Result, error)
		step   string
	}{
		{"returning the cause", func(cause error) (conveyor.Result, error) { return conveyor.Done(), cause }, "canceled"},
		{"returning another error", func(error) (conveyor.Result, error) { return conveyor.Done(), errBoom }, "canceled"},
		{"finishing all the same", func(error) (conveyor.Result, error) { return conveyor.DoneWith(1), nil }, "succeeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				causes := make(chan error, 1)
				e.driver("d", driverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return c.answer(context.Cause(ctx))
				}))
				e.pipeline("d", "d")
				run := e.apply(object("a", 1))
				synctest.Wait()
				require.NoError(t, e.Cancel(t.Context(), run.ID, "no more"))
				require.ErrorIs(t, <-causes, conveyor.ErrCanceled)
				ended := e.ended(run.ID)
				require.Equal(t, conveyor.StateCanceled, ended.State)
				require.Equal(t, "no more", ended.Reason)
				require.Equal(t, []string{c.step, "skipped"}, statesOf(ended))
				require.ErrorIs(t, e.Cancel(t.Context(), run.ID, ""), conveyor.ErrConflict)
			})
		})
	}
}

func TestRule13CancelEndsARunThatWaitsAtOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		driver driverFunc // nil for none
	}{
		{"for a retry", always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom))},
		{"for a requeue", always(conveyor.RequeueAfter(time.Hour), nil)},
		{"for a driver", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				if c.driver != nil {
					e.driver("d", driverOf(c.driver))
				}
				e.pipeline("d")
				run := e.apply(object("a", 1))
				synctest.Wait()
				queued := e.apply(object("a", 2))
				require.NoError(t, e.Cancel(t.Context(), queued.ID, "not this one"))
				require.Equal(t, conveyor.StateCanceled, e.ended(queued.ID).State)
				at := time.Now()
				require.NoError(t, e.Cancel(t.Context(), run.ID, ""))
				ended := e.ended(run.ID)
				require.Equal(t, conveyor.StateCanceled, ended.State)
				require.Equal(t, at.UTC(), ended.EndedAt)
				require.Equal(t, []string{"canceled"}, statesOf(ended))
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
		var g gauge
		e := newEngine(t, conveyor.Options{Workers: 4}).start()
		e.driver("d", driverOf(g.around(byResource, func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			time.Sleep(time.Duration(rand.IntN(20)) * time.Second)
			return [...]conveyor.Result{conveyor.Done(), conveyor.RequeueAfter(time.Second)}[rand.IntN(2)],
				[...]error{nil, nil, errBoom}[rand.IntN(3)]
		})), conveyor.Timeout(3*time.Second), conveyor.Concurrency(3))
		e.pipeline("d", "d", "d")
		for i := range 200 {
			name := fmt.Sprint("n", i%3)
			run := e.apply(object(name, i))
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
			o := e.resource(object(fmt.Sprint("n", i), nil))
			require.Equal(t, 1, g.peak(o.Name))
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
				e := newEngine(t, conveyor.Options{Limits: conveyor.Limits{Output: 100, Depth: 3}}).start()
				d := recording(always(conveyor.DoneWith(c.output), nil))
				e.driver("d", d)
				e.pipeline("d")
				run := e.finish(object("a", 1))
				require.ErrorIs(t, run.Err(), c.is)
				require.Len(t, d.all(), 1)
				require.Equal(t, c.is == nil, run.State == conveyor.StateSucceeded)
				for _, record := range dump(t, e.store) {
					require.Less(t, len(record), 1<<10)
				}
			})
		})
	}
}

func TestRule13AnErrorTextIsCutAndMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(always(conveyor.Done(), conveyor.Permanent(errors.New(strings.Repeat("é", 1<<20))))))
		e.driver("skip", driverOf(always(conveyor.Skip(strings.Repeat("x", 1<<20)), nil)))
		e.pipeline("skip", "d")
		run := e.finish(object("a", 1))
		for _, text := range []string{run.Reason, run.Steps[0].Reason, run.Steps[1].Reason, run.Steps[1].Attempts[0].Error, e.resource(object("a", 1)).Status.Message} {
			require.LessOrEqual(t, len(text), 8<<10)
			require.Greater(t, len(text), 8<<10-32)
			require.True(t, strings.HasSuffix(text, "[cut]"), text[len(text)-20:])
		}
	})
}

func TestRule13ARequestIsTheDriversOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		var saw []string
		e.driver("d", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			saw = append(saw, fmt.Sprintf("%s %v %s %v %s", req.Resource.Spec, req.Resource.Metadata, req.Step.With, req.Step.Retry.MaxAttempts, req.Resource.Name))
			for _, b := range [][]byte{req.Resource.Spec, req.Step.With} {
				copy(b, "!!!!!!!!!!!!!!!!!!!")
			}
			req.Resource.Metadata["m"], req.Resource.Metadata["n"] = "changed", "new"
			req.Step.Retry.MaxAttempts = 1
			req.Resource.Name, req.Run, req.Step.ID, req.Attempt, req.Log = "x", "y", "z", 99, nil
			if len(saw) == 1 {
				return conveyor.Done(), errBoom
			}
			return conveyor.Done(), nil
		}))
		p := pipelineOf("d", "d")
		for i := range p.Steps {
			p.Steps[i].With = []byte(`{"with":1}`)
			p.Steps[i].Retry = &conveyor.RetryPolicy{MaxAttempts: 5}
		}
		e.save(p)
		o := object("a", "spec")
		o.Metadata = map[string]string{"m": "mine"}
		run := e.apply(o)
		copy(o.Spec, "!!!!!!")
		o.Metadata["m"] = "not mine"
		p.Steps[1].With[1], p.Steps[1].Retry.MaxAttempts = '!', 1
		require.NoError(t, e.ended(run.ID).Err())
		one := `"spec" map[m:mine] {"with":1} 5 a`
		require.Equal(t, []string{one, one, one}, saw)
		require.Equal(t, `"spec"`, string(e.resource(o).Spec))
		for _, step := range e.run(run.ID).Steps {
			require.JSONEq(t, `{"with":1}`, string(step.With))
		}
	})
}

func TestRule13ADriverMayCallAnyMethodOnItsOwnResource(t *testing.T) {
	key := conveyor.Key{Type: "r", Name: "a"}
	for _, c := range []struct {
		name string
		call func(ctx context.Context, e *rig, req *conveyor.Request) error
		ends conveyor.State // of the run
		runs int
	}{
		{"Apply", func(ctx context.Context, e *rig, _ *conveyor.Request) error {
			_, err := e.Apply(ctx, object("a", "new"))
			return err
		}, conveyor.StateSucceeded, 2},
		{"Apply of a new one", func(ctx context.Context, e *rig, req *conveyor.Request) error {
			if req.Resource.Name != "a" {
				return nil
			}
			_, err := e.Apply(ctx, object("b", "new"))
			return err
		}, conveyor.StateSucceeded, 1},
		{"Get, List and Revisions", func(ctx context.Context, e *rig, _ *conveyor.Request) error {
			_, err := e.Get(ctx, key)
			n := len(drain(e.t, e.List(ctx, conveyor.ResourceFilter{}))) + len(drain(e.t, e.Revisions(ctx, key)))
			return errors.Join(err, want(2, n))
		}, conveyor.StateSucceeded, 1},
		{"Trigger", func(ctx context.Context, e *rig, req *conveyor.Request) error {
			if req.Cause == conveyor.CauseTriggered {
				return nil
			}
			_, err := e.Trigger(ctx, key)
			return err
		}, conveyor.StateSucceeded, 2},
		{"GetRun, Runs and Logs", func(ctx context.Context, e *rig, req *conveyor.Request) error {
			req.Log.Info("hello")
			_, err := e.GetRun(ctx, req.Run)
			n := len(drain(e.t, e.Runs(ctx, conveyor.RunFilter{}))) + len(drain(e.t, e.Logs(ctx, req.Run, conveyor.LogOptions{})))
			return errors.Join(err, want(2, n))
		}, conveyor.StateSucceeded, 1},
		{"Wait with a limit", func(ctx context.Context, e *rig, req *conveyor.Request) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if _, err := e.Wait(ctx, req.Run); !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("wait: %w", err)
			}
			return nil
		}, conveyor.StateSucceeded, 1},
		{"Cancel", func(ctx context.Context, e *rig, req *conveyor.Request) error {
			err := e.Cancel(ctx, req.Run, "myself")
			if context.Cause(ctx) == nil {
				return errBoom
			}
			return err
		}, conveyor.StateCanceled, 1},
		{"Register and Stats", func(ctx context.Context, e *rig, _ *conveyor.Request) error {
			err := e.Register("another", new(recorder), conveyor.Listen("r"))
			_, statsErr := e.Stats(ctx)
			return errors.Join(err, statsErr)
		}, conveyor.StateSucceeded, 1},
		{"SavePipeline and DeletePipeline", func(ctx context.Context, e *rig, _ *conveyor.Request) error {
			return errors.Join(e.SavePipeline(ctx, pipelineOf("x")), e.DeletePipeline(ctx, "p"), want(0, len(drain(e.t, e.Pipelines(ctx)))))
		}, conveyor.StateSucceeded, 1},
		{"Start", func(ctx context.Context, e *rig, _ *conveyor.Request) error {
			if err := e.Start(ctx); !errors.Is(err, conveyor.ErrConflict) {
				return fmt.Errorf("start: %w", err)
			}
			return nil
		}, conveyor.StateSucceeded, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{Workers: 1}).start()
				e.driver("d", driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					return conveyor.Done(), conveyor.Permanent(c.call(ctx, e, req))
				}), conveyor.Concurrency(1))
				e.pipeline("d")
				run := e.ended(e.apply(object("a", nil)).ID)
				require.Equal(t, c.ends, run.State, run.Reason)
				time.Sleep(time.Minute)
				require.Len(t, e.runs(object("a", nil)), c.runs)
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
				e := newEngine(t, conveyor.Options{Workers: workers}).start()
				stopped := make(chan error, 1)
				e.driver("d", driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if req.Resource.Name == "a" {
						stopped <- e.Shutdown(ctx)
					}
					return conveyor.DoneWith("did it"), nil
				}))
				e.pipeline("d", "d")
				run := e.apply(object("a", 1))
				require.NoError(t, <-stopped)
				synctest.Wait()
				_, err := e.Apply(t.Context(), object("b", 1))
				require.ErrorIs(t, err, conveyor.ErrClosed)
				e = e.reborn(conveyor.Options{})
				d := new(recorder)
				e.driver("d", d)
				e.start()
				require.NoError(t, e.ended(run.ID).Err())
				require.Equal(t, "2", d.last().Step)
			})
		})
	}
}

func TestRule16ShutdownReturnsByItsDeadlineAndNamesWhatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("deaf", driverOf(deaf(time.Hour, conveyor.DoneWith("late"), nil)))
		e.driver("fine", driverOf(taking(time.Hour)))
		e.pipeline("deaf", "fine")
		e.pipelineNamed("q", "fine")
		a, b := e.apply(object("a", 1)), e.apply(object("b", 1))
		fine := object("c", 1)
		fine.Pipeline = "q"
		c := e.apply(fine)
		synctest.Wait()

		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := e.Shutdown(ctx)
		require.LessOrEqual(t, time.Since(began), 10*time.Second)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		for _, run := range []*conveyor.Run{a, b} {
			require.ErrorContains(t, err, fmt.Sprintf("run %s step 1 (driver deaf, resource %s)", run.ID, run.Resource))
			require.Equal(t, 1, e.run(run.ID).Steps[0].Interruptions)
			require.Equal(t, 1, e.run(run.ID).Steps[0].Attempt)
		}
		require.NotContains(t, err.Error(), c.ID)
		require.Equal(t, 1, e.run(c.ID).Steps[0].Interruptions)

		before := dump(t, e.store)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, before, dump(t, e.store), "late results are discarded")
		require.NoError(t, e.Shutdown(t.Context()), "again")

		e = e.reborn(conveyor.Options{})
		d := new(recorder)
		e.driver("deaf", d)
		e.driver("fine", d)
		e.start()
		for _, run := range []*conveyor.Run{a, b, c} {
			require.NoError(t, e.ended(run.ID).Err())
		}
		for _, call := range d.all() {
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
				e := newEngine(t, conveyor.Options{Workers: 1}).start()
				d := recording(taking(30 * time.Second))
				e.driver("d", d)
				e.pipeline("d", "d")
				run := e.apply(object("a", 1))
				e.apply(object("b", 1))
				time.Sleep(10 * time.Second)
				began := time.Now()
				ctx, cancel := c.ctx(t.Context())
				defer cancel()
				require.NoError(t, e.Shutdown(ctx))
				require.Equal(t, c.took, time.Since(began))
				require.Len(t, d.all(), 1)
				require.Equal(t, []string{c.first, "unset"}, statesOf(e.run(run.ID)))
			})
		})
	}
}

func TestRule16ShutdownMayBeCalledAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{})
		e.pipeline("d")
		o := object("a", 1)
		run := e.apply(o)
		require.NoError(t, e.Shutdown(t.Context()), "before the start")
		require.NoError(t, e.Shutdown(t.Context()), "twice")
		require.ErrorIs(t, e.Start(t.Context()), conveyor.ErrClosed)
		require.ErrorIs(t, e.Run(t.Context()), conveyor.ErrClosed)
		require.ErrorIs(t, e.Register("d", new(recorder)), conveyor.ErrClosed)
		require.ErrorIs(t, e.SavePipeline(t.Context(), pipelineOf("d")), conveyor.ErrClosed)
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
		require.EqualValues(t, 1, e.resource(o).Generation, "reading goes on")
		require.Equal(t, conveyor.StateQueued, e.run(run.ID).State)
	})
}

func TestRule16ShutdownMayBeCalledFromManyPlacesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(taking(time.Hour)))
		e.pipeline("d")
		waiting := e.apply(object("a", 1))
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
		e := newEngine(t, conveyor.Options{ShutdownGrace: 4 * time.Second})
		e.driver("d", driverOf(deaf(time.Hour, conveyor.Done(), nil)))
		e.pipeline("d")
		e.apply(object("a", 1))
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
			e := newEngine(t, conveyor.Options{})
			e.pipeline("d")
			e.apply(object("a", 1))
			before := dump(t, e.store)
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
			o := object("a", 2)
			o.Type = name
			_, err := e.Apply(ctx, o)
			refused(err)
			_, err = e.Apply(ctx, object(name, 2))
			refused(err)
			_, err = e.Create(ctx, object(name, 2))
			refused(err)
			refused(e.Register(name, new(recorder)))
			refused(e.Register("d", new(recorder), conveyor.Listen("r", name)))
			p := pipelineOf("d")
			p.Name = name
			refused(e.SavePipeline(ctx, p))
			p = pipelineOf("d")
			p.Resource = name
			refused(e.SavePipeline(ctx, p))
			p = pipelineOf("d", name)
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
					require.Empty(t, drain(t, e.Runs(ctx, conveyor.RunFilter{Resource: k})))
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
				require.Empty(t, drain(t, e.List(ctx, conveyor.ResourceFilter{Type: name})))
				require.Empty(t, drain(t, e.List(ctx, conveyor.ResourceFilter{Type: "r", NamePrefix: name})))
				require.Empty(t, drain(t, e.Runs(ctx, conveyor.RunFilter{Pipeline: name})))
				for _, err := range e.Watch(ctx, conveyor.WatchOptions{Since: conveyor.Cursor(name)}) {
					require.Error(t, err)
					require.Less(t, len(err.Error()), 2<<10)
				}
			}
			drain(t, e.List(ctx, conveyor.ResourceFilter{Type: "r", After: name, Limit: -1}))
			drain(t, e.Runs(ctx, conveyor.RunFilter{After: name, Limit: -1}))
			require.Equal(t, before, dump(t, e.store))
		})
	}

	ctx := t.Context()
	e := newEngine(t, conveyor.Options{Limits: conveyor.Limits{Spec: 10, Steps: 2, Depth: 4}})
	e.pipeline("d")
	before := dump(t, e.store)
	for _, c := range []struct {
		name string
		call func() error
		is   error
	}{
		{"New without a store", func() error { _, err := conveyor.New(nil, conveyor.Options{}); return err }, conveyor.ErrInvalid},
		{"New with a nil store", func() error { _, err := conveyor.New((*tap)(nil), conveyor.Options{}); return err }, conveyor.ErrInvalid},
		{"New with bad options", func() error {
			_, err := conveyor.New(e.store, conveyor.Options{
				Workers: -1, StepTimeout: -1, ShutdownGrace: -1, Limits: conveyor.Limits{Spec: -1, WatchBuffer: -1},
				Retry: conveyor.RetryPolicy{MaxAttempts: -2, Initial: -1, Max: -1, Multiplier: math.NaN(), Jitter: 2},
			})
			require.Len(t, strings.Split(err.Error(), "\n"), 10, "every fault at once")
			return err
		}, conveyor.ErrInvalid},
		{"New with a limit that no store holds", func() error {
			_, err := conveyor.New(e.store, conveyor.Options{Limits: conveyor.Limits{Output: math.MaxInt}})
			return err
		}, conveyor.ErrInvalid},
		{"Register nothing", func() error { return e.Register("x", nil) }, conveyor.ErrInvalid},
		{"Register a nil pointer", func() error { return e.Register("x", (*recorder)(nil)) }, conveyor.ErrInvalid},
		{"Register a nil function", func() error { return e.Register("x", conveyor.DriverFunc(nil)) }, conveyor.ErrInvalid},
		{"Register with a nil option", func() error { return e.Register("x", new(recorder), nil) }, conveyor.ErrInvalid},
		{"Register with bad options", func() error {
			return e.Register("x", new(recorder), conveyor.Concurrency(-1), conveyor.Timeout(-1), conveyor.Retry(conveyor.RetryPolicy{Jitter: -2}))
		}, conveyor.ErrInvalid},
		{"SavePipeline of nothing", func() error { return e.SavePipeline(ctx, nil) }, conveyor.ErrInvalid},
		{"SavePipeline of a nil pointer", func() error { return e.SavePipeline(ctx, (*conveyor.PipelineSpec)(nil)) }, conveyor.ErrInvalid},
		{"SavePipeline of an empty one", func() error { return e.SavePipeline(ctx, conveyor.PipelineSpec{}) }, conveyor.ErrInvalid},
		{"SavePipeline with equal ids", func() error {
			p := pipelineOf("d", "d")
			p.Steps[0].ID = "2"
			return e.SavePipeline(ctx, p)
		}, conveyor.ErrInvalid},
		{"SavePipeline with settings that are no JSON", func() error {
			p := pipelineOf("d")
			p.Steps[0].With = []byte(`{"a":`)
			return e.SavePipeline(ctx, p)
		}, conveyor.ErrInvalid},
		{"SavePipeline with infinite numbers", func() error {
			p := pipelineOf("d")
			p.Retry = &conveyor.RetryPolicy{Multiplier: math.Inf(1), Jitter: math.NaN()}
			return e.SavePipeline(ctx, p)
		}, conveyor.ErrInvalid},
		{"SavePipeline with one step too many", func() error { return e.SavePipeline(ctx, pipelineOf("d", "d", "d")) }, conveyor.ErrTooLarge},
		{"Apply of nothing", func() error { _, err := e.Apply(ctx, nil); return err }, conveyor.ErrInvalid},
		{"Apply of a nil object", func() error { _, err := e.Apply(ctx, (*conveyor.Object)(nil)); return err }, conveyor.ErrInvalid},
		{"Apply of an empty object", func() error { _, err := e.Apply(ctx, new(conveyor.Object)); return err }, conveyor.ErrInvalid},
		{"Apply of a nil type", func() error { _, err := e.Apply(ctx, (*typed)(nil)); return err }, conveyor.ErrInvalid},
		{"Apply of a type without a Meta", func() error { _, err := e.Apply(ctx, new(typed)); return err }, conveyor.ErrInvalid},
		{"Apply of a type whose Meta cannot be had", func() error { _, err := e.Apply(ctx, metaless{}); return err }, conveyor.ErrInvalid},
		{"Apply of a spec that is no JSON", func() error {
			o := object("a", nil)
			o.Spec = []byte("{")
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrInvalid},
		{"Apply of a spec with a field twice", func() error {
			o := object("a", nil)
			o.Spec = []byte(`{"":1,"":2}`)[:11]
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrTooLarge},
		{"Apply of a spec one byte too large", func() error { _, err := e.Apply(ctx, object("a", "123456789")); return err }, conveyor.ErrTooLarge},
		{"Apply of a spec one level too deep", func() error { _, err := e.Apply(ctx, object("a", [][][][]int{{{{}}}})); return err }, conveyor.ErrTooLarge},
		{"Apply of metadata too large", func() error {
			o := object("a", 1)
			o.Metadata = map[string]string{"12345": "123456"}
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrTooLarge},
		{"Apply of a negative version", func() error {
			o := object("a", 1)
			o.Version = -1
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrInvalid},
		{"Apply along a pipeline that is not there", func() error {
			o := object("a", 1)
			o.Pipeline = "q"
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrNotFound},
		{"Apply along a pipeline for another type", func() error {
			o := object("a", 1)
			o.Type = "other"
			_, err := e.Apply(ctx, o)
			return err
		}, conveyor.ErrInvalid},
		{"Apply in a context that has ended", func() error {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			_, err := e.Apply(ended, object("a", 1))
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
		{"Decode into nothing", func() error { return object("a", 1).Decode(nil) }, conveyor.ErrInvalid},
		{"Decode into a nil pointer", func() error { return object("a", 1).Decode((*conveyor.Object)(nil)) }, conveyor.ErrInvalid},
		{"Decode into a type without a Meta", func() error { return object("a", 1).Decode(new(typed)) }, nil},
		{"Output of a request that no engine made", func() error { return new(conveyor.Request).Output("1", new(int)) }, conveyor.ErrNotFound},
		{"Settings of an empty request", func() error { return new(conveyor.Request).Settings(nil) }, nil},
		{"Permanent of nothing", func() error { return conveyor.Permanent(nil) }, nil},
		{"RetryAfter nothing", func() error { return conveyor.RetryAfter(-1, nil) }, nil},
		{"Err of an empty run", func() error { return new(conveyor.Run).Err() }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorIs(t, c.call(), c.is)
			require.Equal(t, before, dump(t, e.store))
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
	e := newEngine(t, conveyor.Options{Limits: conveyor.Limits{Spec: 10, Steps: 2, Depth: 4}})
	e.pipeline("d", "d")
	for _, o := range []*conveyor.Object{
		object(strings.Repeat("n", 253), nil),
		object("spec", "12345678"),
		object("deep", [][][]int{{{1}}}),
		{Meta: conveyor.Meta{Type: "r", Name: "meta", Pipeline: "p", Metadata: map[string]string{"12345": "12345"}}},
	} {
		e.apply(o)
	}
}

func TestRule17SpecsAndOutputsAreNeverLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		e := newEngine(t, conveyor.Options{Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.Level(-100)}))}).start()
		e.driver("ok", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("hello from the driver")
			return conveyor.DoneWith("sEcReT"), nil
		}))
		e.driver("bad", driverOf(inTurn(
			func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("ouch") }, always(conveyor.Done(), errBoom))))
		e.pipeline("ok", "bad")
		e.finish(object("a", map[string]string{"password": "sEcReT"}))
		from := time.Now()
		e.store.refusing(func([]string) error {
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
		e := newEngine(t, conveyor.Options{}).start()
		kept := make(chan context.Context, 1)
		e.driver("first", driverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			kept <- context.WithoutCancel(ctx)
			return conveyor.Done(), nil
		}))
		e.driver("second", driverOf(taking(time.Minute)))
		e.pipeline("first", "second")
		run := e.apply(object("a", 1))
		time.Sleep(time.Second)
		require.NoError(t, e.Shutdown(<-kept))
		require.NoError(t, e.run(run.ID).Err())
		require.Equal(t, []string{"succeeded", "succeeded"}, statesOf(e.run(run.ID)))
	})
}

func TestRule13ADriverMayShutDownItsEngineFromAGoroutineItLeavesBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Workers: 1}).start()
		stopped := make(chan error, 1)
		e.driver("d", driverOf(func(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
			go func() { stopped <- e.Shutdown(context.WithoutCancel(ctx)) }()
			time.Sleep(time.Minute)
			return conveyor.Done(), nil
		}))
		e.pipeline("d")
		run := e.apply(object("a", 1))
		require.NoError(t, <-stopped)
		time.Sleep(time.Hour)
		require.Equal(t, conveyor.StateSucceeded, e.run(run.ID).State)
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
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("outer", "value", chatty{req.Log}, "again", chatty{req.Log.With("x", 1)})
			return conveyor.Done(), nil
		}), conveyor.Timeout(time.Minute))
		e.pipeline("d")
		run := e.apply(object("a", 1))
		time.Sleep(time.Second)
		require.Equal(t, conveyor.StateSucceeded, e.run(run.ID).State)
		lines := e.logs(run.ID, conveyor.LogOptions{})
		require.Equal(t, "outer", lines[len(lines)-1].Message)
		require.JSONEq(t, `{"value":"logged","again":"logged"}`, string(lines[len(lines)-1].Attrs))
	})
}
