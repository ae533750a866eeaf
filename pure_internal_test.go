package conveyor

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
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
	attemptOf := func(text string, kind errorKind) *attemptRecord {
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
		{"a reason that is too long", outcome{result: Skip(strings.Repeat("a", 99))}, 0, stopNone, final(StateSkipped, strings.Repeat("a", 80)+cutMark), nil},
		{"requeued", outcome{result: RequeueAfter(time.Hour)}, 0, stopNone, change(func(s *stepRecord) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = StateWaiting, true, toInstant(ended.Add(time.Hour)), 5, "the driver asked to be called again"
		}), nil},
		{"requeued at once", outcome{result: RequeueAfter(-time.Hour)}, 0, stopNone, change(func(s *stepRecord) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = StateWaiting, true, toInstant(ended), 5, "the driver asked to be called again"
		}), nil},
		{"requeued for ever", outcome{result: RequeueAfter(math.MaxInt64)}, 0, stopNone, change(func(s *stepRecord) {
			s.State, s.Again, s.Due, s.Requeues, s.Reason = StateWaiting, true, math.MaxInt64, 5, "the driver asked to be called again"
		}), nil},
		{"failed", outcome{err: boom}, 0, stopNone, retry(2*time.Second, "boom"), attemptOf("boom", kindPlain)},
		{"failed for the first time", outcome{err: boom}, 1, stopNone, retry(time.Second, "boom"), attemptOf("boom", kindPlain)},
		{"failed for the last time", outcome{err: boom}, 3, stopNone, final(StateFailed, "boom"), attemptOf("boom", kindPlain)},
		{"failed for good", outcome{err: fmt.Errorf("so: %w", Permanent(boom))}, 1, stopNone, final(StateFailed, "so: boom"), attemptOf("so: boom", kindPlain)},
		{"failed with a delay", outcome{err: RetryAfter(time.Hour, boom)}, 0, stopNone, retry(time.Hour, "boom"), attemptOf("boom", kindPlain)},
		{"failed with a negative delay", outcome{err: RetryAfter(-1, boom)}, 0, stopNone, retry(0, "boom"), attemptOf("boom", kindPlain)},
		{"failed with an endless delay", outcome{err: RetryAfter(math.MaxInt64, boom)}, 0, stopNone,
			change(func(s *stepRecord) { s.State, s.Due, s.Reason = StateRetrying, math.MaxInt64, "boom" }), attemptOf("boom", kindPlain)},
		{"failed with a delay for the last time", outcome{err: RetryAfter(time.Hour, boom)}, 3, stopNone, final(StateFailed, "boom"), attemptOf("boom", kindPlain)},
		{"the outermost direction counts", outcome{err: RetryAfter(time.Hour, Permanent(boom))}, 0, stopNone, retry(time.Hour, "boom"), attemptOf("boom", kindPlain)},
		{"out of time", outcome{err: ranOut, cause: ranOut}, 0, stopNone, retry(2*time.Second, ranOut.Error()), attemptOf(ranOut.Error(), kindTimeout)},
		{"panicked", outcome{err: &PanicError{Value: boom, Stack: []byte("stack")}}, 0, stopNone, retry(2*time.Second, "driver panicked: boom"),
			&attemptRecord{Started: toInstant(began), Ended: toInstant(ended), Error: "driver panicked: boom", Kind: kindPanic, Stack: "stack"}},
		{"too large an output", outcome{err: Permanent(tooLarge("output", 2, 1, "bytes"))}, 0, stopNone,
			final(StateFailed, "conveyor: too large: output: 2 bytes, more than the limit of 1"), attemptOf("conveyor: too large: output: 2 bytes, more than the limit of 1", kindTooLarge)},
		{"an error that is too long", outcome{err: errors.New(strings.Repeat("a", 99))}, 3, stopNone,
			final(StateFailed, strings.Repeat("a", 80)+cutMark), attemptOf(strings.Repeat("a", 80)+cutMark, kindPlain)},
		{"interrupted by a shutdown", outcome{err: boom, cause: ErrShutdown}, 0, stopNone, interrupted, nil},
		{"interrupted by a shutdown, even for good", outcome{err: Permanent(boom), cause: fmt.Errorf("%w: now", ErrShutdown)}, 3, stopNone,
			func() stepRecord { s := interrupted; s.Attempt = 3; return s }(), nil},
		{"failed when the run was cancelled", outcome{err: ErrCanceled, cause: ErrCanceled}, 0, stopCancel,
			final(StateCanceled, ErrCanceled.Error()), attemptOf(ErrCanceled.Error(), kindCanceled)},
		{"interrupted by a newer generation", outcome{err: boom, cause: ErrSuperseded}, 0, stopSupersede, interrupted, nil},
		{"failed when the run was out of time", outcome{err: ranOut, cause: ranOut}, 1, stopTimeout, final(StateFailed, ranOut.Error()), attemptOf(ranOut.Error(), kindTimeout)},
		{"failed when another step halted the run", outcome{err: boom}, 1, stopHalt, final(StateFailed, "boom"), attemptOf("boom", kindPlain)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, want := running, c.want
			if c.attempt != 0 {
				got.Attempt, want.Attempt = c.attempt, c.attempt
			}
			c.outcome.ended = ended
			failed := got.settle(&c.outcome, policy, c.stop, Limits{ErrorText: 80 + len(cutMark)})
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
		s.settle(&o, defaultRetry, stopNone, limits)
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
		var f faults
		p.validate("retry", &f)
		require.NoError(t, f.join())
		n := rapid.IntRange(1, math.MaxInt32).Draw(t, "n")
		middle := min(float64(p.Initial)*math.Pow(p.Multiplier, float64(n-1)), float64(p.Max), longestDelay)
		by := middle*max(p.Jitter, 0)*1.000001 + 2
		delay := float64(p.delay(n))
		require.GreaterOrEqual(t, delay, 0.0)
		require.GreaterOrEqual(t, delay, middle-by)
		require.LessOrEqual(t, delay, middle+by)
	})
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		name  string
		text  string
		limit int
		want  string
	}{
		{"what fits", "abc", 3, "abc"},
		{"what does not", "abcdefghijklmnop", 15, "abcde … [cut]"},
		{"no half character", "éééééééé", 15, "éé … [cut]"},
		{"no room for more than the mark", "abcdefghijklmnop", len(cutMark), cutMark},
		{"no room for the mark", "abcdefghijklmnop", 5, ""},
		{"no room", "abc", 0, ""},
		{"nothing", "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, cut(c.text, c.limit)) })
	}
}

func TestCutKeepsToTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		limit := rapid.IntRange(0, 40).Draw(t, "limit")
		short := cut(text, limit)
		require.LessOrEqual(t, len(short), max(limit, 0))
		require.Equal(t, utf8.ValidString(text), utf8.ValidString(short) && utf8.ValidString(text))
		require.True(t, strings.HasPrefix(text, strings.TrimSuffix(short, cutMark)))
		if len(text) <= limit {
			require.Equal(t, text, short)
		}
	})
}

func TestIDsGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g ids
		now := time.UnixMilli(rapid.Int64Range(0, 1<<47).Draw(t, "now"))
		last := ""
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			// Within a millisecond, over several, and with a clock that goes back.
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(time.Millisecond)).Draw(t, "passed")))
			id := g.next(now)
			require.Len(t, id, 26)
			require.Empty(t, nameFault(id))
			require.Empty(t, strings.Trim(id, idLetters))
			require.Greater(t, id, last)
			last = id
		}
	})
}

func TestIDsSortByTimeAcrossEngines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Int64Range(0, 1<<48-2).Draw(t, "first")
		b := rapid.Int64Range(a+1, 1<<48-1).Draw(t, "second")
		require.Less(t, new(ids).next(time.UnixMilli(a)), new(ids).next(time.UnixMilli(b)))
	})
}

