package conveyor_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

func TestRule08AnAttemptIsOnRecordBeforeItsDriverIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		var saw []string
		e.driver("d", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			s := e.run(req.Run).Step(req.Step.ID)
			saw = append(saw, fmt.Sprint(req.Attempt, " ", s.State, " ", s.Attempt, " ", s.StartedAt.Equal(time.Now())))
			if req.Step.ID == "2" && req.Attempt == 1 {
				return conveyor.Done(), errBoom
			}
			return conveyor.Done(), nil
		}))
		e.pipeline("d", "d")
		require.NoError(t, e.finish(object("a", nil)).Err())
		require.Equal(t, []string{"1 running 1 true", "1 running 1 true", "2 running 2 true"}, saw)
	})
}

func TestRule08AFinishedStepIsNeverCalledAgainAndOneInFlightIs(t *testing.T) {
	for step := 1; step <= 3; step++ {
		for _, c := range []struct {
			name string
			die  func(*rig, conveyor.Options) *rig
		}{
			{"crash", (*rig).crashed},
			{"shutdown", func(r *rig, o conveyor.Options) *rig {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				require.NoError(r.t, r.Shutdown(ctx))
				return r.reborn(o)
			}},
		} {
			t.Run(fmt.Sprintf("%s in step %d", c.name, step), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newEngine(t, conveyor.Options{}).start()
					before := recording(taking(time.Minute))
					e.driver("d", before)
					e.pipeline("d", "d", "d")
					id := e.apply(object("a", 1)).ID
					time.Sleep(time.Duration(step)*time.Minute - 30*time.Second)
					require.Len(t, before.all(), step)

					e = c.die(e, conveyor.Options{})
					after := recording(taking(time.Minute))
					e.driver("d", after)
					e.start()
					run := e.ended(id)
					require.NoError(t, run.Err())
					want := []string{"1+", "2+", "3+"}[step-1 : step]
					want = append(want, []string{"2", "3"}[step-1:]...)
					require.Equal(t, want, after.steps())
					require.Equal(t, before.last().Key, after.all()[0].Key)
					require.Equal(t, 1, after.all()[0].Attempt)
					require.Equal(t, 1, run.Steps[step-1].Interruptions)
					require.Len(t, run.Steps[step-1].Attempts, 1, "one recorded outcome")
				})
			})
		}
	}
}

func TestRule08AStoreThatFailsForAWhileLosesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
	}{
		{"with an error", errBoom},
		{"with an unknown outcome", store.ErrUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				d := recording(taking(time.Second))
				e.driver("d", d)
				e.pipeline("d", "d", "d")
				run := e.apply(object("a", 1))
				from := time.Now()
				e.store.refusing(func([]string) error {
					if time.Since(from) < time.Hour {
						return c.err
					}
					return nil
				})
				require.NoError(t, e.ended(run.ID).Err())
				require.Equal(t, []string{"1", "2", "3"}, d.steps())
				require.GreaterOrEqual(t, time.Since(from), time.Hour)
			})
		})
	}
}

func TestRule08AnApplyThatTheStoreRefusesIsNotAcknowledged(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
	}{
		{"with an error", errBoom},
		{"with an unknown outcome", store.ErrUnknown},
		{"closed", store.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{Workers: 1}).start()
				d := new(recorder)
				e.driver("d", d, conveyor.Concurrency(1))
				e.pipeline("d")
				before := dump(t, e.store)
				e.store.refusing(func([]string) error { return c.err })
				_, err := e.Apply(t.Context(), object("a", 1))
				require.ErrorContains(t, err, c.err.Error())
				synctest.Wait()
				require.Equal(t, before, dump(t, e.store))
				require.Empty(t, d.all())
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Zero(t, st.Unfinished)
				require.Zero(t, st.Busy)

				e.store.refusing(nil)
				require.NoError(t, e.finish(object("a", 1)).Err(), "its worker and slot are free again")
			})
		})
	}
}

func TestRule08ACommitThatHappenedThoughItWasReportedUnknownCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &forgetful{tap: &tap{Store: newEngine(t, conveyor.Options{}).store.Store}}
		e := newEngineOn(t, st, conveyor.Options{}).start()
		d := recording(taking(time.Second))
		e.driver("d", d)
		e.pipeline("d", "d", "d")
		st.forgets = true
		require.NoError(t, e.finish(object("a", 1)).Err())
		require.NoError(t, e.finish(object("a", 2)).Err())
		require.Equal(t, []string{"1", "2", "3", "1", "2", "3"}, d.steps())
		require.EqualValues(t, 2, e.resource(object("a", nil)).Generation)
	})
}

