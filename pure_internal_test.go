package conveyor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

func planOf(n int, independent bool) *plan {
	p := &plan{Independent: independent}
	for i := range n {
		p.Steps = append(p.Steps, Step{ID: fmt.Sprint(i + 1), Driver: "d"})
	}
	return p
}

func TestPlanNext(t *testing.T) {
	const (
		unset, queued, running, retrying, waiting = StateUnset, StateQueued, StateRunning, StateRetrying, StateWaiting
		blocked, done, failed, skipped, canceled  = StateBlocked, StateSucceeded, StateFailed, StateSkipped, StateCanceled
	)
	for _, c := range []struct {
		name        string
		states      []State
		stop        bool
		start       []int
		over        bool
		independent bool
	}{
		{"the first step at first", []State{unset, unset}, false, []int{0}, false, false},
		{"nothing while it runs", []State{running, unset}, false, nil, false, false},
		{"nothing while it waits for a retry", []State{retrying, unset}, false, nil, false, false},
		{"nothing while it waits", []State{waiting, unset}, false, nil, false, false},
		{"the first step again when it is due", []State{queued, unset}, false, []int{0}, false, false},
		{"the first step when it is no longer blocked", []State{blocked, unset}, false, []int{0}, false, false},
		{"the second after the first", []State{done, unset}, false, []int{1}, false, false},
		{"the third after a skip", []State{done, skipped, unset, unset}, false, []int{2}, false, false},
		{"nothing after a failure", []State{done, failed, unset}, false, nil, true, false},
		{"nothing after the last", []State{done, skipped}, false, nil, true, false},
		{"nothing of a run that is to stop", []State{done, unset}, true, nil, true, false},
		{"a run that is to stop is not over while a step runs", []State{done, running, unset}, true, nil, false, false},
		{"a run that is to stop does not wait for a retry", []State{done, retrying, unset}, true, nil, true, false},
		{"a run that is to stop does not wait for a requeue", []State{waiting, unset}, true, nil, true, false},
		{"a run that is to stop does not wait for a driver", []State{blocked, unset}, true, nil, true, false},
		{"nothing after a cancelled step", []State{canceled, unset}, false, nil, true, false},
		{"independent steps all at once", []State{unset, unset, unset}, false, []int{0, 1, 2}, false, true},
		{"independent steps that are not at work", []State{running, queued, waiting, blocked, retrying, done}, false, []int{1, 3}, false, true},
		{"independent steps in spite of a failure", []State{failed, queued, running}, false, []int{1}, false, true},
		{"independent steps are over when the last has ended", []State{failed, done, skipped}, false, nil, true, true},
		{"independent steps are not over while one waits", []State{failed, done, waiting}, false, nil, false, true},
		{"independent steps stop together", []State{failed, queued, waiting}, true, nil, true, true},
		{"independent steps that run end first", []State{running, queued}, true, nil, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			start, over := planOf(len(c.states), c.independent).next(c.states, c.stop, false)
			require.Equal(t, c.start, start)
			require.Equal(t, c.over, over)
		})
	}
}

func TestPlanOutcome(t *testing.T) {
	for _, c := range []struct {
		name   string
		states []State
		stop   stopKind
		end    State
		step   int
	}{
		{"all succeeded", []State{StateSucceeded, StateSkipped}, stopNone, StateSucceeded, -1},
		{"one failed", []State{StateSucceeded, StateFailed, StateUnset}, stopNone, StateFailed, 1},
		{"the first of two that failed", []State{StateSucceeded, StateFailed, StateFailed}, stopNone, StateFailed, 1},
		{"halted", []State{StateSucceeded, StateUnset}, stopHalt, StateSucceeded, -1},
		{"halted while another failed", []State{StateSucceeded, StateFailed}, stopHalt, StateFailed, 1},
		{"cancelled", []State{StateCanceled, StateUnset}, stopCancel, StateCanceled, -1},
		{"cancelled after a failure", []State{StateFailed, StateUnset}, stopCancel, StateCanceled, -1},
		{"superseded", []State{StateCanceled, StateUnset}, stopSupersede, StateSuperseded, -1},
		{"out of time while a step ran", []State{StateSucceeded, StateFailed}, stopTimeout, StateFailed, 1},
		{"out of time between steps", []State{StateSucceeded, StateWaiting}, stopTimeout, StateFailed, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			end, step := planOf(len(c.states), false).outcome(c.states, c.stop)
			require.Equal(t, c.end, end)
			require.Equal(t, c.step, step)
		})
	}
}