func TestIDsCarryOver(t *testing.T) {
	g := ids{millis: 7, high: 0xFFFF, low: math.MaxUint64}
	before := ids{millis: 7, high: 0xFFFF, low: math.MaxUint64 - 1<<30}
	last := before.next(time.UnixMilli(7))
	require.Greater(t, g.next(time.UnixMilli(7)), last)
	require.Equal(t, uint64(8), g.millis)
	require.Zero(t, g.high)
}

func TestIDsOfManyCallersDiffer(t *testing.T) {
	var g ids
	made := make(chan string, 4000)
	for range 4 {
		go func() {
			for range 1000 {
				made <- g.next(time.UnixMilli(1))
			}
		}()
	}
	seen := map[string]bool{}
	for range 4000 {
		seen[<-made] = true
	}
	require.Len(t, seen, 4000)
	require.NotEqual(t, new(ids).next(time.UnixMilli(1)), new(ids).next(time.UnixMilli(1)))
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

func TestQueueGivesBackInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue[int]
		var model []int
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"push many": func(t *rapid.T) {
				for range rapid.IntRange(1, 100).Draw(t, "n") {
					n++
					q.push(n)
					model = append(model, n)
				}
			},
			"pop many": func(t *rapid.T) {
				for range min(len(model), rapid.IntRange(1, 100).Draw(t, "n")) {
					require.Equal(t, model[0], q.first())
					require.Equal(t, model[0], q.pop())
					model = model[1:]
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(model), q.len())
				require.LessOrEqual(t, q.head, 64+q.len(), "it keeps what is gone")
			},
		})
	})
}

func TestTurnsServeEachLaneInTurnAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q turns
		model := map[string][]*task{}
		waited := map[string]int{} // others served since the lane was last empty or served
		n := 0
		lanes := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		t.Repeat(map[string]func(*rapid.T){
			"push many": func(t *rapid.T) {
				lane := lanes.Draw(t, "lane")
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					j := &task{lane: lane}
					q.push(j)
					model[lane] = append(model[lane], j)
					n++
				}
			},
			"pop": func(t *rapid.T) {
				j := q.pop()
				if n == 0 {
					require.Nil(t, j)
					return
				}
				n--
				require.Same(t, model[j.lane][0], j)
				model[j.lane] = model[j.lane][1:]
				for lane, waiting := range model {
					if lane != j.lane && len(waiting) > 0 {
						waited[lane]++
						require.Less(t, waited[lane], len(model), "lane %s is passed over", lane)
					}
				}
				waited[j.lane] = 0
			},
			"": func(t *rapid.T) { require.Equal(t, n, q.len()) },
		})
	})
}

func TestTurnsForgetTheLanesOfOldPipelines(t *testing.T) {
	var q turns
	for i := range 10 * idleLanes {
		q.push(&task{lane: strconv.Itoa(i)})
		q.push(&task{lane: strconv.Itoa(i)})
		require.NotNil(t, q.pop())
		require.NotNil(t, q.pop())
	}
	require.LessOrEqual(t, len(q.lanes), idleLanes+1)
}