// forgetful does not know of any commit whether it happened; all do.
type forgetful struct {
	*tap
	forgets bool
}

func (s *forgetful) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	rev, err := s.tap.Commit(ctx, ops...)
	if err == nil && s.forgets {
		return 0, store.ErrUnknown
	}
	return rev, err
}

func TestRule09ARunOfNStepsTakesNPlusOneCommits(t *testing.T) {
	for _, steps := range []int{1, 2, 5, 20} {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("d", driverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					req.Log.Info("hello")
					return conveyor.DoneWith("out"), nil
				}))
				e.pipeline(slices.Repeat([]string{"d"}, steps)...)
				run := e.finish(object("a", 1))
				require.NoError(t, run.Err())
				require.Equal(t, steps+1, e.store.commitsOf(run.ID))
			})
		})
	}
}

func TestRule09ARunThatHadToQueueTakesOneCommitMore(t *testing.T) {
	for _, c := range []struct {
		name string
		opts conveyor.Options
		only int // slots of the driver
		prev string
	}{
		{"behind a run of its resource", conveyor.Options{}, 0, "a"},
		{"for a worker", conveyor.Options{Workers: 1}, 0, "b"},
		{"for a slot of its driver", conveyor.Options{}, 1, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, c.opts).start()
				e.driver("d", driverOf(taking(time.Second)), conveyor.Concurrency(c.only))
				e.pipeline("d", "d", "d")
				e.pipelineNamed("q", "d")
				before := object(c.prev, 0)
				before.Pipeline = "q"
				e.apply(before)
				synctest.Wait()
				run := e.apply(object("a", 1))
				require.Equal(t, conveyor.StateQueued, run.State)
				require.NoError(t, e.ended(run.ID).Err())
				require.Equal(t, 3+2, e.store.commitsOf(run.ID))
			})
		})
	}
}

func TestRule09ARunAppliedBeforeTheStartTakesOneCommitMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{})
		e.driver("d", new(recorder))
		e.pipeline("d", "d", "d")
		run := e.apply(object("a", 1))
		require.Equal(t, conveyor.StateQueued, run.State)
		e.start()
		require.NoError(t, e.ended(run.ID).Err())
		require.Equal(t, 3+2, e.store.commitsOf(run.ID))
	})
}

func TestRule09TheEndOfAStepAndTheStartOfTheNextAreOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(taking(time.Second)))
		e.pipeline("d", "d")
		for event, err := range e.Watch(t.Context(), conveyor.WatchOptions{Run: e.apply(object("a", 1)).ID}) {
			require.NoError(t, err)
			if event.Kind == conveyor.EventRun && event.State.Final() {
				break
			}
			run := e.run(event.Run)
			require.Contains(t, []string{"running ", "succeeded running", "succeeded succeeded"}, strings.ReplaceAll(strings.Join(statesOf(run), " "), "unset", ""))
			require.Equal(t, run.Steps[1].State == conveyor.StateSucceeded, run.State == conveyor.StateSucceeded)
		}
	})
}

func TestRule10WaitingHoldsNoWorkerAndNoSlot(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer driverFunc
		state  conveyor.State
	}{
		{"for a retry", always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom)), conveyor.StateRetrying},
		{"for a requeue", always(conveyor.RequeueAfter(time.Hour), nil), conveyor.StateWaiting},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{Workers: 1}).start()
				e.driver("d", driverOf(inTurn(c.answer, always(conveyor.Done(), nil))), conveyor.Concurrency(1))
				e.driver("e", new(recorder), conveyor.Concurrency(1))
				e.pipeline("d")
				run := e.apply(object("a", 1))
				synctest.Wait()
				require.Equal(t, c.state, e.run(run.ID).State)
				require.Equal(t, time.Now().Add(time.Hour).UTC(), e.run(run.ID).Steps[0].Due)
				require.NoError(t, e.finish(object("b", 1)).Err(), "the only worker and the only slot are free")
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Equal(t, conveyor.Stats{
					Unfinished: 1, Due: 1, Workers: 1,
					Runs: map[conveyor.State]int{c.state: 1}, Ended: map[conveyor.State]int64{conveyor.StateSucceeded: 1},
					Blocked: map[string]int{}, Slots: map[string]conveyor.DriverStats{"d": {Limit: 1}, "e": {Limit: 1}},
					Pipelines: map[string]conveyor.PipelineStats{"p": {AtWork: 1}},
				}, st)
				require.NoError(t, e.ended(run.ID).Err())
			})
		})
	}
}