var anyState = rapid.SampledFrom([]State{StateUnset, StateQueued, StateRunning, StateRetrying, StateWaiting, StateBlocked,
	StateSucceeded, StateFailed, StateSkipped, StateCanceled})

func TestPlanNextNeverBreaksTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		states := rapid.SliceOfN(anyState, 1, 12).Draw(t, "states")
		stop := rapid.Bool().Draw(t, "stop")
		p := planOf(len(states), rapid.Bool().Draw(t, "independent"))
		before := slices.Clone(states)
		start, over := p.next(states, stop, false)
		require.Equal(t, before, states)
		require.True(t, slices.IsSorted(start))
		for _, i := range start {
			require.False(t, stop)
			require.False(t, over)
			require.Contains(t, []State{StateUnset, StateQueued, StateBlocked}, states[i])
			if !p.Independent {
				for _, earlier := range states[:i] {
					require.Contains(t, []State{StateSucceeded, StateSkipped}, earlier)
				}
			}
		}
		if slices.Contains(states, StateRunning) {
			require.False(t, over)
		}
		if !over && len(start) == 0 {
			require.True(t, slices.ContainsFunc(states, func(s State) bool {
				return s == StateRunning || s == StateRetrying || s == StateWaiting
			}), "nothing would ever happen to it")
		}
	})
}

// Whatever the drivers answer, a run comes to an end, and what is left of it follows from the answers.
func TestPlanIsFollowedToItsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "steps")
		p := planOf(n, rapid.Bool().Draw(t, "independent"))
		states := make([]State, n)
		var begun []int
		for turn := 0; ; turn++ {
			require.Less(t, turn, 1000, "no end")
			start, over := p.next(states, false, false)
			if over {
				break
			}
			for _, i := range start {
				states[i] = StateRunning
				begun = append(begun, i)
			}
			var active []int
			for i, s := range states {
				if s == StateRunning || s == StateRetrying || s == StateWaiting {
					active = append(active, i)
				}
			}
			i := rapid.SampledFrom(active).Draw(t, "step")
			if states[i] != StateRunning {
				states[i] = StateQueued // it is due
				continue
			}
			states[i] = rapid.SampledFrom([]State{StateSucceeded, StateSucceeded, StateSkipped, StateFailed, StateRetrying, StateWaiting}).Draw(t, "answer")
			if turn > 200 {
				states[i] = StateSucceeded
			}
		}
		end, failed := p.outcome(states, stopNone)
		require.Equal(t, slices.Contains(states, StateFailed), end == StateFailed)
		require.Equal(t, slices.Index(states, StateFailed), failed)
		if p.Independent {
			require.NotContains(t, states, StateUnset)
			return
		}
		require.True(t, slices.IsSorted(begun), "order of the starts: %v", begun)
		if end == StateSucceeded {
			require.NotContains(t, states, StateUnset)
		} else {
			for _, s := range states[failed+1:] {
				require.Equal(t, StateUnset, s)
			}
		}
	})
}

