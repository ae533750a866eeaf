package conveyor_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

// gaps returns the times between the end of a call and the begin of the next.
func (r *recorder) gaps() (gaps []time.Duration) {
	calls := r.all()
	for i := 1; i < len(calls); i++ {
		gaps = append(gaps, calls[i].Began.Sub(calls[i-1].Ended))
	}
	return gaps
}

func TestRetryPoliciesAreCombinedFieldByFieldTheNearestFirst(t *testing.T) {
	// Whatever the nearest says counts; each level says something in a random half of the rounds.
	reference := func(levels []conveyor.RetryPolicy) (delays []time.Duration) {
		p := conveyor.RetryPolicy{MaxAttempts: 3, Initial: conveyor.Duration(time.Second), Max: conveyor.Duration(time.Minute), Multiplier: 2}
		for i := len(levels) - 1; i >= 0; i-- { // the farthest first
			l := levels[i]
			if l.MaxAttempts != 0 {
				p.MaxAttempts = l.MaxAttempts
			}
			if l.Initial != 0 {
				p.Initial = l.Initial
			}
			if l.Max != 0 {
				p.Max = l.Max
			}
			if l.Multiplier != 0 {
				p.Multiplier = l.Multiplier
			}
		}
		next := float64(p.Initial)
		for range p.MaxAttempts - 1 {
			delays = append(delays, time.Duration(min(next, float64(p.Max))))
			next *= p.Multiplier
		}
		return delays
	}
	synctest.Test(t, func(t *testing.T) {
		for round := range 60 {
			levels := make([]conveyor.RetryPolicy, 4) // step, pipeline, driver, engine
			for i := range levels {
				level := conveyor.RetryPolicy{
					MaxAttempts: 2 + i*2, Initial: conveyor.Duration(time.Duration(1+i) * 100 * time.Millisecond),
					Max: conveyor.Duration(time.Duration(1+i) * time.Second), Multiplier: 1 + float64(i),
				}
				for _, forget := range []func(){
					func() { level.MaxAttempts = 0 }, func() { level.Initial = 0 }, func() { level.Max = 0 }, func() { level.Multiplier = 0 },
				} {
					if rand.IntN(2) == 0 {
						forget()
					}
				}
				levels[i] = level
			}
			levels[rand.IntN(4)].Jitter = -1 // enough on any level
			e := newEngine(t, conveyor.Options{Retry: levels[3]}).start()
			d := recording(always(conveyor.Done(), errBoom))
			e.driver("d", d, conveyor.Retry(levels[2]))
			p := pipelineOf("d")
			p.Retry, p.Steps[0].Retry = &levels[1], &levels[0]
			e.save(p)
			require.Equal(t, conveyor.StateFailed, e.finish(object("a", nil)).State)
			require.Equal(t, reference(levels), d.gaps(), "round %d: %+v", round, levels)
		}
	})
}

func TestRetryTakesItsDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		d := recording(always(conveyor.Done(), errBoom))
		e.driver("d", d)
		e.pipeline("d")
		for i := range 50 {
			e.finish(object(fmt.Sprint("n", i), nil))
		}
		spread := map[time.Duration]bool{}
		for i, gap := range d.gaps() {
			switch i % 3 { // the third gap is that to the next resource's run
			case 0:
				require.InDelta(t, float64(time.Second), float64(gap), 0.2*float64(time.Second)+1)
			case 1:
				require.InDelta(t, float64(2*time.Second), float64(gap), 0.4*float64(time.Second)+1)
			}
			spread[gap] = true
		}
		require.Greater(t, len(spread), 50, "the delays are spread by the jitter")
		require.Len(t, d.all(), 150)
	})
}

