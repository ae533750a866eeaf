package conveyortest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/conveyortest"
)

// seen is what a driver finds in its request.
type seen struct {
	Signaled, TimedOut bool
	Payload            string // as JSON
	Restored           bool
	Checkpoint         string // as JSON
	Resumed            bool
	Outcome            conveyor.State
	Reason             string
}

// look reads a request. It leaves out what every request of these tests has.
func look(t testing.TB, req *conveyor.Request) (s seen) {
	t.Helper()
	var payload, checkpoint json.RawMessage
	var err error
	if s.Signaled, err = req.Signal(&payload); err != nil {
		require.ErrorIs(t, err, conveyor.ErrTimeout)
		s.TimedOut = true
	}
	s.Restored, err = req.Restore(&checkpoint)
	require.NoError(t, err)
	s.Payload, s.Checkpoint = string(payload), string(checkpoint)
	s.Resumed, s.Outcome, s.Reason = req.Resumed, req.Outcome, req.OutcomeReason
	require.Equal(t, 1, req.Attempt)
	require.Equal(t, conveyor.CauseCreated, req.Cause)
	require.Equal(t, req.Run+"/"+req.Step.ID, strings.TrimPrefix(req.IdempotencyKey(), req.Resource.ID+"/"))
	return s
}

// approved is a payload.
type approved struct {
	By string `json:"by"`
}

