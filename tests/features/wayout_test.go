package features_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// TestWaitThatIsGivenUpSaysWhatTheRunIsDoing waits for runs that do not end, each for another reason.
func TestWaitThatIsGivenUpSaysWhatTheRunIsDoing(t *testing.T) {
	apply := func(objects ...*conveyor.Object) func(e *rig.Engine) {
		return func(e *rig.Engine) {
			for _, o := range objects {
				e.MustApply(o.Clone())
			}
			synctest.Wait()
		}
	}
	for _, c := range []struct {
		name   string
		driver rig.Func
		change func(*conveyor.PipelineSpec)
		before func(e *rig.Engine) // the resource is applied
		after  func(e *rig.Engine, run string)
		says   string
	}{
		{"its driver is not registered", rig.Taking(0), func(p *conveyor.PipelineSpec) { p.Steps[0].Driver = "buildr" }, nil, nil,
			`blocked: step 1: driver "buildr" is not registered; did you mean "builder"?`},
		{"its driver is not registered, and none is like it", rig.Taking(0), func(p *conveyor.PipelineSpec) { p.Steps[0].Driver = "deployer" }, nil, nil,
			`blocked: step 1: driver "deployer" is not registered: `},
		{"it awaits a signal", rig.Awaiting(0), nil, nil, nil, "waiting: step 1: waits for signal go: "},
		{"it awaits a signal, and another one was sent", rig.Awaiting(0), nil, nil, func(e *rig.Engine, run string) {
			require.NoError(e.T, errors.Join(e.Signal(e.T.Context(), run, "og", nil), e.Signal(e.T.Context(), run, "og", nil)))
		}, "waiting: step 1: waits for signal go; no step awaits what was sent: og: "},
		{"it is paused", rig.Taking(time.Hour), nil, func(e *rig.Engine) {
			require.NoError(e.T, e.Pause(asAda(e.T), conveyor.Target{All: true}, "freeze"))
		}, nil, "blocked: paused by ada: freeze: "},
		{"its driver is at work", rig.Taking(time.Hour), nil, nil, nil, "running: step 1 (driver builder), attempt 1, since 2000-01-01T00:00:00Z: "},
		{"it retries", rig.Always(conveyor.Done(), rig.ErrBoom), func(p *conveyor.PipelineSpec) {
			p.Retry = &conveyor.RetryPolicy{Initial: conveyor.Duration(time.Hour), Max: conveyor.Duration(time.Hour), Jitter: -1}
		}, nil, nil, "retrying: step 1: boom; the next attempt is due at 2000-01-01T01:00:00Z: "},
		{"another run of the resource is at work", rig.Taking(time.Hour), nil, apply(rig.Object("a", "before")), nil, "queued: waits for the end of run "},
		{"all workers are busy", rig.Taking(time.Hour), nil, apply(rig.Along("other", "b"), rig.Along("other", "c")), nil, "queued: waits for a worker: "},
		{"its pipeline has no room", rig.Taking(time.Hour), func(p *conveyor.PipelineSpec) { p.MaxRuns = 1 }, apply(rig.Object("b", nil)), nil, `queued: waits for room in pipeline "p": `},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, st store.Store) {
				e := rig.NewOn(t, st, conveyor.Options{Workers: 2}).MustStart()
				e.Driver("builder", rig.DriverOf(c.driver))
				e.PipelineNamed("other", "builder")
				p := rig.PipelineOf("builder")
				if c.change != nil {
					c.change(&p)
				}
				e.Save(p)
				if c.before != nil {
					c.before(e)
				}
				run := e.MustApply(rig.Object("a", nil))
				synctest.Wait()
				if c.after != nil {
					c.after(e, run.ID)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				cancel(rig.ErrBoom)
				began := time.Now()
				_, err := e.Wait(ctx, run.ID)
				require.ErrorIs(t, err, rig.ErrBoom, "the cause of the context")
				require.ErrorContains(t, err, "run "+run.ID+" has not ended: "+c.says)
				require.Zero(t, time.Since(began))
			})
		})
	}
}

func TestWaitSaysThatTheEngineWasNotStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logBuffer)
		e := rig.New(t, conveyor.Options{Logger: log.logger()})
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := e.Wait(ctx, run.ID)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "run "+run.ID+" has not ended: queued: the engine was not started; call Start: context deadline exceeded")
		require.Contains(t, log.lines(t), "WARN a run is waited for, and the engine is not started run="+run.ID)
		e.MustStart()
		require.NoError(t, e.Ended(run.ID).Err())
	})
}

func TestWaitDoesNotWaitForAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := &hangingStore{Store: memory.New(), gate: make(chan struct{})}
		e := rig.NewOn(t, hung, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", nil))
		hung.hangs.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		_, err := e.Wait(ctx, run.ID)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "the store does not say what it is doing")
		require.Equal(t, 100*time.Millisecond, time.Since(began))
		close(hung.gate)
	})
}

// hangingStore is a store whose Get does not return before gate is closed once it hangs, whatever its context says.
type hangingStore struct {
	store.Store
	hangs atomic.Bool
	gate  chan struct{}
}

func (s *hangingStore) Get(ctx context.Context, key string) (store.Record, error) {
	if s.hangs.Load() {
		<-s.gate
	}
	return s.Store.Get(ctx, key)
}

func TestOutputSaysWhyThereIsNone(t *testing.T) {
	for _, c := range []struct {
		name, step string
		into       any
		is         error
		says       string
		permanent  bool
	}{
		{"there is", "first", new(string), nil, "", false},
		{"no such step", "frist", new(string), conveyor.ErrNotFound, `output of step "frist": the run has no such step; did you mean "first"?`, true},
		{"no such step, and none is like it", "x", new(string), conveyor.ErrNotFound, `output of step "x": the run has no such step`, true},
		{"a step beside", "beside", new(string), conveyor.ErrNotFound, `output of step "beside": it does not come before step "d"; name it in the After of that step`, true},
		{"a step behind", "behind", new(string), conveyor.ErrNotFound, "it does not come before", true},
		{"the step itself", "d", new(string), conveyor.ErrNotFound, "it does not come before", true},
		{"a step of the cleanup", "last", new(string), conveyor.ErrNotFound, "it does not come before", true},
		{"a step without an output", "silent", new(string), conveyor.ErrNotFound, `output of step "silent": it has none; a step has one if its driver returns DoneWith`, false},
		{"a value of another type", "first", new(int), conveyor.ErrInvalid, `output of step "first" into *int`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: 2}}).MustStart()
				e.Driver("done", new(rig.Recorder))
				e.Driver("with", rig.DriverOf(rig.Always(conveyor.DoneWith("output"), nil)))
				var err error
				e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					err = req.Output(c.step, c.into)
					return conveyor.Done(), err
				}))
				e.Save(conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{
					{ID: "first", Driver: "with"}, {ID: "silent", Driver: "done"}, {ID: "beside", Driver: "with", After: []string{"silent"}},
					{ID: "d", Driver: "d", After: []string{"silent"}}, {ID: "behind", Driver: "with", After: []string{"d", "beside"}},
				}, Finally: []conveyor.Step{{ID: "last", Driver: "with"}}})
				run := e.Finish(rig.Object("a", nil))
				require.ErrorIs(t, err, c.is)
				if c.is != nil {
					require.ErrorContains(t, err, c.says)
					require.Equal(t, conveyor.StateFailed, run.State)
					require.Equal(t, map[bool]int{true: 1, false: 2}[c.permanent], run.Step("d").Attempt)
				}
			})
		})
	}
}

func TestOutputOfEachStepIsThereForTheCleanup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("with", rig.DriverOf(rig.Always(conveyor.DoneWith(1), nil)))
		e.Driver("read", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var n int
			return conveyor.Done(), errors.Join(req.Output("a", &n), req.Output("b", &n), req.Output("c", &n))
		}))
		e.Save(conveyor.PipelineSpec{Name: "p", Resource: "r", Steps: []conveyor.Step{{ID: "a", Driver: "with"}, {ID: "b", Driver: "with", After: conveyor.AtOnce()}},
			Finally: []conveyor.Step{{ID: "c", Driver: "with"}, {ID: "d", Driver: "read"}}})
		require.NoError(t, e.Finish(rig.Object("a", nil)).Err())
	})
}