func TestRetryWithoutALimitGoesOnAndKeepsTheNewestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Limits: conveyor.Limits{Attempts: 5}}).start()
		d := recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt < 1000 {
				return conveyor.Done(), fmt.Errorf("no %d", req.Attempt)
			}
			return conveyor.Done(), nil
		})
		e.driver("d", d, conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: -1, Jitter: 0.5, Max: conveyor.Duration(time.Hour)}))
		e.pipeline("d")
		run := e.finish(object("a", nil))
		require.NoError(t, run.Err())
		require.Equal(t, 1000, run.Steps[0].Attempt)
		for i, gap := range d.gaps() {
			mean := float64(min(time.Second<<min(i, 20), time.Hour))
			require.InDelta(t, mean, float64(gap), mean/2+1)
		}
		var kept []string
		for _, a := range run.Steps[0].Attempts {
			kept = append(kept, fmt.Sprint(a.Number, " ", a.Error))
		}
		require.Equal(t, []string{"996 no 996", "997 no 997", "998 no 998", "999 no 999", "1000 "}, kept[len(kept)-5:])
		require.LessOrEqual(t, len(kept), 5)
	})
}

func TestRetryAnswersOfADriver(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name   string
		err    error
		calls  int
		total  time.Duration
		expect string
	}{
		{"an error", errBoom, 3, 3 * time.Second, "boom"},
		{"a permanent error", conveyor.Permanent(errBoom), 1, 0, "boom"},
		{"a permanent error inside another", fmt.Errorf("outer: %w", conveyor.Permanent(errBoom)), 1, 0, "outer: boom"},
		{"a permanent error made of one with a delay", conveyor.Permanent(conveyor.RetryAfter(day, errBoom)), 1, 0, "boom"},
		{"an error with a delay", conveyor.RetryAfter(day, errBoom), 3, 2 * day, "boom"},
		{"an error with no delay", conveyor.RetryAfter(0, errBoom), 3, 0, "boom"},
		{"an error with a negative delay", conveyor.RetryAfter(-day, errBoom), 3, 0, "boom"},
		{"an error with a delay made of a permanent one", conveyor.RetryAfter(day, conveyor.Permanent(errBoom)), 3, 2 * day, "boom"},
		{"an error that timed out by itself", context.DeadlineExceeded, 3, 3 * time.Second, context.DeadlineExceeded.Error()},
		{"an error that pretends a shutdown", conveyor.ErrShutdown, 3, 3 * time.Second, conveyor.ErrShutdown.Error()},
		{"an error that pretends a cancel", conveyor.ErrCanceled, 3, 3 * time.Second, conveyor.ErrCanceled.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{Retry: conveyor.RetryPolicy{Jitter: -1}}).start()
				d := recording(always(conveyor.DoneWith("ignored"), c.err))
				e.driver("d", d)
				e.pipeline("d")
				began := time.Now()
				run := e.finish(object("a", nil))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Equal(t, c.total, time.Since(began))
				require.Len(t, d.all(), c.calls)
				require.Equal(t, c.expect, run.Steps[0].Reason)
				require.Empty(t, run.Steps[0].Output)
				require.NotErrorIs(t, run.Err(), conveyor.ErrTimeout)
				for i, call := range d.all() {
					require.Equal(t, i+1, call.Attempt)
					require.False(t, call.Resumed)
				}
			})
		})
	}
}

func TestRetryOfDelaysThatPassTheEndOfTime(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer driverFunc
		policy conveyor.RetryPolicy
		limit  time.Duration // of the run
	}{
		{"requeue", always(conveyor.RequeueAfter(math.MaxInt64), nil), conveyor.RetryPolicy{}, 0},
		{"retry", always(conveyor.Done(), conveyor.RetryAfter(math.MaxInt64, errBoom)), conveyor.RetryPolicy{}, 0},
		{"policy", always(conveyor.Done(), errBoom), conveyor.RetryPolicy{Initial: math.MaxInt64, Max: math.MaxInt64, Multiplier: math.MaxFloat32, Jitter: 1}, 0},
		{"limit of the run", always(conveyor.RequeueAfter(1000*time.Hour), nil), conveyor.RetryPolicy{}, math.MaxInt64},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				d := recording(c.answer)
				e.driver("d", d, conveyor.Retry(c.policy), conveyor.Timeout(math.MaxInt64))
				p := pipelineOf("d")
				p.Timeout = conveyor.Duration(c.limit)
				e.save(p)
				run := e.apply(object("a", nil))
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				require.Len(t, d.all(), 1)
				require.False(t, e.run(run.ID).State.Final())
				require.True(t, e.run(run.ID).Steps[0].Due.After(time.Now()) || c.policy.Jitter == 1, e.run(run.ID).Steps[0].Due)
			})
		})
	}
}

