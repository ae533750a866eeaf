package run

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/internal/text"
)

func TestOutcomeChangesStep(t *testing.T) {
	const errorText = 80 + len(text.CutMark)
	began := time.Unix(1000, 0)
	ended := began.Add(time.Second)
	policy := retry.Policy{MaxAttempts: 3, Initial: document.Duration(time.Second), Max: document.Duration(time.Minute), Multiplier: 2, Jitter: -1}
	running := record.Step{
		State: plan.Running, Attempt: 2, Started: record.TimeOf(began), Resumed: true, Requeues: 4, Interruptions: 5, Crashes: 1, Lines: 6,
		Signal: []byte(`"go"`), TimedOut: true,
	}
	// told is the step after an answer that is no end of what the step was told: it is told again in its next call.
	told := func(f func(*record.Step)) record.Step {
		s := running
		s.Resumed = false
		f(&s)
		return s
	}
	change := func(f func(*record.Step)) record.Step {
		s := told(f)
		s.Signal, s.TimedOut = nil, false
		return s
	}
	final := func(state plan.State, reason string) record.Step {
		return change(func(s *record.Step) { s.State, s.Ended, s.Reason = state, record.TimeOf(ended), reason })
	}
	failedAs := func(state plan.State, reason string) record.Step {
		return told(func(s *record.Step) { s.State, s.Ended, s.Reason = state, record.TimeOf(ended), reason })
	}
	// sleeps notes that a step waits for a time; 0 means that it does not.
	sleeps := func(s *record.Step, due record.Time) {
		if s.Due = due; due == math.MaxInt64 {
			s.Delay = math.MaxInt64
		} else if due != 0 {
			s.Delay = time.Duration(due - record.TimeOf(ended))
		}
	}
	retrying := func(delay time.Duration, reason string) record.Step {
		return told(func(s *record.Step) {
			s.State, s.Reason = plan.Retrying, reason
			sleeps(s, record.TimeOf(ended.Add(delay)))
		})
	}
	requeued := func(due record.Time) record.Step {
		return told(func(s *record.Step) {
			sleeps(s, due)
			s.State, s.Again, s.Requeues, s.Reason = plan.Waiting, true, 5, "the driver asked to be called again"
			s.Settled = 1
		})
	}
	refused := func(due record.Time) record.Step {
		s := running
		sleeps(&s, due)
		s.State, s.Again, s.Reason, s.Refused = plan.Waiting, true, "waits for capacity of the host", true
		return s
	}
	awaiting := func(due record.Time) record.Step {
		return change(func(s *record.Step) {
			sleeps(s, due)
			s.State, s.Again, s.Await, s.Reason = plan.Waiting, true, "go", "waits for signal go"
			s.Settled = 1
			s.Waits = []record.Wait{{Signal: "go", From: record.TimeOf(ended)}}
		})
	}
	attemptOf := func(text string, kind fault.Kind) *record.Attempt {
		return &record.Attempt{Started: record.TimeOf(began), Ended: record.TimeOf(ended), Error: text, Kind: kind}
	}
	interrupted := told(func(s *record.Step) {
		s.State, s.Resumed, s.Again, s.Interruptions = plan.Queued, true, true, 6
	})
	numbered := func(s record.Step, attempt int) record.Step { s.Attempt = attempt; return s }
	failure := func(text string) *Failure { return &Failure{Text: text} }
	after := func(d time.Duration) *Failure { return &Failure{Text: "boom", After: &d} }
	long := strings.Repeat("a", 99)
	short := strings.Repeat("a", 80) + text.CutMark
	plain := attemptOf("boom", fault.KindPlain)
	const ranOut, tooLarge = "timed out: the attempt took longer than 1s", "output: 2 bytes, more than the limit of 1 (Limits.Output)"

	for _, c := range []struct {
		name    string
		outcome Outcome
		attempt int // of MaxAttempts 3
		stop    plan.Stop
		want    record.Step
		failed  *record.Attempt
	}{
		{"done", Outcome{Kind: Done}, 2, plan.StopNone, final(plan.Succeeded, ""), nil},
		{"done with an output", Outcome{Kind: Done, Output: []byte("1")}, 2, plan.StopNone,
			change(func(s *record.Step) { s.State, s.Ended, s.Output = plan.Succeeded, record.TimeOf(ended), []byte("1") }), nil},
		{"done although the run halts", Outcome{Kind: Done}, 2, plan.StopHalt, final(plan.Succeeded, ""), nil},
		{"done although the run is canceled", Outcome{Kind: Done}, 2, plan.StopCancel, final(plan.Succeeded, ""), nil},
		{"done although the run is out of time", Outcome{Kind: Done}, 2, plan.StopTimeout, final(plan.Succeeded, ""), nil},
		{"done although the run is superseded", Outcome{Kind: Done}, 2, plan.StopSupersede, final(plan.Succeeded, ""), nil},
		{"planned", Outcome{Kind: Planned, Plan: new(plan.Plan)}, 2, plan.StopNone, final(plan.Succeeded, ""), nil},
		{"skipped", Outcome{Kind: Skip, Reason: "not today"}, 2, plan.StopNone, final(plan.Skipped, "not today"), nil},
		{"skipped although the run is canceled", Outcome{Kind: Skip, Reason: "not today"}, 2, plan.StopCancel, final(plan.Skipped, "not today"), nil},
		{"halted", Outcome{Kind: Halt, Reason: "enough"}, 2, plan.StopNone, final(plan.Succeeded, "enough"), nil},
		{"a reason that is too long", Outcome{Kind: Skip, Reason: long}, 2, plan.StopNone, final(plan.Skipped, short), nil},

		{"requeued", Outcome{Kind: Requeue, Delay: time.Hour}, 2, plan.StopNone, requeued(record.TimeOf(ended.Add(time.Hour))), nil},
		{"requeued at once", Outcome{Kind: Requeue}, 2, plan.StopNone, requeued(record.TimeOf(ended.Add(MinDelay))), nil},
		{"requeued as soon as can be", Outcome{Kind: Requeue, Delay: MinDelay + 1}, 2, plan.StopNone, requeued(record.TimeOf(ended.Add(MinDelay + 1))), nil},
		{"refused for a moment", Outcome{Kind: Refused, Delay: 1}, 2, plan.StopNone, refused(record.TimeOf(ended.Add(MinDelay))), nil},
		{"waits for a signal for a moment", Outcome{Kind: Await, Reason: "go", Delay: 1}, 2, plan.StopNone, awaiting(record.TimeOf(ended.Add(MinDelay))), nil},
		{"requeued for ever", Outcome{Kind: Requeue, Delay: math.MaxInt64}, 2, plan.StopNone, requeued(math.MaxInt64), nil},
		{"requeued although the run is canceled", Outcome{Kind: Requeue}, 2, plan.StopCancel, requeued(record.TimeOf(ended.Add(MinDelay))), nil},
		{"refused by the host", Outcome{Kind: Refused, Delay: time.Hour}, 2, plan.StopNone, refused(record.TimeOf(ended.Add(time.Hour))), nil},
		{"refused although the run is canceled", Outcome{Kind: Refused, Delay: time.Hour}, 2, plan.StopCancel, refused(record.TimeOf(ended.Add(time.Hour))), nil},
		{"waits for a signal", Outcome{Kind: Await, Reason: "go"}, 2, plan.StopNone, awaiting(0), nil},
		{"waits for a signal for a while", Outcome{Kind: Await, Reason: "go", Delay: time.Hour}, 2, plan.StopNone, awaiting(record.TimeOf(ended.Add(time.Hour))), nil},
		{"waits for a signal for ever", Outcome{Kind: Await, Reason: "go", Delay: math.MaxInt64}, 2, plan.StopNone, awaiting(math.MaxInt64), nil},
		{"waits for a signal although the run is canceled", Outcome{Kind: Await, Reason: "go"}, 2, plan.StopCancel, awaiting(0), nil},

		{"failed", Outcome{Kind: Failed, Failure: failure("boom")}, 2, plan.StopNone, retrying(2*time.Second, "boom"), plain},
		{"failed for the first time", Outcome{Kind: Failed, Failure: failure("boom")}, 1, plan.StopNone, retrying(time.Second, "boom"), plain},
		{"failed for the last time", Outcome{Kind: Failed, Failure: failure("boom")}, 3, plan.StopNone, failedAs(plan.Failed, "boom"), plain},
		{"failed for good", Outcome{Kind: Failed, Failure: &Failure{Text: "so: boom", Permanent: true}}, 1, plan.StopNone,
			failedAs(plan.Failed, "so: boom"), attemptOf("so: boom", fault.KindPlain)},
		{"failed with a delay", Outcome{Kind: Failed, Failure: after(time.Hour)}, 2, plan.StopNone, retrying(time.Hour, "boom"), plain},
		{"failed without a delay", Outcome{Kind: Failed, Failure: after(0)}, 2, plan.StopNone, retrying(MinDelay, "boom"), plain},
		{"failed with an endless delay", Outcome{Kind: Failed, Failure: after(math.MaxInt64)}, 2, plan.StopNone,
			told(func(s *record.Step) {
				s.State, s.Due, s.Delay, s.Reason = plan.Retrying, math.MaxInt64, math.MaxInt64, "boom"
			}), plain},
		{"failed with a delay for the last time", Outcome{Kind: Failed, Failure: after(time.Hour)}, 3, plan.StopNone, failedAs(plan.Failed, "boom"), plain},
		{"out of time", Outcome{Kind: Failed, Failure: &Failure{Text: ranOut, Kind: fault.KindTimeout}}, 2, plan.StopNone,
			retrying(2*time.Second, ranOut), attemptOf(ranOut, fault.KindTimeout)},
		{"canceled by itself", Outcome{Kind: Failed, Failure: &Failure{Text: "boom", Kind: fault.KindCanceled}}, 2, plan.StopNone,
			retrying(2*time.Second, "boom"), attemptOf("boom", fault.KindCanceled)},
		{"found nothing", Outcome{Kind: Failed, Failure: &Failure{Text: "boom", Kind: fault.KindNotFound}}, 2, plan.StopNone,
			retrying(2*time.Second, "boom"), attemptOf("boom", fault.KindNotFound)},
		{"found something invalid", Outcome{Kind: Failed, Failure: &Failure{Text: "boom", Kind: fault.KindInvalid}}, 2, plan.StopNone,
			retrying(2*time.Second, "boom"), attemptOf("boom", fault.KindInvalid)},
		{"panicked", Outcome{Kind: Failed, Failure: &Failure{Text: "driver panicked: boom", Kind: fault.KindPanic, Stack: "stack"}}, 2, plan.StopNone,
			retrying(2*time.Second, "driver panicked: boom"),
			&record.Attempt{Started: record.TimeOf(began), Ended: record.TimeOf(ended), Error: "driver panicked: boom", Kind: fault.KindPanic, Stack: "stack"}},
		{"too large an output", Outcome{Kind: Failed, Failure: &Failure{Text: tooLarge, Kind: fault.KindTooLarge, Permanent: true}}, 2, plan.StopNone,
			failedAs(plan.Failed, tooLarge), attemptOf(tooLarge, fault.KindTooLarge)},
		{"an error that is too long", Outcome{Kind: Failed, Failure: failure(long)}, 3, plan.StopNone, failedAs(plan.Failed, short), attemptOf(short, fault.KindPlain)},

		{"failed when the run was canceled", Outcome{Kind: Failed, Failure: &Failure{Text: "boom", Kind: fault.KindCanceled}}, 2, plan.StopCancel,
			failedAs(plan.Canceled, "boom"), attemptOf("boom", fault.KindCanceled)},
		{"failed for good when the run was canceled", Outcome{Kind: Failed, Failure: &Failure{Text: "boom", Permanent: true}}, 2, plan.StopCancel,
			failedAs(plan.Canceled, "boom"), plain},
		{"failed when the run was superseded", Outcome{Kind: Failed, Failure: failure("boom")}, 2, plan.StopSupersede, failedAs(plan.Canceled, "boom"), plain},
		{"failed when the run was out of time", Outcome{Kind: Failed, Failure: &Failure{Text: ranOut, Kind: fault.KindTimeout}}, 1, plan.StopTimeout,
			failedAs(plan.Failed, ranOut), attemptOf(ranOut, fault.KindTimeout)},
		{"failed when another step halted the run", Outcome{Kind: Failed, Failure: failure("boom")}, 1, plan.StopHalt, failedAs(plan.Failed, "boom"), plain},
		{"failed with a delay when another step halted the run", Outcome{Kind: Failed, Failure: after(time.Hour)}, 1, plan.StopHalt, failedAs(plan.Failed, "boom"), plain},

		{"interrupted", Outcome{Kind: Cut}, 2, plan.StopNone, interrupted, nil},
		{"interrupted in the last attempt", Outcome{Kind: Cut}, 3, plan.StopNone, interrupted, nil},
		{"interrupted when the run was canceled", Outcome{Kind: Cut}, 2, plan.StopCancel, interrupted, nil},
		{"interrupted when the run was out of time", Outcome{Kind: Cut}, 2, plan.StopTimeout, interrupted, nil},
		{"interrupted by a newer generation", Outcome{Kind: Cut}, 2, plan.StopSupersede, interrupted, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := numbered(running, c.attempt)
			c.outcome.Ended, c.outcome.Policy = record.TimeOf(ended), policy
			failed := c.outcome.apply(&got, c.stop, errorText)
			require.Equal(t, numbered(c.want, c.attempt), got)
			require.Equal(t, c.failed, failed)
		})
	}
}