func TestAPanicNamesTheFrameOfTheProgram(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: 1}}).MustStart()
		e.Driver("own", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return deepPanic(3) }))
		e.Driver("library", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			return conveyor.DoneWith(strings.Repeat("x", len(t.Name())-1_000_000)), nil
		}))
		e.Driver("engine", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return conveyor.Done(), (*conveyor.Request)(nil).Settings(&req)
		}))
		for _, c := range []struct{ driver, frame string }{
			{"own", "tests/features_test.deepPanic wayout_test.go:"},
			{"library", "tests/features_test.TestAPanicNamesTheFrameOfTheProgram.func1.2 wayout_test.go:"},
			{"engine", "tests/features_test.TestAPanicNamesTheFrameOfTheProgram.func1.3 wayout_test.go:"},
		} {
			e.PipelineNamed(c.driver, c.driver)
			run := e.Finish(rig.Along(c.driver, "a"+c.driver))
			var panicked *conveyor.PanicError
			require.ErrorAs(t, run.Err(), &panicked)
			require.Contains(t, panicked.Frame, c.frame)
			require.Equal(t, panicked.Frame, e.MustGetRun(run.ID).Steps[0].Attempts[0].Frame, "it is on record")
		}
	})
}

// deepPanic panics when it has called itself n times.
func deepPanic(n int) (conveyor.Result, error) {
	if n == 0 {
		panic("deep")
	}
	return deepPanic(n - 1)
}

// logBuffer is where a test finds what the engine has logged.
type logBuffer struct{ rig.Buffer }

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// lines returns the lines so far, as "LEVEL message key=value".
func (l *logBuffer) lines(t *testing.T) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(l.String()) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "level=")
		level, rest, _ := strings.Cut(line, " msg=")
		if after, ok := strings.CutPrefix(rest, `"`); ok {
			message, attrs, _ := strings.Cut(after, `"`)
			rest = message + attrs
		}
		lines = append(lines, level+" "+rest)
	}
	return lines
}

// TestTheLogSaysWhatIsBlockedAndWhatHasFailed looks at all lines of an engine that starts, has runs fail in each way, and stops.
func TestTheLogSaysWhatIsBlockedAndWhatHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logBuffer)
		e := rig.New(t, conveyor.Options{Logger: log.logger(), Retry: conveyor.RetryPolicy{MaxAttempts: 2, Initial: conveyor.Duration(time.Second), Jitter: -1}}).MustStart()
		e.Driver("fails", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.Reason(rig.ErrBoom, "no-image"))))
		e.Driver("panics", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return deepPanic(0) }))
		e.Driver("slow", rig.DriverOf(rig.Taking(time.Hour)))
		e.Driver("awaits", rig.DriverOf(rig.Awaiting(0)))
		for _, name := range []string{"fails", "panics", "awaits", "failz"} {
			e.PipelineNamed(name, name)
		}
		late := rig.Named("late", rig.PipelineOf("slow"))
		late.Timeout = conveyor.Duration(time.Second)
		e.Save(late)
		ids := map[string]string{}
		for _, name := range []string{"fails", "panics", "late"} {
			ids[name] = e.Finish(rig.Along(name, "a-"+name)).ID
		}
		awaits := e.MustApply(rig.Along("awaits", "a-awaits"))
		synctest.Wait()
		require.NoError(t, e.Signal(t.Context(), awaits.ID, "og", "secret"))
		synctest.Wait()
		blocked := e.MustApply(rig.Along("failz", "a-failz"))
		synctest.Wait()
		require.NoError(t, e.Pause(asAda(t), conveyor.Target{All: true}, "freeze"))
		held := e.MustApply(rig.Along("fails", "held"))
		synctest.Wait()
		require.NoError(t, e.Cancel(t.Context(), held.ID, ""))
		synctest.Wait()
		require.NoError(t, e.Resume(asAda(t), conveyor.Target{All: true}))
		e.Stop()
		of := func(name string) string { return fmt.Sprintf("run=%s resource=r/a-%s pipeline=%[2]s", ids[name], name) }
		got := log.lines(t)
		frame := "frame=\"github.com/conveyor-go/conveyor/tests/features_test.deepPanic wayout_test.go:"
		for i, line := range got {
			if before, _, found := strings.Cut(line, frame); found {
				got[i] = before + frame
			}
		}
		want := []string{
			"INFO engine starts, and takes up its unfinished runs runs=0",
			"WARN attempt failed " + of("fails") + " step=1 driver=fails attempt=1 kind=failure code=no-image",
			"WARN attempt failed " + of("fails") + " step=1 driver=fails attempt=2 kind=failure code=no-image",
			"WARN run failed " + of("fails") + " step=1 kind=failure code=no-image",
			"WARN attempt panicked " + of("panics") + " step=1 driver=panics attempt=1 kind=error " + frame,
			"WARN attempt panicked " + of("panics") + " step=1 driver=panics attempt=2 kind=error " + frame,
			"WARN run failed " + of("panics") + " step=1 kind=error code=\"\"",
			"WARN attempt failed " + of("late") + " step=1 driver=slow attempt=1 kind=timeout code=\"\"",
			"WARN run timed out " + of("late") + " step=1 kind=timeout",
			"WARN signal is kept, and the run awaits another one run=" + awaits.ID + " resource=r/a-awaits signal=og awaited=go",
			"WARN run is blocked run=" + blocked.ID + " resource=r/a-failz pipeline=failz step=1 driver=failz reason=\"driver \\\"failz\\\" is not registered; did you mean \\\"fails\\\"?\"",
			"INFO something was paused or resumed target=everything by=ada reason=freeze",
			"WARN run is blocked run=" + held.ID + " resource=r/held pipeline=fails reason=\"paused by ada: freeze\"",
			"INFO something was paused or resumed target=everything by=ada reason=resumed",
		}
		require.Equal(t, want, got[:min(len(got), len(want))])
		require.Equal(t, "INFO engine has stopped runs=2", got[len(got)-1])
		require.NotContains(t, strings.Join(got, "\n"), "boom")
		require.NotContains(t, strings.Join(got, "\n"), "secret")
	})
}