func TestRetryAttemptTimeoutIsThatOfTheStepOrTheDriverOrTheEngine(t *testing.T) {
	for _, c := range []struct {
		name                 string
		step, driver, engine time.Duration
		want                 time.Duration // 0 for none
	}{
		{"none", 0, 0, 0, 0},
		{"engine", 0, 0, 3 * time.Second, 3 * time.Second},
		{"driver", 0, 2 * time.Second, 3 * time.Second, 2 * time.Second},
		{"driver, longer", 0, 20 * time.Second, 3 * time.Second, 20 * time.Second},
		{"step", time.Second, 2 * time.Second, 3 * time.Second, time.Second},
		{"step, longer", 30 * time.Second, 2 * time.Second, 3 * time.Second, 30 * time.Second},
		{"step alone", time.Second, 0, 0, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{StepTimeout: c.engine, Retry: conveyor.RetryPolicy{MaxAttempts: 2, Jitter: -1}}).start()
				d := recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					return taking(time.Minute)(ctx, req)
				})
				e.driver("d", d, conveyor.Timeout(c.driver))
				p := pipelineOf("d")
				p.Steps[0].Timeout = conveyor.Duration(c.step)
				e.save(p)
				run := e.finish(object("a", nil))
				require.Equal(t, c.want == 0, run.State == conveyor.StateSucceeded)
				if c.want == 0 {
					return
				}
				require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				require.Contains(t, run.Steps[0].Reason, c.want.String())
				require.Len(t, d.all(), 2)
				require.Equal(t, d.last().Began.Add(c.want), d.last().Ended)
			})
		})
	}
}

func TestRetryAFinishedResultCountsEvenAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{StepTimeout: time.Second}).start()
		e.driver("d", driverOf(deaf(5*time.Second, conveyor.DoneWith("in the end"), nil)))
		e.pipeline("d", "d")
		run := e.finish(object("a", nil))
		require.NoError(t, run.Err())
		require.JSONEq(t, `"in the end"`, string(run.Steps[0].Output))
	})
}

func TestRetryARunThatTakesTooLongEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer driverFunc // of the step during which the time is over; nil for a driver that is not there
		ends   time.Duration
	}{
		{"during an attempt", taking(time.Hour), 10 * time.Second},
		{"during an attempt that does not listen", deaf(time.Hour, conveyor.Done(), nil), 15 * time.Second},
		{"during an attempt that then succeeds", deaf(9*time.Second, conveyor.Done(), nil), 11 * time.Second},
		{"during the wait for a retry", always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom)), 10 * time.Second},
		{"during the wait after a requeue", always(conveyor.RequeueAfter(time.Hour), nil), 10 * time.Second},
		{"during many requeues", always(conveyor.RequeueAfter(time.Second), nil), 10 * time.Second},
		{"while it is blocked", nil, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				last := new(recorder)
				e.driver("first", driverOf(taking(2*time.Second)))
				if c.answer != nil {
					e.driver("slow", driverOf(c.answer))
				}
				e.driver("last", last)
				p := pipelineOf("first", "slow", "last")
				p.Timeout = conveyor.Duration(10 * time.Second)
				e.save(p)
				began := time.Now()
				run := e.finish(object("a", nil))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				require.Contains(t, run.Reason, "10s")
				require.Equal(t, began.Add(c.ends).UTC(), run.EndedAt)
				require.Equal(t, began.Add(10*time.Second).UTC(), run.Deadline)
				require.Empty(t, last.all())
				require.Equal(t, conveyor.StateSkipped, run.Steps[2].State)
				time.Sleep(time.Hour) // until every driver has returned
			})
		})
	}
}

func TestRetryARunThatEndsInTimeIsNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(taking(5*time.Second)))
		p := pipelineOf("d", "d")
		p.Timeout = conveyor.Duration(10*time.Second + 1)
		e.save(p)
		require.NoError(t, e.finish(object("a", 1)).Err())
		e.apply(object("a", 2))
		queued := e.apply(object("a", 3))
		require.NoError(t, e.ended(queued.ID).Err(), "the time begins when the run does, not when it is queued")
	})
}

func TestSkipGoesOnAndHaltEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("skip", driverOf(always(conveyor.Skip("nothing to do"), nil)))
		e.driver("halt", driverOf(always(conveyor.Halt("enough"), nil)))
		never := new(recorder)
		e.driver("never", never)
		e.pipeline("skip", "skip", "halt", "never")
		o := object("a", nil)
		run := e.finish(o)
		require.NoError(t, run.Err())
		require.Equal(t, conveyor.StateSucceeded, run.State)
		require.Equal(t, []string{"skipped", "skipped", "succeeded", "skipped"}, statesOf(run))
		require.Equal(t, "nothing to do", run.Steps[1].Reason)
		require.Equal(t, "enough", run.Steps[2].Reason)
		require.Equal(t, "enough", run.Steps[3].Reason)
		require.Equal(t, "enough", run.Reason)
		require.Empty(t, never.all())
		require.Equal(t, conveyor.StateSucceeded, e.resource(o).Status.Phase)
		require.Empty(t, e.resource(o).Status.Message)
	})
}

func TestRequeueUsesNoAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		again := always(conveyor.RequeueAfter(time.Minute), nil)
		d := recording(inTurn(again, again, always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom)), again,
			always(conveyor.Done(), conveyor.RetryAfter(0, errBoom)), always(conveyor.RequeueAfter(-time.Hour), nil),
			always(conveyor.RequeueAfter(0), nil), always(conveyor.Done(), nil)))
		e.driver("d", d)
		e.pipeline("d")
		run := e.finish(object("a", nil))
		require.NoError(t, run.Err())
		require.Equal(t, []string{"1", "1", "1", "1/2", "1/2", "1/3", "1/3", "1/3"}, d.steps())
		require.Equal(t, []time.Duration{time.Minute, time.Minute, time.Hour, time.Minute, 0, 0, 0}, d.gaps())
		require.Equal(t, 5, run.Steps[0].Requeues)
		require.Equal(t, 3, run.Steps[0].Attempt)
		require.Len(t, run.Steps[0].Attempts, 3)
		require.Zero(t, run.Steps[0].Interruptions)
		keys := map[string]bool{}
		for _, c := range d.all() {
			keys[c.Key] = true
		}
		require.Len(t, keys, 1)
	})
}

func TestRequeueAtOnceLetsTheOthersHaveTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Workers: 1}).start()
		eager := recording(inTurn(append(repeated(always(conveyor.RequeueAfter(0), nil), 200), always(conveyor.Done(), nil))...))
		e.driver("eager", eager)
		e.driver("other", new(recorder))
		e.pipelineNamed("q", "other")
		e.pipeline("eager")
		run := e.apply(object("a", nil))
		o := object("b", nil)
		o.Pipeline = "q"
		require.NoError(t, e.finish(o).Err())
		require.Less(t, len(eager.all()), 201)
		require.NoError(t, e.ended(run.ID).Err())
		require.Len(t, eager.all(), 201)
	})
}

func repeated(answer driverFunc, n int) (answers []driverFunc) {
	for range n {
		answers = append(answers, answer)
	}
	return answers
}