func TestRule10TenThousandWaitingRunsNeedNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 10_000
		e := newEngine(t, conveyor.Options{}).start()
		again := time.Now().Add(time.Hour)
		e.driver("retry", driverOf(always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom))))
		e.driver("requeue", driverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			return conveyor.RequeueAfter(time.Until(again)), nil
		}))
		e.pipeline("retry")
		e.pipelineNamed("q", "requeue")
		synctest.Wait()
		// A goroutine that has just ended may still be counted for a moment.
		few := runtime.NumGoroutine() + 5
		for i := range many {
			o := object(fmt.Sprint("n", i), nil)
			o.Pipeline = []string{"p", "q"}[i%2]
			e.apply(o)
		}
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), few)
		st, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, many, st.Due)
		require.Zero(t, st.Busy)
	})
}

func TestRule11AMissingDriverBlocksTheRunUntilItIsRegistered(t *testing.T) {
	begun := func(r *rig) *rig {
		r.driver("here", new(recorder))
		return r.start()
	}
	opts := conveyor.Options{Workers: 1}
	for _, c := range []struct {
		name    string
		restart func(*rig) *rig
	}{
		{"in the same engine", func(r *rig) *rig { return r }},
		{"after a restart", func(r *rig) *rig { return begun(r.reborn(opts)) }},
		{"after a crash", func(r *rig) *rig { return begun(r.crashed(opts)) }},
		{"after two restarts", func(r *rig) *rig { return begun(begun(r.reborn(opts)).reborn(opts)) }},
	} {
		for _, order := range [][]string{{"missing", "here"}, {"here", "missing"}} {
			t.Run(fmt.Sprint(c.name, ", steps ", order), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := begun(newEngine(t, opts))
					e.pipeline(order...)
					e.pipelineNamed("q", "here")
					run := e.apply(object("a", 1))
					requireBlocked := func() {
						t.Helper()
						synctest.Wait()
						blocked := e.run(run.ID)
						require.Equal(t, conveyor.StateBlocked, blocked.State)
						require.Contains(t, blocked.Reason, `driver "missing" is not registered`)
						other := object("b", time.Now().String())
						other.Pipeline = "q"
						require.NoError(t, e.finish(other).Err(), "others go on")
						synctest.Wait()
						st, err := e.Stats(t.Context())
						require.NoError(t, err)
						require.Equal(t, map[string]int{`driver "missing" is not registered`: 1}, st.Blocked)
						require.Zero(t, st.Busy)
					}
					requireBlocked()
					time.Sleep(time.Hour)
					e = c.restart(e)
					requireBlocked()
					late := new(recorder)
					e.driver("missing", late)
					require.NoError(t, e.ended(run.ID).Err())
					require.Len(t, late.all(), 1)
					require.Equal(t, 1, late.last().Attempt)
					require.False(t, late.last().Resumed)
					synctest.Wait()
					st, err := e.Stats(t.Context())
					require.NoError(t, err)
					require.Empty(t, st.Blocked)
				})
			})
		}
	}
}

// pipelineNamed saves a pipeline like [rig.pipeline] under another name.
func (r *rig) pipelineNamed(name string, drivers ...string) {
	r.t.Helper()
	p := pipelineOf(drivers...)
	p.Name = name
	r.save(p)
}

func TestRule11AStepInFlightWhoseDriverIsMissingAfterTheCrashIsResumedOnceItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		before := recording(taking(time.Hour))
		e.driver("d", before)
		e.pipeline("d")
		run := e.apply(object("a", 1))
		synctest.Wait()
		e = e.crashed(conveyor.Options{}).start()
		synctest.Wait()
		require.Equal(t, conveyor.StateBlocked, e.run(run.ID).State)
		after := new(recorder)
		e.driver("d", after)
		require.NoError(t, e.ended(run.ID).Err())
		require.Equal(t, []string{"1+"}, after.steps())
		require.Equal(t, before.last().Key, after.last().Key)
	})
}