func TestGivenIsWhatTheRequestSays(t *testing.T) {
	for _, c := range []struct {
		name  string
		given conveyortest.Given
		want  seen
	}{
		{"nothing", conveyortest.Given{}, seen{}},
		{"a signal without a payload", conveyortest.Given{Signal: &conveyortest.Signal{}}, seen{Signaled: true, Payload: "null"}},
		{"a signal with a payload", conveyortest.Given{Signal: &conveyortest.Signal{Name: "approved", Payload: approved{"ann"}}},
			seen{Signaled: true, Payload: `{"by":"ann"}`}},
		{"a signal that is false", conveyortest.Given{Signal: &conveyortest.Signal{Payload: false}}, seen{Signaled: true, Payload: "false"}},
		{"a wait that timed out", conveyortest.Given{Signal: &conveyortest.Signal{Name: "approved", TimedOut: true}}, seen{TimedOut: true}},
		{"a checkpoint", conveyortest.Given{Checkpoint: map[string]int{"page": 3}}, seen{Restored: true, Checkpoint: `{"page":3}`}},
		{"a checkpoint that is zero", conveyortest.Given{Checkpoint: 0}, seen{Restored: true, Checkpoint: "0"}},
		{"a checkpoint that is null", conveyortest.Given{Checkpoint: json.RawMessage("null")}, seen{Restored: true, Checkpoint: "null"}},
		{"a call that was interrupted", conveyortest.Given{Resumed: true}, seen{Resumed: true}},
		{"success", conveyortest.Given{Outcome: conveyor.StateSucceeded}, seen{Outcome: conveyor.StateSucceeded}},
		{"success after a halt", conveyortest.Given{Outcome: conveyor.StateSucceeded, OutcomeReason: "enough"},
			seen{Outcome: conveyor.StateSucceeded, Reason: "enough"}},
		{"failure", conveyortest.Given{Outcome: conveyor.StateFailed, OutcomeReason: "the disk is full"},
			seen{Outcome: conveyor.StateFailed, Reason: "step last (driver given-outcome): the disk is full"}},
		{"failure without a reason", conveyortest.Given{Outcome: conveyor.StateFailed},
			seen{Outcome: conveyor.StateFailed, Reason: "step last (driver given-outcome): failed as given"}},
		{"cancellation", conveyortest.Given{Outcome: conveyor.StateCanceled, OutcomeReason: "no longer wanted"},
			seen{Outcome: conveyor.StateCanceled, Reason: "no longer wanted"}},
		{"cancellation without a reason", conveyortest.Given{Outcome: conveyor.StateCanceled}, seen{Outcome: conveyor.StateCanceled}},
		{"a newer generation", conveyortest.Given{Outcome: conveyor.StateSuperseded}, seen{Outcome: conveyor.StateSuperseded, Reason: "generation 2 came"}},
		{"a newer generation than one that is 0", conveyortest.Given{
			Outcome: conveyor.StateSuperseded, Resource: &conveyor.Object{Spec: []byte("0")},
		}, seen{Outcome: conveyor.StateSuperseded, Reason: "generation 2 came"}},
		{"a signal to a cleanup", conveyortest.Given{
			Outcome: conveyor.StateCanceled, Signal: &conveyortest.Signal{Payload: "go"},
		}, seen{Outcome: conveyor.StateCanceled, Signaled: true, Payload: `"go"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			test := func(t *testing.T) {
				conveyortest.Attempt(t, driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					require.Equal(t, c.want, look(t, req))
					return conveyor.Done(), nil
				}), c.given)
			}
			test(t)
			synctest.Test(t, test)
		})
	}
}

// combinations calls fn with all that can be given together.
func combinations(fn func(name string, given conveyortest.Given, want seen)) {
	for _, signal := range []*conveyortest.Signal{nil, {Name: "go", Payload: "now"}, {Name: "go", TimedOut: true}} {
		for _, checkpoint := range []any{nil, "page 3"} {
			for _, resumed := range []bool{false, true} {
				for _, outcome := range []conveyor.State{
					conveyor.StateUnset, conveyor.StateSucceeded, conveyor.StateFailed, conveyor.StateCanceled, conveyor.StateSuperseded,
				} {
					given := conveyortest.Given{
						Resource: app(), Outputs: map[string]any{"1": "/src/app", "2": 7}, Settings: map[string]int{"depth": 1}, Timeout: time.Hour,
						Signal: signal, Checkpoint: checkpoint, Resumed: resumed, Outcome: outcome,
					}
					want := seen{Resumed: resumed, Outcome: outcome}
					if signal != nil {
						want.Signaled, want.TimedOut = !signal.TimedOut, signal.TimedOut
					}
					if want.Signaled {
						want.Payload = `"now"`
					}
					if checkpoint != nil {
						want.Restored, want.Checkpoint = true, `"page 3"`
					}
					name := fmt.Sprintf("signaled %t, timed out %t, checkpoint %t, resumed %t, %s", want.Signaled, want.TimedOut, want.Restored, resumed, outcome)
					fn(name, given, want)
				}
			}
		}
	}
}

func TestAllThatIsGivenGoesTogether(t *testing.T) {
	combinations(func(name string, given conveyortest.Given, want seen) {
		t.Run(name, func(t *testing.T) {
			test := func(t *testing.T) {
				var r conveyortest.Recorder
				o := conveyortest.Attempt(t, r.Record(conveyor.For(func(ctx context.Context, req *conveyor.Request, b *Build) (conveyor.Result, error) {
					got := look(t, req)
					got.Reason = ""
					require.Equal(t, want, got)
					var folder string
					var number int
					var settings struct{ Depth int }
					require.NoError(t, req.Output("1", &folder))
					require.NoError(t, req.Output("2", &number))
					require.NoError(t, req.Settings(&settings))
					require.Equal(t, conveyor.Duration(time.Hour), req.Step.Timeout)
					require.NoError(t, req.Checkpoint(ctx, "page 4"))
					return conveyor.DoneWith([]any{folder, number, settings.Depth, b.Spec.Repository}), nil
				})), given)
				require.NoError(t, o.Err)
				require.Equal(t, conveyor.StateSucceeded, o.State)
				require.JSONEq(t, `["/src/app", 7, 1, "https://example.com/app.git"]`, string(o.Output))
				require.Len(t, r.Calls(), 1)
			}
			test(t)
			synctest.Test(t, test)
		})
	})
}

// TestTheOutcomeIsThatOfTheDriverUnderTest has drivers whose answers look like those that prepare the call.
func TestTheOutcomeIsThatOfTheDriverUnderTest(t *testing.T) {
	for _, c := range []struct {
		name   string
		driver conveyor.Driver
		want   conveyortest.Outcome
	}{
		{"requeue", conveyortest.Return(conveyor.RequeueAfter(0), nil), conveyortest.Outcome{
			State: conveyor.StateWaiting, Reason: "the driver asked to be called again", Result: conveyor.RequeueAfter(0)}},
		{"await the same signal again", conveyortest.Return(conveyor.Await("go", time.Hour), nil), conveyortest.Outcome{
			State: conveyor.StateWaiting, Reason: "waits for signal go", Result: conveyor.Await("go", time.Hour)}},
		{"skip", conveyortest.Return(conveyor.Skip("not needed"), nil), conveyortest.Outcome{
			State: conveyor.StateSkipped, Reason: "not needed", Result: conveyor.Skip("not needed")}},
		{"halt", conveyortest.Return(conveyor.Halt("enough"), nil), conveyortest.Outcome{
			State: conveyor.StateSucceeded, Reason: "enough", Result: conveyor.Halt("enough")}},
		{"an error", conveyortest.Return(conveyor.Done(), errBoom), conveyortest.Outcome{
			State: conveyor.StateRetrying, Reason: "boom", Err: errBoom}},
		{"a permanent error", conveyortest.Return(conveyor.Done(), conveyor.Permanent(errBoom)), conveyortest.Outcome{
			State: conveyor.StateFailed, Reason: "boom", Err: conveyor.Permanent(errBoom)}},
	} {
		combinations(func(name string, given conveyortest.Given, _ seen) {
			t.Run(c.name+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var r conveyortest.Recorder
					require.Equal(t, c.want, conveyortest.Attempt(t, r.Record(c.driver), given))
					require.Len(t, r.Calls(), 1)
				})
			})
		})
	}
}

func TestARefusedAnswerOfACleanupIsNotTakenForTheFailureBeforeIt(t *testing.T) {
	for _, outcome := range []conveyor.State{conveyor.StateSucceeded, conveyor.StateFailed, conveyor.StateCanceled} {
		o := conveyortest.Attempt(t, conveyortest.Return(conveyor.DoneWith(func() {}), nil),
			conveyortest.Given{Outcome: outcome, OutcomeReason: "because"})
		require.True(t, o.Permanent())
		require.ErrorContains(t, o.Err, "output of type func()")
	}
}

func TestAttemptRefusesWhatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name  string
		given conveyortest.Given
		want  string
	}{
		{"a state in which steps do not end", conveyortest.Given{Outcome: conveyor.StateRunning},
			"Outcome: Steps do not end as running, but as succeeded, failed, canceled or superseded"},
		{"skipped steps", conveyortest.Given{Outcome: conveyor.StateSkipped}, "Outcome: Steps do not end as skipped"},
		{"a reason of no outcome", conveyortest.Given{OutcomeReason: "because"}, "OutcomeReason: has no meaning without an Outcome"},
		{"a reason of the engine", conveyortest.Given{Outcome: conveyor.StateSuperseded, OutcomeReason: "because"},
			"OutcomeReason: of superseded Steps is made by the engine, and must be empty"},
		{"a payload that has not come", conveyortest.Given{Signal: &conveyortest.Signal{Payload: 1, TimedOut: true}},
			"Signal: a wait that has timed out has no Payload"},
		{"a bad name of a signal", conveyortest.Given{Signal: &conveyortest.Signal{Name: "a b"}}, `signal: "a b"`},
		{"a bad name of a signal that has not come", conveyortest.Given{Signal: &conveyortest.Signal{Name: "a b", TimedOut: true}}, `signal: "a b"`},
		{"a payload that is not JSON", conveyortest.Given{Signal: &conveyortest.Signal{Payload: func() {}}}, "payload of type func()"},
		{"a checkpoint that is not JSON", conveyortest.Given{Checkpoint: func() {}}, "checkpoint of type func()"},
		{"a checkpoint that is too large", conveyortest.Given{Checkpoint: strings.Repeat("x", 1<<20), Resumed: true}, "too large: checkpoint"},
		{"an output that is not JSON, before a cleanup", conveyortest.Given{
			Outputs: map[string]any{"1": func() {}}, Outcome: conveyor.StateFailed,
		}, "output of type func()"},
		{"an output that is not JSON, before an interrupted call", conveyortest.Given{
			Outputs: map[string]any{"1": func() {}}, Resumed: true, Signal: &conveyortest.Signal{},
		}, "output of type func()"},
		{"an output of a step that Attempt needs", conveyortest.Given{
			Outputs: map[string]any{"last": 1}, Outcome: conveyor.StateFailed,
		}, `"last" is the id of steps[0] too`},
	} {
		t.Run(c.name, func(t *testing.T) {
			test := func(t *testing.T) {
				var r conveyortest.Recorder
				said := during(func(t testing.TB) { conveyortest.Attempt(t, r.Record(Cloner{}), c.given) })
				require.Len(t, said, 1)
				require.Contains(t, said[0], c.want)
				require.Empty(t, r.Calls())
			}
			test(t)
			synctest.Test(t, test)
		})
	}
}

func TestAnAttemptThatIsGivenALotChangesNoneOfIt(t *testing.T) {
	build := app()
	given := conveyortest.Given{
		Resource: build, Signal: &conveyortest.Signal{}, Checkpoint: []int{1}, Resumed: true, Outcome: conveyor.StateSuperseded,
	}
	conveyortest.Attempt(t, Cloner{}, given)
	require.Equal(t, app(), build)
	require.Equal(t, &conveyortest.Signal{}, given.Signal)
}

func TestAnInterruptedCallThatFailsIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		o := conveyortest.Attempt(t, stuck, conveyortest.Given{
			Timeout: time.Hour, Resumed: true, Checkpoint: 1, Signal: &conveyortest.Signal{}, Outcome: conveyor.StateFailed,
		})
		require.Equal(t, conveyor.StateRetrying, o.State)
		require.ErrorIs(t, o.Err, conveyor.ErrTimeout)
		require.Equal(t, time.Hour, time.Since(began)) // the preparations take no part of it
		var panicked *conveyor.PanicError
		o = conveyortest.Attempt(t, driverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) { panic(errors.New("at the disco")) }),
			conveyortest.Given{Resumed: true, Outcome: conveyor.StateCanceled})
		require.Equal(t, conveyor.StateRetrying, o.State)
		require.ErrorAs(t, o.Err, &panicked)
	})
}