func TestDueHeapGivesBackInTheOrderOfTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h dueHeap
		var model []*task
		due := rapid.Int64Range(1, 50)
		remove := func(j *task) {
			model = slices.DeleteFunc(model, func(m *task) bool { return m == j })
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				j := &task{due: instant(due.Draw(t, "due"))}
				heap.Push(&h, j)
				model = append(model, j)
			},
			"pop": func(t *rapid.T) {
				if len(h) == 0 {
					t.Skip()
				}
				j := heap.Pop(&h).(*task)
				for _, m := range model {
					require.GreaterOrEqual(t, m.due, j.due)
				}
				remove(j)
			},
			"remove": func(t *rapid.T) {
				if len(h) == 0 {
					t.Skip()
				}
				j := rapid.SampledFrom(model).Draw(t, "journey")
				require.Same(t, j, heap.Remove(&h, j.heapAt))
				remove(j)
			},
			"change": func(t *rapid.T) {
				if len(h) == 0 {
					t.Skip()
				}
				j := rapid.SampledFrom(model).Draw(t, "journey")
				j.due = instant(due.Draw(t, "due"))
				heap.Fix(&h, j.heapAt)
			},
			"": func(t *rapid.T) {
				require.ElementsMatch(t, model, []*task(h))
				for i, j := range h {
					require.Equal(t, i, j.heapAt)
				}
			},
		})
	})
}

func TestPlainIsOnlySaidOfWhatHasNoFaults(t *testing.T) {
	limits := Limits{}.withDefaults()
	for _, c := range []struct {
		name string
		data string
		want bool
	}{
		{"a number", `1`, true},
		{"an object", ` { "a" : [ 1 , { "b" : "x,{\"y\":[" } ] , "c" : null } `, true},
		{"a name in two objects", `[{"a":{"a":1}},{"a":1}]`, true},
		{"a name after an inner object", `{"a":{"b":1},"b":1}`, true},
		{"strings in an array", `["a","a"]`, true},
		{"a string that is also a name", `{"a":"b","b":"a"}`, true},
		{"a name that comes twice", `{"a":1,"b":{"c":1},"a":2}`, false},
		{"a name that comes twice, escaped", `{"a":1,"\u0061":2}`, false},
		{"no JSON", `{"a":1,}`, false},
		{"two values", `1 2`, false},
		{"nothing", ``, false},
		{"invalid UTF-8", "\"\xff\"", false},
		{"nesting at the limit", strings.Repeat("[", 30) + strings.Repeat("]", 30), true},
		{"nesting beyond the limit", strings.Repeat("[", 31) + strings.Repeat("]", 31), false},
		{"many fields", `{` + strings.TrimSuffix(manyFields(64), ",") + `}`, true},
		{"more fields than it remembers", `{` + strings.TrimSuffix(manyFields(65), ",") + `}`, false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, plain([]byte(c.data), 30)) })
	}
	piece := rapid.SampledFrom([]string{`{`, `}`, `[`, `]`, `,`, `:`, `"a"`, `"b"`, `"\""`, `"\\"`, `1`, ` `, `null`})
	value := rapid.Deferred(func() *rapid.Generator[string] { return jsonValue(4) })
	rapid.Check(t, func(t *rapid.T) {
		data := []byte(rapid.OneOf(value, rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(piece, 0, 20).Draw(t, "pieces"), "")
		})).Draw(t, "data"))
		faults := walk(data, nil, "", limits, 0).faults.join()
		if plain(data, limits.Depth) {
			require.NoError(t, faults, "%s", data)
		}
	})
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Quote(strconv.Itoa(i)) + ":1,")
	}
	return b.String()
}

// jsonValue makes values whose fields often have the same name.
func jsonValue(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		kind := rapid.IntRange(0, 3).Draw(t, "kind")
		if depth == 0 || kind < 2 {
			return rapid.SampledFrom([]string{`1`, `"a"`, `"\"{,"`, `null`, `""`}).Draw(t, "scalar")
		}
		var members []string
		for range rapid.IntRange(0, 3).Draw(t, "members") {
			member := jsonValue(depth-1).Draw(t, "member")
			if kind == 3 {
				member = rapid.SampledFrom([]string{`"a":`, `"b" : `, `"":`, `"\u0061":`}).Draw(t, "name") + member
			}
			members = append(members, member)
		}
		if kind == 3 {
			return "{" + strings.Join(members, ",") + "}"
		}
		return "[" + strings.Join(members, " , ") + "]"
	})
}