func TestRule11OneBadRecordDoesNotStopTheOthers(t *testing.T) {
	for _, c := range []struct {
		name string
		key  func(run string) string
		op   func(key string) store.Op
	}{
		{"a run that is no JSON", func(run string) string { return "run/" + run }, garble},
		{"a run that is gone", func(run string) string { return "run/" + run }, store.Delete},
		{"a run in a state that nobody knows", func(run string) string { return "run/" + run }, replaceBy(`{"state":"confused","started":1}`)},
		{"a step that is no JSON", func(run string) string { return "stp/" + run + "/1" }, garble},
		{"a step that the pipeline has not", func(run string) string { return "stp/" + run + "/99" }, garble},
		{"a resource that is no JSON", func(string) string { return "res/r/bad" }, garble},
		{"a resource that is gone", func(string) string { return "res/r/bad" }, store.Delete},
		{"a generation that is gone", func(string) string { return "rev/r/bad/0000000000000001" }, store.Delete},
		{"a log that is no JSON", func(run string) string { return "log/" + run + "/0000000000000001" }, garble},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("d", driverOf(taking(time.Hour)))
				e.pipeline("d", "d")
				bad := e.apply(object("bad", 1))
				good := []*conveyor.Run{e.apply(object("a", 1)), e.apply(object("z", 1))}
				synctest.Wait()
				e = e.crashed(conveyor.Options{Workers: 1})
				_, err := e.store.Commit(t.Context(), c.op(c.key(bad.ID)))
				require.NoError(t, err)
				e.driver("d", new(recorder))
				e.start()
				for _, run := range good {
					require.NoError(t, e.ended(run.ID).Err())
				}
				require.NoError(t, e.finish(object("new", 1)).Err())
				synctest.Wait()
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Zero(t, st.Busy)
				require.Zero(t, st.Ready)
			})
		})
	}
}

func garble(key string) store.Op { return store.Put(key, []byte(`{"state":`)) }

func replaceBy(value string) func(string) store.Op {
	return func(key string) store.Op { return store.Put(key, []byte(value)) }
}

func TestRule11RecordsOfANewerFormatAreLeftAlone(t *testing.T) {
	e := newEngine(t, conveyor.Options{})
	_, err := e.store.Commit(t.Context(), store.Put("format", []byte(`{"format":2}`)))
	require.NoError(t, err)
	require.ErrorIs(t, e.Start(t.Context()), store.ErrCorrupt)
}

func TestRule11ADifferentBuildOfTheProgramGoesOnJustAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("a", driverOf(always(conveyor.DoneWith("from a"), nil)))
		e.driver("b", driverOf(taking(time.Hour)))
		e.driver("gone", new(recorder), conveyor.Listen("r"))
		p := pipelineOf("a", "b", "c")
		p.Steps[2].With = []byte(`{"old":true}`)
		e.save(p)
		run := e.apply(object("x", 1))
		queued := e.apply(object("x", 2))
		synctest.Wait()

		e = e.crashed(conveyor.Options{Workers: 1, Limits: conveyor.Limits{Steps: 1, Spec: 1, Output: 1}})
		b, c, n := new(recorder), recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var out string
			if err := req.Output("1", &out); err != nil || out != "from a" {
				return conveyor.Result{}, fmt.Errorf("output %q: %w", out, err)
			}
			if string(req.Step.With) != `{"old":true}` {
				return conveyor.Result{}, errors.New(string(req.Step.With))
			}
			return conveyor.Done(), nil
		}), new(recorder)
		e.driver("c", c)
		e.driver("b", b, conveyor.Concurrency(1), conveyor.Listen("q"))
		e.driver("n", n)
		e.pipeline("n")
		e.start()
		require.NoError(t, e.ended(run.ID).Err())
		require.Equal(t, []string{"2+"}, b.steps())
		require.Equal(t, []string{"3"}, c.steps())
		next := e.ended(queued.ID)
		require.NoError(t, next.Err())
		require.EqualValues(t, 2, next.Generation)
		require.Equal(t, []string{"1"}, n.steps())
	})
}