func TestAConflictWithADeletionSaysHowItGoesOn(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Undoing(new(rig.Recorder), rig.Recording(rig.InTurn(
			rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), rig.Taking(time.Hour), rig.Taking(time.Hour)))))
		e.Pipeline("d")
		o := rig.Object("a", 1)
		first := e.Finish(o)
		refused := func(says string) {
			for name, call := range map[string]func() error{
				"Apply":    func() error { _, err := e.Apply(t.Context(), rig.Object("a", 2)); return err },
				"Trigger":  func() error { _, err := e.Trigger(t.Context(), o.Key()); return err },
				"Retry":    func() error { _, err := e.Retry(t.Context(), first.ID, conveyor.RetryFrom{}); return err },
				"Rollback": func() error { _, err := e.Rollback(t.Context(), o.Key(), 1); return err },
			} {
				err := call()
				require.ErrorIs(t, err, conveyor.ErrConflict, name)
				require.ErrorContains(t, err, says, name)
			}
		}
		remove := func() *conveyor.Run {
			run, err := e.Delete(t.Context(), o.Key())
			require.NoError(t, err)
			return run
		}
		failed := remove()
		e.Ended(failed.ID)
		refused("its deletion, run " + failed.ID + ", is failed; call Delete again")
		again := remove()
		require.NotEqual(t, failed.ID, again.ID)
		synctest.Wait()
		refused("run " + again.ID + " is deleting it")
		require.NoError(t, e.Cancel(t.Context(), again.ID, ""))
		e.Ended(again.ID)
		refused("its deletion, run " + again.ID + ", is canceled; call Delete again")
		last := remove()
		time.Sleep(2 * time.Hour)
		require.NoError(t, e.Ended(last.ID).Err())
		require.NoError(t, e.Finish(rig.Object("a", 2)).Err())
	})
}

func TestAStaleVersionSaysHowToGetTheCurrentOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		o := rig.Object("a", 1)
		o.Version = 7
		_, err := e.Apply(t.Context(), o)
		require.ErrorContains(t, err, "version 7 was given, and there is no such resource; a new one has version 0")
		e.Finish(rig.Object("a", 1))
		_, err = e.Apply(t.Context(), o)
		require.ErrorContains(t, err, "version 7 was given, and 1 is the current one; read it with Get, and apply the change to that")
	})
}