func TestStepRecordSettle(t *testing.T) {
	began := time.Unix(1000, 0)
	ended := began.Add(time.Second)
	boom := errors.New("boom")
	policy := RetryPolicy{MaxAttempts: 3, Initial: Duration(time.Second), Max: Duration(time.Minute), Multiplier: 2, Jitter: -1}
	running := stepRecord{State: StateRunning, Attempt: 2, Started: toInstant(began), Resumed: true, Requeues: 4, Interruptions: 5, Lines: 6}
	change := func(f func(*stepRecord)) stepRecord {
		s := running
		s.Resumed = false
		f(&s)
		return s
	}
	final := func(state State, reason string) stepRecord {
		return change(func(s *stepRecord) { s.State, s.Ended, s.Reason = state, toInstant(ended), reason })
	}
	retry := func(delay time.Duration, reason string) stepRecord {
		return change(func(s *stepRecord) { s.State, s.Due, s.Reason = StateRetrying, toInstant(ended.Add(delay)), reason })
	}
	attemptOf := func(text string, kind fault.Kind) *attemptRecord {
		return &attemptRecord{Started: toInstant(began), Ended: toInstant(ended), Error: text, Kind: kind}
	}
	interrupted := change(func(s *stepRecord) {
		s.State, s.Resumed, s.Again, s.Interruptions = StateQueued, true, true, 6
	})
	ranOut := fmt.Errorf("%w: the attempt took longer than 1s", ErrTimeout)
	for _, c := range []struct {
		name    string
		outcome outcome
		attempt int // of MaxAttempts 3; 0 means 2
		stop    stopKind
		want    stepRecord
		failed  *attemptRecord
	}{
		{"done", outcome{result: Done()}, 0, stopNone, final(StateSucceeded, ""), nil},
		{"done with an output", outcome{result: DoneWith(1), output: []byte("1")}, 0, stopNone,
			change(func(s *stepRecord) { s.State, s.Ended, s.Output = StateSucceeded, toInstant(ended), []byte("1") }), nil},
		{"done although the context had ended", outcome{cause: ErrShutdown}, 0, stopNone, final(StateSucceeded, ""), nil},
		{"done although the run shall stop", outcome{cause: ErrCanceled}, 0, stopCancel, final(StateSucceeded, ""), nil},
		{"skipped", outcome{result: Skip("not today")}, 0, stopNone, final(StateSkipped, "not today"), nil},
		{"halted", outcome{result: Halt("enough")}, 0, stopNone, final(StateSucceeded, "enough"), nil},
		{"a reason that is too long", outcome{result: Skip(strings.Repeat("a", 99))}, 0, stopNone, final(StateSkipped, strings.Repeat("a", 80)+text.CutMark), nil},
		{"requeued", outcome{result: RequeueAfter(time.Hour)}, 0, stopNone, change(func(s *stepRecord) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = StateWaiting, true, toInstant(ended.Add(time.Hour)), 5, "the driver asked to be called again"
		}), nil},
		{"requeued at once", outcome{result: RequeueAfter(-time.Hour)}, 0, stopNone, change(func(s *stepRecord) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = StateWaiting, true, toInstant(ended), 5, "the driver asked to be called again"
		}), nil},
		{"requeued for ever", outcome{result: RequeueAfter(math.MaxInt64)}, 0, stopNone, change(func(s *stepRecord) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = StateWaiting, true, math.MaxInt64, 5, "the driver asked to be called again"
		}), nil},
		{"failed", outcome{err: boom}, 0, stopNone, retry(2*time.Second, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed for the first time", outcome{err: boom}, 1, stopNone, retry(time.Second, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed for the last time", outcome{err: boom}, 3, stopNone, final(StateFailed, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed for good", outcome{err: fmt.Errorf("so: %w", Permanent(boom))}, 1, stopNone, final(StateFailed, "so: boom"), attemptOf("so: boom", fault.KindPlain)},
		{"failed with a delay", outcome{err: RetryAfter(time.Hour, boom)}, 0, stopNone, retry(time.Hour, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed with a negative delay", outcome{err: RetryAfter(-1, boom)}, 0, stopNone, retry(0, "boom"), attemptOf("boom", fault.KindPlain)},
		{"failed with an endless delay", outcome{err: RetryAfter(math.MaxInt64, boom)}, 0, stopNone,
			change(func(s *stepRecord) { s.State, s.Due, s.Reason = StateRetrying, math.MaxInt64, "boom" }), attemptOf("boom", fault.KindPlain)},
		{"failed with a delay for the last time", outcome{err: RetryAfter(time.Hour, boom)}, 3, stopNone, final(StateFailed, "boom"), attemptOf("boom", fault.KindPlain)},
		{"the outermost direction counts", outcome{err: RetryAfter(time.Hour, Permanent(boom))}, 0, stopNone, retry(time.Hour, "boom"), attemptOf("boom", fault.KindPlain)},
		{"out of time", outcome{err: ranOut, cause: ranOut}, 0, stopNone, retry(2*time.Second, ranOut.Error()), attemptOf(ranOut.Error(), fault.KindTimeout)},
		{"panicked", outcome{err: &PanicError{Value: boom, Stack: []byte("stack")}}, 0, stopNone, retry(2*time.Second, "driver panicked: boom"),
			&attemptRecord{Started: toInstant(began), Ended: toInstant(ended), Error: "driver panicked: boom", Kind: fault.KindPanic, Stack: "stack"}},
		{"too large an output", outcome{err: Permanent(tooLarge("output", 2, 1, "bytes"))}, 0, stopNone,
			final(StateFailed, "conveyor: too large: output: 2 bytes, more than the limit of 1"), attemptOf("conveyor: too large: output: 2 bytes, more than the limit of 1", fault.KindTooLarge)},
		{"an error that is too long", outcome{err: errors.New(strings.Repeat("a", 99))}, 3, stopNone,
			final(StateFailed, strings.Repeat("a", 80)+text.CutMark), attemptOf(strings.Repeat("a", 80)+text.CutMark, fault.KindPlain)},
		{"interrupted by a shutdown", outcome{err: boom, cause: ErrShutdown}, 0, stopNone, interrupted, nil},
		{"interrupted by a shutdown, even for good", outcome{err: Permanent(boom), cause: fmt.Errorf("%w: now", ErrShutdown)}, 3, stopNone,
			func() stepRecord { s := interrupted; s.Attempt = 3; return s }(), nil},
		{"failed when the run was cancelled", outcome{err: ErrCanceled, cause: ErrCanceled}, 0, stopCancel,
			final(StateCanceled, ErrCanceled.Error()), attemptOf(ErrCanceled.Error(), fault.KindCanceled)},
		{"interrupted by a newer generation", outcome{err: boom, cause: ErrSuperseded}, 0, stopSupersede, interrupted, nil},
		{"failed when the run was out of time", outcome{err: ranOut, cause: ranOut}, 1, stopTimeout, final(StateFailed, ranOut.Error()), attemptOf(ranOut.Error(), fault.KindTimeout)},
		{"failed when another step halted the run", outcome{err: boom}, 1, stopHalt, final(StateFailed, "boom"), attemptOf("boom", fault.KindPlain)},
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
	var s stepRecord
	limits := Limits{}.withDefaults()
	call := func(o outcome) (number int, resumed bool) {
		s.begin(1)
		number, resumed = s.Attempt, s.Resumed
		settle(&s, &o, defaultRetry, stopNone, limits)
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
	require.Equal(t, StateSucceeded, s.State)
	require.Equal(t, 3, s.Requeues)
	require.Equal(t, 2, s.Interruptions)
}

func TestRetryPolicyTakesEachFieldFromTheNearest(t *testing.T) {
	second := func(n int) Duration { return Duration(n) * Duration(time.Second) }
	for _, c := range []struct {
		name           string
		step, pipeline *RetryPolicy
		driver, engine RetryPolicy
		want           RetryPolicy
	}{
		{"nobody says anything", nil, nil, RetryPolicy{}, RetryPolicy{}, defaultRetry},
		{"each says one thing", &RetryPolicy{MaxAttempts: 9}, &RetryPolicy{Initial: second(8)}, RetryPolicy{Max: second(70)}, RetryPolicy{Multiplier: 6},
			RetryPolicy{MaxAttempts: 9, Initial: second(8), Max: second(70), Multiplier: 6, Jitter: 0.2}},
		{"all say all", &RetryPolicy{1, 1, 1, 1, 1}, &RetryPolicy{2, 2, 2, 2, 0.2}, RetryPolicy{3, 3, 3, 3, 0.3}, RetryPolicy{4, 4, 4, 4, 0.4}, RetryPolicy{1, 1, 1, 1, 1}},
		{"all but the step", nil, &RetryPolicy{2, 2, 2, 2, 0.2}, RetryPolicy{3, 3, 3, 3, 0.3}, RetryPolicy{4, 4, 4, 4, 0.4}, RetryPolicy{2, 2, 2, 2, 0.2}},
		{"driver and engine", nil, nil, RetryPolicy{3, 3, 3, 3, 0.3}, RetryPolicy{4, 4, 4, 4, 0.4}, RetryPolicy{3, 3, 3, 3, 0.3}},
		{"engine alone", nil, nil, RetryPolicy{}, RetryPolicy{4, 4, 4, 4, 0.4}, RetryPolicy{4, 4, 4, 4, 0.4}},
		{"-1 says something", &RetryPolicy{MaxAttempts: -1, Jitter: -1}, &RetryPolicy{2, 2, 2, 2, 0.2}, RetryPolicy{}, RetryPolicy{}, RetryPolicy{-1, 2, 2, 2, -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, retryPolicy(c.step, c.pipeline, c.driver, c.engine))
		})
	}
}

func TestRetryPolicyExhausted(t *testing.T) {
	require.False(t, RetryPolicy{MaxAttempts: 3}.exhausted(2))
	require.True(t, RetryPolicy{MaxAttempts: 3}.exhausted(3))
	require.True(t, RetryPolicy{MaxAttempts: 3}.exhausted(4))
	require.False(t, RetryPolicy{MaxAttempts: -1}.exhausted(math.MaxInt))
}

func TestRetryPolicyDelay(t *testing.T) {
	exact := RetryPolicy{Initial: Duration(time.Second), Max: Duration(time.Minute), Multiplier: 2, Jitter: -1}
	for _, c := range []struct {
		name   string
		policy RetryPolicy
		n      int
		want   time.Duration
	}{
		{"the first", exact, 1, time.Second},
		{"the second", exact, 2, 2 * time.Second},
		{"the sixth", exact, 6, 32 * time.Second},
		{"the one that meets the maximum", exact, 7, time.Minute},
		{"one of very many", exact, math.MaxInt, time.Minute},
		{"constant", RetryPolicy{Initial: 5, Max: 50, Multiplier: 1, Jitter: -1}, 1000, 5},
		{"a start above the maximum", RetryPolicy{Initial: 500, Max: 50, Multiplier: 2, Jitter: -1}, 1, 50},
		{"no maximum to speak of", RetryPolicy{Initial: 1, Max: math.MaxInt64, Multiplier: math.MaxFloat32, Jitter: -1}, 9, longestDelay},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, c.policy.delay(c.n)) })
	}
}

func TestRetryPolicyDelayStaysWithinTheJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := RetryPolicy{
			MaxAttempts: -1,
			Initial:     Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "initial")),
			Max:         Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "max")),
			Multiplier:  rapid.Float64Range(1, math.MaxFloat32).Draw(t, "multiplier"),
			Jitter:      rapid.OneOf(rapid.Just(-1.0), rapid.Float64Range(0, 1)).Draw(t, "jitter"),
		}
		var f fault.Fields
		validateRetry(p, "retry", &f)
		require.Empty(t, f.List())
		n := rapid.IntRange(1, math.MaxInt32).Draw(t, "n")
		middle := min(float64(p.Initial)*math.Pow(p.Multiplier, float64(n-1)), float64(p.Max), longestDelay)
		by := middle*max(p.Jitter, 0)*1.000001 + 2
		delay := float64(p.delay(n))
		require.GreaterOrEqual(t, delay, 0.0)
		require.GreaterOrEqual(t, delay, middle-by)
		require.LessOrEqual(t, delay, middle+by)
	})
}

func TestInstant(t *testing.T) {
	require.Zero(t, toInstant(time.Time{}))
	require.True(t, instant(0).time().IsZero())
	now := time.Now()
	require.True(t, now.Equal(toInstant(now).time()))
	require.Equal(t, instant(3), instant(1).after(2))
	require.Equal(t, instant(-1), instant(1).after(-2))
	require.Equal(t, instant(math.MaxInt64), instant(1).after(math.MaxInt64))
	require.Equal(t, instant(math.MaxInt64), instant(1).after(math.MaxInt64-1))
	require.Equal(t, instant(math.MaxInt64-1), instant(1).after(math.MaxInt64-2))
}