func TestStepCountsAttemptsOnly(t *testing.T) {
	var s record.Step
	call := func(o Outcome) (number int, resumed bool) {
		s.Begin(1)
		number, resumed = s.Attempt, s.Resumed
		o.Policy, o.Ended = retry.Combine(nil, nil, retry.Policy{}, retry.Policy{}), record.TimeOf(time.Unix(1, 0))
		o.apply(&s, plan.StopNone, 100)
		return number, resumed
	}
	failed := &Failure{Text: "boom"}
	for i, c := range []struct {
		outcome Outcome
		number  int
		resumed bool
	}{
		{Outcome{Kind: Requeue, Delay: 1}, 1, false},
		{Outcome{Kind: Requeue, Delay: 1}, 1, false},
		{Outcome{Kind: Cut}, 1, false},
		{Outcome{Kind: Refused, Delay: 1}, 1, true},
		{Outcome{Kind: Failed, Failure: failed}, 1, true},
		{Outcome{Kind: Cut}, 2, false},
		{Outcome{Kind: Requeue, Delay: 1}, 2, true},
		{Outcome{Kind: Await, Reason: "go"}, 2, false},
		{Outcome{Kind: Done}, 2, false},
	} {
		number, resumed := call(c.outcome)
		require.Equal(t, c.number, number, "call %d", i)
		require.Equal(t, c.resumed, resumed, "call %d", i)
	}
	require.Equal(t, plan.Succeeded, s.State)
	require.Equal(t, 3, s.Requeues)
	require.Equal(t, 2, s.Interruptions)
}

func TestStepKeepsTheLastWaits(t *testing.T) {
	var s record.Step
	for i := range maxWaits + 1 {
		o := Outcome{Kind: Await, Reason: "go", Ended: record.TimeOf(time.Unix(int64(i+1), 0))}
		o.apply(&s, plan.StopNone, 100)
		s.WakeUp(record.Time(i+1), &record.Signal{Payload: []byte("1")})
	}
	require.Len(t, s.Waits, maxWaits)
	require.Equal(t, record.TimeOf(time.Unix(2, 0)), s.Waits[0].From)
}

func TestMissingNamesWhatIsToBeRegistered(t *testing.T) {
	require.Equal(t, `driver "build" is not registered`, Missing("build"))
	require.Equal(t, `pipeline "deploy" has a Planner, and this program has not saved it with one`, Missing(plan.PlannerName("deploy")))
}
