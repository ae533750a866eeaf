package conveyortest_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/conveyortest"
)

func driverOf(fn func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error)) conveyor.Driver {
	return conveyor.DriverFunc(fn)
}

var errBoom = errors.New("boom")

func TestAttemptSaysWhatAnAnswerMeans(t *testing.T) {
	for _, c := range []struct {
		name   string
		driver conveyor.Driver
		want   conveyortest.Outcome
	}{
		{"done", conveyortest.InTurn(), conveyortest.Outcome{State: conveyor.StateSucceeded}},
		{"done with an output", Cloner{}, conveyortest.Outcome{
			State: conveyor.StateSucceeded, Result: conveyor.DoneWith("/src/app"), Output: []byte(`"/src/app"`)}},
		{"skip", conveyortest.Return(conveyor.Skip("not needed"), nil), conveyortest.Outcome{
			State: conveyor.StateSkipped, Reason: "not needed", Result: conveyor.Skip("not needed")}},
		{"halt", conveyortest.Return(conveyor.Halt("enough"), nil), conveyortest.Outcome{
			State: conveyor.StateSucceeded, Reason: "enough", Result: conveyor.Halt("enough")}},
		{"requeue", conveyortest.Return(conveyor.RequeueAfter(0), nil), conveyortest.Outcome{
			State: conveyor.StateWaiting, Reason: "the driver asked to be called again", Result: conveyor.RequeueAfter(0)}},
		{"await", conveyortest.Return(conveyor.Await("go", time.Hour), nil), conveyortest.Outcome{
			State: conveyor.StateWaiting, Reason: "waits for signal go", Result: conveyor.Await("go", time.Hour)}},
		{"an error", conveyortest.Return(conveyor.Done(), errBoom), conveyortest.Outcome{
			State: conveyor.StateRetrying, Reason: "boom", Err: errBoom}},
		{"a permanent error", conveyortest.Return(conveyor.Done(), conveyor.Permanent(errBoom)), conveyortest.Outcome{
			State: conveyor.StateFailed, Reason: "boom", Err: conveyor.Permanent(errBoom)}},
		{"an error with a delay", conveyortest.Return(conveyor.Done(), conveyor.RetryAfter(0, errBoom)), conveyortest.Outcome{
			State: conveyor.StateRetrying, Reason: "boom", Err: conveyor.RetryAfter(0, errBoom)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := conveyortest.Attempt(t, c.driver, conveyortest.Given{})
			require.Equal(t, c.want, got)
			require.Equal(t, c.want.State == conveyor.StateFailed, got.Permanent())
			synctest.Test(t, func(t *testing.T) {
				require.Equal(t, c.want, conveyortest.Attempt(t, c.driver, conveyortest.Given{}))
			})
		})
	}
}

func TestAttemptSaysWhatTheEngineHasAgainstADriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := conveyortest.Attempt(t, conveyortest.Return(conveyor.DoneWith(func() {}), nil), conveyortest.Given{})
		require.True(t, o.Permanent())
		require.ErrorIs(t, o.Err, conveyor.ErrInvalid)

		var panicked *conveyor.PanicError
		o = conveyortest.Attempt(t, driverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic("at the disco") }), conveyortest.Given{})
		require.Equal(t, conveyor.StateRetrying, o.State)
		require.ErrorAs(t, o.Err, &panicked)
		require.Equal(t, "at the disco", panicked.Value)
		require.Contains(t, string(panicked.Stack), "attempt_test.go")

		o = conveyortest.Attempt(t, driverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			runtime.Goexit()
			return conveyor.Done(), nil
		}), conveyortest.Given{})
		require.ErrorAs(t, o.Err, &panicked)
		require.Contains(t, o.Err.Error(), "Goexit")

		began := time.Now()
		o = conveyortest.Attempt(t, stuck, conveyortest.Given{Timeout: time.Hour})
		require.Equal(t, conveyor.StateRetrying, o.State)
		require.ErrorIs(t, o.Err, conveyor.ErrTimeout)
		require.Equal(t, time.Hour, time.Since(began))
	})
}

func TestAttemptCallsTheDriverOnce(t *testing.T) {
	for _, again := range []conveyor.Driver{
		conveyortest.Return(conveyor.RequeueAfter(0), nil),
		conveyortest.Return(conveyor.Done(), conveyor.RetryAfter(0, errBoom)),
	} {
		for range 20 {
			var r conveyortest.Recorder
			conveyortest.Attempt(t, r.Record(again), conveyortest.Given{})
			require.Len(t, r.Calls(), 1)
		}
	}
}

func TestAttemptGivesTheRequestAllThatIsGiven(t *testing.T) {
	build := app()
	build.Version = 7
	given := conveyortest.Given{
		Resource: build, Settings: map[string]int{"depth": 1},
		Outputs: map[string]any{"1": "/src/app", "4": []string{"a", "b"}, "nothing": nil},
	}
	o := conveyortest.Attempt(t, conveyor.For(func(ctx context.Context, req *conveyor.Request, b *Build) (conveyor.Result, error) {
		var folder string
		var images, nothing []string
		var settings struct{ Depth int }
		require.NoError(t, req.Output("1", &folder))
		require.NoError(t, req.Output("4", &images))
		require.ErrorIs(t, req.Output("nothing", &nothing), conveyor.ErrNotFound)
		require.NoError(t, req.Settings(&settings))
		require.NoError(t, req.Checkpoint(ctx, 5))
		var progress int
		found, err := req.Restore(&progress)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, 1, req.Attempt)
		require.NotEmpty(t, req.IdempotencyKey())
		return conveyor.DoneWith([]any{folder, images, settings.Depth, progress, b.Key().String(), b.Spec.Repository}), nil
	}), given)
	require.NoError(t, o.Err)
	require.JSONEq(t, `["/src/app", ["a", "b"], 1, 5, "build/app", "https://example.com/app.git"]`, string(o.Output))
	require.EqualValues(t, 7, build.Version)
	require.Zero(t, build.ID)
}

func TestAttemptFailsTheTestWhenTheDriverCannotBeCalled(t *testing.T) {
	for _, c := range []struct {
		name   string
		driver conveyor.Driver
		given  conveyortest.Given
		want   string
	}{
		{"no driver", nil, conveyortest.Given{}, "the driver is nil"},
		{"settings that are not JSON", Cloner{}, conveyortest.Given{Settings: func() {}}, "unsupported type"},
		{"an output that is not JSON", Cloner{}, conveyortest.Given{Outputs: map[string]any{"1": func() {}}}, "the driver was not called"},
		{"an output of a bad step", Cloner{}, conveyortest.Given{Outputs: map[string]any{"a b": 1}}, "a b"},
		{"a bad name", Cloner{}, conveyortest.Given{Resource: &conveyor.Object{Meta: conveyor.Meta{Name: "a b"}}}, "a b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			said := during(func(t testing.TB) { conveyortest.Attempt(t, c.driver, c.given) })
			require.Len(t, said, 1)
			require.Contains(t, said[0], c.want)
		})
	}
}