func TestAStoreThatIsClosedTooEarlyIsMissed(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		require.NoError(t, e.Register("d", rig.DriverOf(rig.Taking(time.Minute))))
		require.NoError(t, e.SavePipeline(t.Context(), rig.PipelineOf("d", "d")))
		require.NoError(t, e.Start(t.Context()))
		run, err := e.Apply(t.Context(), rig.Object("a", 1))
		require.NoError(t, err)
		require.NoError(t, st.Close())
		_, waited := e.Wait(t.Context(), run.ID)
		_, applied := e.Apply(t.Context(), rig.Object("b", 1))
		_, got := e.Get(t.Context(), rig.Object("b", 1).Key())
		var listed error
		for _, err := range e.List(t.Context(), conveyor.ResourceFilter{}) {
			listed = err
		}
		for _, err := range []error{waited, applied, got, listed, e.Cancel(t.Context(), run.ID, ""), e.Pause(t.Context(), conveyor.Target{All: true}, "")} {
			require.ErrorIs(t, err, store.ErrClosed)
			require.ErrorContains(t, err, "store: closed: the engine needs its store until Shutdown has returned")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_ = e.Shutdown(ctx) // it names what is not recorded
	})
}

func TestTwoEnginesOfOneProcessDoNotWorkOnOneStore(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		first, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		second, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		require.NoError(t, first.Start(t.Context()))
		require.ErrorIs(t, first.Start(t.Context()), conveyor.ErrConflict, "it is started already")
		err = second.Start(t.Context())
		require.ErrorIs(t, err, conveyor.ErrConflict)
		require.ErrorContains(t, err, "another engine of this process works on this store; use one engine, or shut the other one down first")
		require.NoError(t, first.Shutdown(t.Context()))
		require.NoError(t, second.Start(t.Context()))
		require.NoError(t, second.Shutdown(t.Context()))
	})
}

func TestAStartAfterShutdownLeavesTheStoreToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		one, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		require.NoError(t, one.Start(t.Context()))
		require.NoError(t, one.Shutdown(t.Context()))
		require.ErrorIs(t, one.Start(t.Context()), conveyor.ErrClosed)
		two, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		require.NoError(t, two.Start(t.Context()))
		require.NoError(t, two.Shutdown(t.Context()))
	})
}

func TestAnEngineThatCouldNotStartLeavesItsStoreToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory.New()
		_, err := st.Commit(t.Context(), store.Put("format", []byte(`{"format":99}`)))
		require.NoError(t, err)
		first, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		require.ErrorIs(t, first.Start(t.Context()), store.ErrCorrupt)
		_, err = st.Commit(t.Context(), store.Delete("format"))
		require.NoError(t, err)
		second, err := conveyor.New(st, conveyor.Options{})
		require.NoError(t, err)
		require.NoError(t, second.Start(t.Context()))
		require.ErrorIs(t, first.Start(t.Context()), conveyor.ErrConflict)
		require.NoError(t, second.Shutdown(t.Context()))
		require.NoError(t, first.Start(t.Context()))
		require.NoError(t, first.Shutdown(t.Context()))
	})
}

func TestAFaultOfAValueNamesItsGoField(t *testing.T) {
	e := rig.New(t, conveyor.Options{})
	typed := &struct {
		conveyor.Meta
		Spec int `json:"spec"`
	}{Meta: conveyor.Meta{Name: "a"}}
	for _, r := range []conveyor.Resource{typed, &conveyor.Object{Meta: conveyor.Meta{Name: "a"}}} {
		_, err := e.Apply(t.Context(), r)
		var field *conveyor.FieldError
		require.ErrorAs(t, err, &field)
		require.Equal(t, "resource", field.Field, "programs branch on it")
		require.ErrorContains(t, err, "resource: is empty")
		require.ErrorContains(t, err, "(the Go field is Meta.Type)")
	}
	_, err := e.Apply(t.Context(), &conveyor.Object{
		Meta: conveyor.Meta{Type: "r", Name: "a", MetadataJSON: map[string]json.RawMessage{"k": json.RawMessage(`{"a":1,"a":2}`)}}, Spec: json.RawMessage("a: 1"),
	})
	require.ErrorContains(t, err, "metadata.k.a: comes twice (the Go field is Meta.MetadataJSON)")
	require.ErrorContains(t, err, "it looks like YAML; it must be JSON, so convert it first")
	_, err = conveyor.ParseResource(strings.NewReader(`{"name":"a"}`))
	require.ErrorContains(t, err, "resource: is empty")
	require.NotContains(t, err.Error(), "Go field", "a document has none")
}
