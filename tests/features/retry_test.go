package features_test

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
	"github.com/conveyor-go/conveyor/internal/rig"
)

// gaps returns the times between the end of a call and the begin of the next.
func gaps(r *rig.Recorder) (gaps []time.Duration) {
	calls := r.All()
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
			e := rig.New(t, conveyor.Options{Retry: levels[3]}).MustStart()
			d := rig.Recording(rig.Always(conveyor.Done(), rig.ErrBoom))
			e.Driver("d", d, conveyor.Retry(levels[2]))
			p := rig.PipelineOf("d")
			p.Retry, p.Steps[0].Retry = &levels[1], &levels[0]
			e.Save(p)
			require.Equal(t, conveyor.StateFailed, e.Finish(rig.Object("a", nil)).State)
			require.Equal(t, reference(levels), gaps(d), "round %d: %+v", round, levels)
		}
	})
}

func TestRetryTakesItsDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.Always(conveyor.Done(), rig.ErrBoom))
		e.Driver("d", d)
		e.Pipeline("d")
		for i := range 50 {
			e.Finish(rig.Object(fmt.Sprint("n", i), nil))
		}
		spread := map[time.Duration]bool{}
		for i, gap := range gaps(d) {
			switch i % 3 { // the third gap is that to the next resource's run
			case 0:
				require.InDelta(t, float64(time.Second), float64(gap), 0.2*float64(time.Second)+1)
			case 1:
				require.InDelta(t, float64(2*time.Second), float64(gap), 0.4*float64(time.Second)+1)
			}
			spread[gap] = true
		}
		require.Greater(t, len(spread), 50, "the delays are spread by the jitter")
		require.Len(t, d.All(), 150)
	})
}

func TestRetryWithoutALimitGoesOnAndKeepsTheNewestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{Attempts: 5}}).MustStart()
		d := rig.Recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt < 1000 {
				return conveyor.Done(), fmt.Errorf("no %d", req.Attempt)
			}
			return conveyor.Done(), nil
		})
		e.Driver("d", d, conveyor.Retry(conveyor.RetryPolicy{MaxAttempts: -1, Jitter: 0.5, Max: conveyor.Duration(time.Hour)}))
		e.Pipeline("d")
		run := e.Finish(rig.Object("a", nil))
		require.NoError(t, run.Err())
		require.Equal(t, 1000, run.Steps[0].Attempt)
		for i, gap := range gaps(d) {
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
		{"an error", rig.ErrBoom, 3, 3 * time.Second, "boom"},
		{"a permanent error", conveyor.Permanent(rig.ErrBoom), 1, 0, "boom"},
		{"a permanent error inside another", fmt.Errorf("outer: %w", conveyor.Permanent(rig.ErrBoom)), 1, 0, "outer: boom"},
		{"a permanent error made of one with a delay", conveyor.Permanent(conveyor.RetryAfter(day, rig.ErrBoom)), 1, 0, "boom"},
		{"an error with a delay", conveyor.RetryAfter(day, rig.ErrBoom), 3, 2 * day, "boom"},
		{"an error with no delay", conveyor.RetryAfter(0, rig.ErrBoom), 3, 2 * soonest, "boom"},
		{"an error with a negative delay", conveyor.RetryAfter(-day, rig.ErrBoom), 3, 2 * soonest, "boom"},
		{"an error with a delay made of a permanent one", conveyor.RetryAfter(day, conveyor.Permanent(rig.ErrBoom)), 3, 2 * day, "boom"},
		{"an error that timed out by itself", context.DeadlineExceeded, 3, 3 * time.Second, context.DeadlineExceeded.Error()},
		{"an error that pretends a shutdown", conveyor.ErrShutdown, 3, 3 * time.Second, conveyor.ErrShutdown.Error()},
		{"an error that pretends a cancel", conveyor.ErrCanceled, 3, 3 * time.Second, conveyor.ErrCanceled.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Retry: conveyor.RetryPolicy{Jitter: -1}}).MustStart()
				d := rig.Recording(rig.Always(conveyor.DoneWith("ignored"), c.err))
				e.Driver("d", d)
				e.Pipeline("d")
				began := time.Now()
				run := e.Finish(rig.Object("a", nil))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Equal(t, c.total, time.Since(began))
				require.Len(t, d.All(), c.calls)
				require.Equal(t, c.expect, run.Steps[0].Reason)
				require.Empty(t, run.Steps[0].Output)
				require.NotErrorIs(t, run.Err(), conveyor.ErrTimeout)
				for i, call := range d.All() {
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
		answer rig.Func
		policy conveyor.RetryPolicy
		limit  time.Duration // of the run
	}{
		{"requeue", rig.Always(conveyor.RequeueAfter(math.MaxInt64), nil), conveyor.RetryPolicy{}, 0},
		{"retry", rig.Always(conveyor.Done(), conveyor.RetryAfter(math.MaxInt64, rig.ErrBoom)), conveyor.RetryPolicy{}, 0},
		{"policy", rig.Always(conveyor.Done(), rig.ErrBoom), conveyor.RetryPolicy{Initial: math.MaxInt64, Max: math.MaxInt64, Multiplier: math.MaxFloat32, Jitter: 1}, 0},
		{"limit of the run", rig.Always(conveyor.RequeueAfter(1000*time.Hour), nil), conveyor.RetryPolicy{}, math.MaxInt64},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				d := rig.Recording(c.answer)
				e.Driver("d", d, conveyor.Retry(c.policy), conveyor.Timeout(math.MaxInt64))
				p := rig.PipelineOf("d")
				p.Timeout = conveyor.Duration(c.limit)
				e.Save(p)
				run := e.MustApply(rig.Object("a", nil))
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				require.Len(t, d.All(), 1)
				require.False(t, e.MustGetRun(run.ID).State.Final())
				require.True(t, e.MustGetRun(run.ID).Steps[0].Due.After(time.Now()) || c.policy.Jitter == 1, e.MustGetRun(run.ID).Steps[0].Due)
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
				e := rig.New(t, conveyor.Options{StepTimeout: c.engine, Retry: conveyor.RetryPolicy{MaxAttempts: 2, Jitter: -1}}).MustStart()
				d := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					return rig.Taking(time.Minute)(ctx, req)
				})
				e.Driver("d", d, conveyor.Timeout(c.driver))
				p := rig.PipelineOf("d")
				p.Steps[0].Timeout = conveyor.Duration(c.step)
				e.Save(p)
				run := e.Finish(rig.Object("a", nil))
				require.Equal(t, c.want == 0, run.State == conveyor.StateSucceeded)
				if c.want == 0 {
					return
				}
				require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				require.Contains(t, run.Steps[0].Reason, c.want.String())
				require.Len(t, d.All(), 2)
				require.Equal(t, d.Last().Began.Add(c.want), d.Last().Ended)
			})
		})
	}
}

func TestRetryAFinishedResultCountsEvenAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{StepTimeout: time.Second}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Deaf(5*time.Second, conveyor.DoneWith("in the end"), nil)))
		e.Pipeline("d", "d")
		run := e.Finish(rig.Object("a", nil))
		require.NoError(t, run.Err())
		require.JSONEq(t, `"in the end"`, string(run.Steps[0].Output))
	})
}

func TestRetryARunThatTakesTooLongEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer rig.Func // of the step during which the time is over; nil for a driver that is not there
		ends   time.Duration
	}{
		{"during an attempt", rig.Taking(time.Hour), 10 * time.Second},
		{"during an attempt that does not listen", rig.Deaf(time.Hour, conveyor.Done(), nil), 15 * time.Second},
		{"during an attempt that then succeeds", rig.Deaf(9*time.Second, conveyor.Done(), nil), 11 * time.Second},
		{"during the wait for a retry", rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)), 10 * time.Second},
		{"during the wait after a requeue", rig.Always(conveyor.RequeueAfter(time.Hour), nil), 10 * time.Second},
		{"during many requeues", rig.Always(conveyor.RequeueAfter(time.Second), nil), 10 * time.Second},
		{"while it is blocked", nil, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				last := new(rig.Recorder)
				e.Driver("first", rig.DriverOf(rig.Taking(2*time.Second)))
				if c.answer != nil {
					e.Driver("slow", rig.DriverOf(c.answer))
				}
				e.Driver("last", last)
				p := rig.PipelineOf("first", "slow", "last")
				p.Timeout = conveyor.Duration(10 * time.Second)
				e.Save(p)
				began := time.Now()
				run := e.Finish(rig.Object("a", nil))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				require.Contains(t, run.Reason, "10s")
				require.Equal(t, began.Add(c.ends).UTC(), run.EndedAt)
				require.Equal(t, began.Add(10*time.Second).UTC(), run.Deadline)
				require.Empty(t, last.All())
				require.Equal(t, conveyor.StateSkipped, run.Steps[2].State)
				time.Sleep(time.Hour) // until every driver has returned
			})
		})
	}
}

func TestRetryARunThatEndsInTimeIsNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(5*time.Second)))
		p := rig.PipelineOf("d", "d")
		p.Timeout = conveyor.Duration(10*time.Second + 1)
		e.Save(p)
		require.NoError(t, e.Finish(rig.Object("a", 1)).Err())
		e.MustApply(rig.Object("a", 2))
		queued := e.MustApply(rig.Object("a", 3))
		require.NoError(t, e.Ended(queued.ID).Err(), "the time begins when the run does, not when it is queued")
	})
}

func TestSkipGoesOnAndHaltEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("skip", rig.DriverOf(rig.Always(conveyor.Skip("nothing to do"), nil)))
		e.Driver("halt", rig.DriverOf(rig.Always(conveyor.Halt("enough"), nil)))
		never := new(rig.Recorder)
		e.Driver("never", never)
		e.Pipeline("skip", "skip", "halt", "never")
		o := rig.Object("a", nil)
		run := e.Finish(o)
		require.NoError(t, run.Err())
		require.Equal(t, conveyor.StateSucceeded, run.State)
		require.Equal(t, []string{"skipped", "skipped", "succeeded", "skipped"}, rig.StatesOf(run))
		require.Equal(t, "nothing to do", run.Steps[1].Reason)
		require.Equal(t, "enough", run.Steps[2].Reason)
		require.Equal(t, "enough", run.Steps[3].Reason)
		require.Equal(t, "enough", run.Reason)
		require.Empty(t, never.All())
		require.Equal(t, conveyor.StateSucceeded, e.MustGet(o).Status.Phase)
		require.Empty(t, e.MustGet(o).Status.Message)
	})
}

func TestRequeueUsesNoAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		again := rig.Always(conveyor.RequeueAfter(time.Minute), nil)
		d := rig.Recording(rig.InTurn(again, again, rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)), again,
			rig.Always(conveyor.Done(), conveyor.RetryAfter(0, rig.ErrBoom)), rig.Always(conveyor.RequeueAfter(-time.Hour), nil),
			rig.Always(conveyor.RequeueAfter(0), nil), rig.Always(conveyor.Done(), nil)))
		e.Driver("d", d)
		e.Pipeline("d")
		run := e.Finish(rig.Object("a", nil))
		require.NoError(t, run.Err())
		require.Equal(t, []string{"1", "1", "1", "1/2", "1/2", "1/3", "1/3", "1/3"}, d.Steps())
		require.Equal(t, []time.Duration{time.Minute, time.Minute, time.Hour, time.Minute, soonest, soonest, soonest}, gaps(d))
		require.Equal(t, 5, run.Steps[0].Requeues)
		require.Equal(t, 3, run.Steps[0].Attempt)
		require.Len(t, run.Steps[0].Attempts, 3)
		require.Zero(t, run.Steps[0].Interruptions)
		keys := map[string]bool{}
		for _, c := range d.All() {
			keys[c.Key] = true
		}
		require.Len(t, keys, 1)
	})
}

// soonest is the shortest time after which a driver is called again at its own request.
const soonest = 10 * time.Millisecond

// TestNoAnswerMakesADriverSpin lets drivers ask for what would have them called without a pause.
func TestNoAnswerMakesADriverSpin(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer rig.Func
		opts   conveyor.Options
		resync conveyor.Duration
	}{
		{"requeue at once", rig.Always(conveyor.RequeueAfter(0), nil), conveyor.Options{}, 0},
		{"requeue into the past", rig.Always(conveyor.RequeueAfter(-time.Hour), nil), conveyor.Options{}, 0},
		{"requeue after a moment", rig.Always(conveyor.RequeueAfter(1), nil), conveyor.Options{}, 0},
		{"retry at once, for ever", rig.Always(conveyor.Done(), conveyor.RetryAfter(0, rig.ErrBoom)), conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: -1}}, 0},
		{"retry after a moment, for ever", rig.Always(conveyor.Done(), rig.ErrBoom),
			conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: -1, Initial: 1, Max: 1}}, 0},
		{"await for a moment", rig.Always(conveyor.Await("go", 1), nil), conveyor.Options{}, 0},
		{"no capacity for a moment", nil, conveyor.Options{Admission: conveyor.AdmissionFunc(
			func(context.Context, conveyor.StepInfo) (func(), time.Duration, error) { return nil, 1, nil })}, 0},
		{"resync after a moment", nil, conveyor.Options{}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, c.opts).MustStart()
				e.Driver("d", rig.Recording(c.answer))
				p := rig.PipelineOf("d")
				p.Resync = c.resync
				e.Save(p)
				e.MustApply(rig.Object("a", nil))
				synctest.Wait()
				before := e.Store.Commits()
				time.Sleep(10 * soonest)
				synctest.Wait()
				require.InDelta(t, 20, e.Store.Commits()-before, 12, "each call costs one commit or two")
				e.Stop()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // a Planner is called under the same rules
		e := rig.New(t, conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: -1}}).MustStart()
		f := rig.NewFanOut()
		f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			return nil, conveyor.RetryAfter(0, rig.ErrBoom)
		}
		e.SavePlanned(f)
		e.MustApply(rig.Object("a", nil))
		time.Sleep(10*soonest + 1)
		synctest.Wait()
		require.Equal(t, int64(11), f.Calls.Load())
	})
}

func TestRequeueAtOnceLetsTheOthersHaveTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
		eager := rig.Recording(rig.InTurn(append(repeated(rig.Always(conveyor.RequeueAfter(0), nil), 200), rig.Always(conveyor.Done(), nil))...))
		e.Driver("eager", eager)
		e.Driver("other", new(rig.Recorder))
		e.PipelineNamed("q", "other")
		e.Pipeline("eager")
		run := e.MustApply(rig.Object("a", nil))
		o := rig.Object("b", nil)
		o.Pipeline = "q"
		require.NoError(t, e.Finish(o).Err())
		require.Less(t, len(eager.All()), 201)
		require.NoError(t, e.Ended(run.ID).Err())
		require.Len(t, eager.All(), 201)
	})
}

func repeated(answer rig.Func, n int) (answers []rig.Func) {
	for range n {
		answers = append(answers, answer)
	}
	return answers
}