func TestRule12AttemptsAndDueTimesSurviveARestart(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer driverFunc // of the first call; the next is due an hour later
		down   time.Duration
		up     time.Duration // when the second call is made
		steps  []string
	}{
		{"retry, back before it is due", always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom)), 40 * time.Minute, time.Hour, []string{"1/2"}},
		{"retry, back after it was due", always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom)), 3 * time.Hour, 3 * time.Hour, []string{"1/2"}},
		{"requeue, back before it is due", always(conveyor.RequeueAfter(time.Hour), nil), 40 * time.Minute, time.Hour, []string{"1"}},
		{"requeue, back after it was due", always(conveyor.RequeueAfter(time.Hour), nil), 3 * time.Hour, 3 * time.Hour, []string{"1"}},
	} {
		for _, die := range []func(*rig, conveyor.Options) *rig{(*rig).reborn, (*rig).crashed} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					began := time.Now()
					e := newEngine(t, conveyor.Options{}).start()
					e.driver("d", driverOf(c.answer))
					e.pipeline("d")
					run := e.apply(object("a", 1))
					synctest.Wait()
					e = die(e, conveyor.Options{})
					time.Sleep(c.down)
					d := new(recorder)
					e.driver("d", d)
					e.start()
					require.NoError(t, e.ended(run.ID).Err())
					require.Equal(t, c.steps, d.steps())
					require.Equal(t, began.Add(c.up), d.last().Began)
				})
			})
		}
	}
}

func TestRule12TheNumberOfAttemptsHoldsAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := recording(always(conveyor.Done(), conveyor.RetryAfter(time.Hour, errBoom)))
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", d)
		p := pipelineOf("d")
		p.Retry = &conveyor.RetryPolicy{MaxAttempts: 4}
		e.save(p)
		id := e.apply(object("a", 1)).ID
		for i := range 3 {
			synctest.Wait()
			require.Equal(t, conveyor.StateRetrying, e.run(id).State)
			e = []func(*rig, conveyor.Options) *rig{(*rig).reborn, (*rig).crashed}[i%2](e, conveyor.Options{})
			time.Sleep(time.Hour)
			e.driver("d", d)
			e.start()
		}
		run := e.ended(id)
		require.Equal(t, conveyor.StateFailed, run.State)
		require.Equal(t, []string{"1", "1/2", "1/3", "1/4"}, d.steps())
		require.Len(t, run.Steps[0].Attempts, 4)
	})
}

func TestRule12TheDeadlineOfARunSurvivesARestart(t *testing.T) {
	for _, c := range []struct {
		name string
		down time.Duration
		ends time.Duration
	}{
		{"back before it", 20 * time.Minute, time.Hour},
		{"back after it", 2 * time.Hour, 2 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				e := newEngine(t, conveyor.Options{}).start()
				d := recording(always(conveyor.RequeueAfter(24*time.Hour), nil))
				e.driver("d", d)
				p := pipelineOf("d")
				p.Timeout = conveyor.Duration(time.Hour)
				e.save(p)
				id := e.apply(object("a", 1)).ID
				synctest.Wait()
				e = e.reborn(conveyor.Options{})
				time.Sleep(c.down)
				e.driver("d", d)
				e.start()
				run := e.ended(id)
				require.Equal(t, conveyor.StateFailed, run.State)
				require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				require.Equal(t, began.Add(c.ends).UTC(), run.EndedAt)
				require.Len(t, d.all(), 1)
			})
		})
	}
}

func TestRule12AShutdownUsesNoAttemptHoweverOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		d := recording(taking(time.Hour))
		e.driver("d", d)
		e.pipeline("d")
		id := e.apply(object("a", 1)).ID
		for range 20 { // far more than the limit of deaths
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			require.NoError(t, e.Shutdown(ctx))
			cancel()
			run := e.run(id)
			require.Equal(t, "queued", run.Steps[0].State.String())
			e = e.reborn(conveyor.Options{})
			e.driver("d", d)
			e.start()
		}
		run := e.ended(id)
		require.NoError(t, run.Err())
		require.Equal(t, 20, run.Steps[0].Interruptions)
		require.Equal(t, 1, run.Steps[0].Attempt)
		require.Equal(t, "1+", d.steps()[20])
	})
}

