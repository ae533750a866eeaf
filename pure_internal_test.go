package conveyor

import (
	"context"
	"errors"
	"fmt"
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

func TestStepRecordSettle(t *testing.T) {
	began := time.Unix(1000, 0)
	ended := began.Add(time.Second)
	boom := errors.New("boom")
	policy := retry.Policy{MaxAttempts: 3, Initial: document.Duration(time.Second), Max: document.Duration(time.Minute), Multiplier: 2, Jitter: -1}
	running := record.Step{State: plan.Running, Attempt: 2, Started: record.TimeOf(began), Resumed: true, Requeues: 4, Interruptions: 5, Lines: 6}
	change := func(f func(*record.Step)) record.Step {
		s := running
		s.Resumed = false
		f(&s)
		return s
	}
	final := func(state plan.State, reason string) record.Step {
		return change(func(s *record.Step) { s.State, s.Ended, s.Reason = state, record.TimeOf(ended), reason })
	}
	retry := func(delay time.Duration, reason string) record.Step {
		return change(func(s *record.Step) {
			s.State, s.Due, s.Reason = plan.Retrying, record.TimeOf(ended.Add(delay)), reason
		})
	}
	attemptOf := func(text string, kind fault.Kind) *record.Attempt {
		return &record.Attempt{Started: record.TimeOf(began), Ended: record.TimeOf(ended), Error: text, Kind: kind}
	}
	interrupted := change(func(s *record.Step) {
		s.State, s.Resumed, s.Again, s.Interruptions = plan.Queued, true, true, 6
	})
	ranOut := fmt.Errorf("%w: the attempt took longer than 1s", ErrTimeout)
	for _, c := range []struct {
		name    string
		outcome outcome
		attempt int // of MaxAttempts 3; 0 means 2
		stop    plan.Stop
		want    record.Step
		failed  *record.Attempt
	}{
		{"done", outcome{result: Done()}, 0, plan.StopNone, final(plan.Succeeded, ""), nil},
		{"done with an output", outcome{result: DoneWith(1), output: []byte("1")}, 0, plan.StopNone,
			change(func(s *record.Step) { s.State, s.Ended, s.Output = plan.Succeeded, record.TimeOf(ended), []byte("1") }), nil},
		{"done although the context had ended", outcome{cause: ErrShutdown}, 0, plan.StopNone, final(plan.Succeeded, ""), nil},
		{"done although the run shall stop", outcome{cause: ErrCanceled}, 0, plan.StopCancel, final(plan.Succeeded, ""), nil},
		{"skipped", outcome{result: Skip("not today")}, 0, plan.StopNone, final(plan.Skipped, "not today"), nil},
		{"halted", outcome{result: Halt("enough")}, 0, plan.StopNone, final(plan.Succeeded, "enough"), nil},
		{"a reason that is too long", outcome{result: Skip(strings.Repeat("a", 99))}, 0, plan.StopNone, final(plan.Skipped, strings.Repeat("a", 80)+text.CutMark), nil},
		{"requeued", outcome{result: RequeueAfter(time.Hour)}, 0, plan.StopNone, change(func(s *record.Step) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = plan.Waiting, true, record.TimeOf(ended.Add(time.Hour)), 5, "the driver asked to be called again"
		}), nil},
		{"requeued at once", outcome{result: RequeueAfter(-time.Hour)}, 0, plan.StopNone, change(func(s *record.Step) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = plan.Waiting, true, record.TimeOf(ended), 5, "the driver asked to be called again"
		}), nil},
		{"requeued for ever", outcome{result: RequeueAfter(math.MaxInt64)}, 0, plan.StopNone, change(func(s *record.Step) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = plan.Waiting, true, math.MaxInt64, 5, "the driver asked to be called again"
		}), nil},
		{"failed", outcome{err: boom}, 0, plan.StopNone, retry(2*time.Second, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed for the first time", outcome{err: boom}, 1, plan.StopNone, retry(time.Second, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed for the last time", outcome{err: boom}, 3, plan.StopNone, final(plan.Failed, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed for good", outcome{err: fmt.Errorf("so: %w", Permanent(boom))}, 1, plan.StopNone, final(plan.Failed, "so: boom"), attemptOf("so: boom", fault.KindPlain)},
		{"failed with a delay", outcome{err: RetryAfter(time.Hour, boom)}, 0, plan.StopNone, retry(time.Hour, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed with a negative delay", outcome{err: RetryAfter(-1, boom)}, 0, plan.StopNone, retry(0, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed with an endless delay", outcome{err: RetryAfter(math.MaxInt64, boom)}, 0, plan.StopNone,
			change(func(s *record.Step) { s.State, s.Due, s.Reason = plan.Retrying, math.MaxInt64, "boom" }), attemptOf("boom", fault.KindPlain)},
		{"failed with a delay for the last time", outcome{err: RetryAfter(time.Hour, boom)}, 3, plan.StopNone, final(plan.Failed, "boom"), attemptOf("boom", fault.KindPlain)},
		{"the outermost direction counts", outcome{err: RetryAfter(time.Hour, Permanent(boom))}, 0, plan.StopNone, retry(time.Hour, "boom"), attemptOf("boom", fault.KindPlain)},
		{"out of time", outcome{err: ranOut, cause: ranOut}, 0, plan.StopNone, retry(2*time.Second, ranOut.Error()), attemptOf(ranOut.Error(), fault.KindTimeout)},
		{"panicked", outcome{err: &PanicError{Value: boom, Stack: []byte("stack")}}, 0, plan.StopNone, retry(2*time.Second, "driver panicked: boom"),
			&record.Attempt{Started: record.TimeOf(began), Ended: record.TimeOf(ended), Error: "driver panicked: boom", Kind: fault.KindPanic, Stack: "stack"}},
		{"too large an output", outcome{err: Permanent(tooLarge("output", 2, 1, "bytes"))}, 0, plan.StopNone,
			final(plan.Failed, "conveyor: too large: output: 2 bytes, more than the limit of 1"), attemptOf("conveyor: too large: output: 2 bytes, more than the limit of 1", fault.KindTooLarge)},
		{"an error that is too long", outcome{err: errors.New(strings.Repeat("a", 99))}, 3, plan.StopNone,
			final(plan.Failed, strings.Repeat("a", 80)+text.CutMark), attemptOf(strings.Repeat("a", 80)+text.CutMark, fault.KindPlain)},
		{"interrupted by a shutdown", outcome{err: boom, cause: ErrShutdown}, 0, plan.StopNone, interrupted, nil},
		{"interrupted by a shutdown, even for good", outcome{err: Permanent(boom), cause: fmt.Errorf("%w: now", ErrShutdown)}, 3, plan.StopNone,
			func() record.Step { s := interrupted; s.Attempt = 3; return s }(), nil},
		{"failed when the run was cancelled", outcome{err: ErrCanceled, cause: ErrCanceled}, 0, plan.StopCancel,
			final(plan.Canceled, ErrCanceled.Error()), attemptOf(ErrCanceled.Error(), fault.KindCanceled)},
		{"interrupted by a newer generation", outcome{err: boom, cause: ErrSuperseded}, 0, plan.StopSupersede, interrupted, nil},
		{"failed when the run was out of time", outcome{err: ranOut, cause: ranOut}, 1, plan.StopTimeout, final(plan.Failed, ranOut.Error()), attemptOf(ranOut.Error(), fault.KindTimeout)},
		{"failed when another step halted the run", outcome{err: boom}, 1, plan.StopHalt, final(plan.Failed, "boom"), attemptOf("boom", fault.KindPlain)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, want := running, c.want
			if c.attempt != 0 {
				got.Attempt, want.Attempt = c.attempt, c.attempt
			}
			c.outcome.ended = ended
			failed := settle(&got, &c.outcome, policy, c.stop, Limits{ErrorText: 80 + len(text.CutMark)})
			require.Equal(t, want, got)
			require.Equal(t, c.failed, failed)
		})
	}
}

func TestStepRecordBeginCountsAttemptsOnly(t *testing.T) {
	var s record.Step
	limits := Limits{}.withDefaults()
	call := func(o outcome) (number int, resumed bool) {
		s.Begin(1)
		number, resumed = s.Attempt, s.Resumed
		settle(&s, &o, retry.Combine(nil, nil, retry.Policy{}, retry.Policy{}), plan.StopNone, limits)
		return number, resumed
	}
	for i, c := range []struct {
		outcome outcome
		number  int
		resumed bool
	}{
		{outcome{result: RequeueAfter(1)}, 1, false},
		{outcome{result: RequeueAfter(1)}, 1, false},
		{outcome{err: context.Canceled, cause: ErrShutdown}, 1, false},
		{outcome{err: errors.New("boom")}, 1, true},
		{outcome{err: context.Canceled, cause: ErrShutdown}, 2, false},
		{outcome{result: RequeueAfter(1)}, 2, true},
		{outcome{}, 2, false},
	} {
		number, resumed := call(c.outcome)
		require.Equal(t, c.number, number, "call %d", i)
		require.Equal(t, c.resumed, resumed, "call %d", i)
	}
	require.Equal(t, plan.Succeeded, s.State)
	require.Equal(t, 3, s.Requeues)
	require.Equal(t, 2, s.Interruptions)
}