func TestRule12AStepUnderWhichTheProcessKeepsDyingFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits conveyor.Limits
		deaths int
	}{
		{"five times by default", conveyor.Limits{}, 5},
		{"as often as the limit says", conveyor.Limits{Interruptions: 2}, 2},
	} {
		for _, more := range []int{0, 1} {
			t.Run(fmt.Sprint(c.name, ", and ", more, " more"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					opts := conveyor.Options{Limits: c.limits}
					d, rest := recording(taking(time.Hour)), new(recorder)
					e := newEngine(t, opts).start()
					e.driver("d", d)
					e.driver("rest", rest)
					e.pipeline("rest", "d", "rest")
					id := e.apply(object("a", 1)).ID
					for range c.deaths + more {
						synctest.Wait()
						e = e.crashed(opts)
						e.driver("d", d)
						e.driver("rest", rest)
						e.start()
					}
					run := e.ended(id)
					calls := c.deaths + 1 // with more deaths, the last start calls no more
					require.Len(t, d.all(), calls)
					require.Equal(t, []string{"succeeded", "failed"}[more], run.State.String())
					require.Equal(t, []string{"", "interrupted"}[more], strings.Fields(run.Steps[1].Reason + " -")[0][:len([]string{"", "interrupted"}[more])])
					require.Equal(t, c.deaths+more, run.Steps[1].Interruptions)
					require.Equal(t, 1, run.Steps[1].Attempt)
				})
			})
		}
	}
}

func TestRule12DeathsAreCountedForEachStepAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := conveyor.Options{Limits: conveyor.Limits{Interruptions: 2}}
		d := recording(taking(time.Minute))
		e := newEngine(t, opts).start()
		e.driver("d", d)
		e.pipeline("d", "d", "d")
		id := e.apply(object("a", 1)).ID
		for range 3 {
			for range 2 {
				time.Sleep(30 * time.Second)
				e = e.crashed(opts)
				e.driver("d", d)
				e.start()
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		require.NoError(t, e.ended(id).Err())
	})
}

func TestRule12WhatWasQueuedIsTakenUpAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{Workers: 1}).start()
		e.driver("d", driverOf(taking(time.Hour)))
		e.pipeline("d")
		var ids []string
		for i := range 50 {
			ids = append(ids, e.apply(object(fmt.Sprint("n", i), i)).ID)
		}
		e = e.crashed(conveyor.Options{Workers: 1})
		d := new(recorder)
		e.driver("d", d)
		e.start()
		for _, id := range ids {
			require.NoError(t, e.ended(id).Err())
		}
		require.Len(t, d.all(), 50)
	})
}

func TestRule11AStartThatFailsMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{})
		d := new(recorder)
		e.driver("d", d)
		require.ErrorIs(t, e.Register("d", d), conveyor.ErrExists)
		e.pipeline("d")
		run := e.apply(object("a", 1))
		canceled := e.apply(object("b", 1))
		require.NoError(t, e.Cancel(t.Context(), canceled.ID, "before the start"))
		require.Equal(t, conveyor.StateCanceled, e.ended(canceled.ID).State)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, e.Start(ended), context.Canceled)
		e.store.refusing(func([]string) error { return errBoom })
		require.ErrorIs(t, e.Start(t.Context()), errBoom)
		e.store.refusing(nil)
		e.start()
		require.ErrorIs(t, e.Start(t.Context()), conveyor.ErrConflict)
		require.NoError(t, e.ended(run.ID).Err())
		require.Len(t, d.all(), 1)
	})
}

func TestRule11NoAcknowledgedApplyIsLostInAShutdown(t *testing.T) {
	for round := range 20 {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine(t, conveyor.Options{Workers: 3}).start()
			d := recording(taking(3 * time.Millisecond))
			e.driver("d", d)
			e.pipeline("d", "d")
			acknowledged := make(chan string, 1000)
			var applying sync.WaitGroup
			for i := range 4 {
				applying.Go(func() {
					for n := 0; ; n++ {
						run, err := e.Apply(t.Context(), object(fmt.Sprint("n", i, "-", n%5), n))
						if err != nil {
							require.ErrorIs(t, err, conveyor.ErrClosed)
							return
						}
						acknowledged <- run.ID
						time.Sleep(time.Millisecond)
					}
				})
			}
			time.Sleep(time.Duration(10+round) * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(round+1)*time.Millisecond)
			defer cancel()
			require.NoError(t, e.Shutdown(ctx))
			applying.Wait()
			close(acknowledged)
			e = e.reborn(conveyor.Options{})
			e.driver("d", d)
			e.start()
			for id := range acknowledged {
				require.NoError(t, e.ended(id).Err())
			}
			for _, o := range drain(t, e.List(t.Context(), conveyor.ResourceFilter{})) {
				require.Equal(t, o.Generation, o.Status.ObservedGeneration)
			}
		})
	}
}
