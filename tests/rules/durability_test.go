package rules_test

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
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

func TestRule08AnAttemptIsOnRecordBeforeItsDriverIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		var saw []string
		e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			s := e.MustGetRun(req.Run).Step(req.Step.ID)
			saw = append(saw, fmt.Sprint(req.Attempt, " ", s.State, " ", s.Attempt, " ", s.StartedAt.Equal(time.Now())))
			if req.Step.ID == "2" && req.Attempt == 1 {
				return conveyor.Done(), rig.ErrBoom
			}
			return conveyor.Done(), nil
		}))
		e.Pipeline("d", "d")
		require.NoError(t, e.Finish(rig.Object("a", nil)).Err())
		require.Equal(t, []string{"1 running 1 true", "1 running 1 true", "2 running 2 true"}, saw)
	})
}

func TestRule08AFinishedStepIsNeverCalledAgainAndOneInFlightIs(t *testing.T) {
	for step := 1; step <= 3; step++ {
		for _, c := range []struct {
			name string
			die  func(*rig.Engine, conveyor.Options) *rig.Engine
		}{
			{"crash", (*rig.Engine).Crashed},
			{"shutdown", func(r *rig.Engine, o conveyor.Options) *rig.Engine {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				require.NoError(r.T, r.Shutdown(ctx))
				return r.Reborn(o)
			}},
		} {
			t.Run(fmt.Sprintf("%s in step %d", c.name, step), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := rig.New(t, conveyor.Options{}).MustStart()
					before := rig.Recording(rig.Taking(time.Minute))
					e.Driver("d", before)
					e.Pipeline("d", "d", "d")
					id := e.MustApply(rig.Object("a", 1)).ID
					time.Sleep(time.Duration(step)*time.Minute - 30*time.Second)
					require.Len(t, before.All(), step)

					e = c.die(e, conveyor.Options{})
					after := rig.Recording(rig.Taking(time.Minute))
					e.Driver("d", after)
					e.MustStart()
					run := e.Ended(id)
					require.NoError(t, run.Err())
					want := []string{"1+", "2+", "3+"}[step-1 : step]
					want = append(want, []string{"2", "3"}[step-1:]...)
					require.Equal(t, want, after.Steps())
					require.Equal(t, before.Last().Key, after.All()[0].Key)
					require.Equal(t, 1, after.All()[0].Attempt)
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
		{"with an error", rig.ErrBoom},
		{"with an unknown outcome", store.ErrUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				d := rig.Recording(rig.Taking(time.Second))
				e.Driver("d", d)
				e.Pipeline("d", "d", "d")
				run := e.MustApply(rig.Object("a", 1))
				from := time.Now()
				e.Store.Refusing(func([]string) error {
					if time.Since(from) < time.Hour {
						return c.err
					}
					return nil
				})
				require.NoError(t, e.Ended(run.ID).Err())
				require.Equal(t, []string{"1", "2", "3"}, d.Steps())
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
		{"with an error", rig.ErrBoom},
		{"with an unknown outcome", store.ErrUnknown},
		{"closed", store.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
				d := new(rig.Recorder)
				e.Driver("d", d, conveyor.Concurrency(1))
				e.Pipeline("d")
				before := rig.Dump(t, e.Store)
				e.Store.Refusing(func([]string) error { return c.err })
				_, err := e.Apply(t.Context(), rig.Object("a", 1))
				require.ErrorContains(t, err, c.err.Error())
				synctest.Wait()
				require.Equal(t, before, rig.Dump(t, e.Store))
				require.Empty(t, d.All())
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Zero(t, st.Unfinished)
				require.Zero(t, st.Busy)

				e.Store.Refusing(nil)
				require.NoError(t, e.Finish(rig.Object("a", 1)).Err(), "its worker and slot are free again")
			})
		})
	}
}

func TestRule08ACommitThatHappenedThoughItWasReportedUnknownCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &forgetful{Tap: &rig.Tap{Store: rig.New(t, conveyor.Options{}).Store.Store}}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.Taking(time.Second))
		e.Driver("d", d)
		e.Pipeline("d", "d", "d")
		st.forgets = true
		require.NoError(t, e.Finish(rig.Object("a", 1)).Err())
		require.NoError(t, e.Finish(rig.Object("a", 2)).Err())
		require.Equal(t, []string{"1", "2", "3", "1", "2", "3"}, d.Steps())
		require.EqualValues(t, 2, e.MustGet(rig.Object("a", nil)).Generation)
	})
}

// forgetful does not know of any commit whether it happened; all do.
type forgetful struct {
	*rig.Tap
	forgets bool
}

func (s *forgetful) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	rev, err := s.Tap.Commit(ctx, ops...)
	if err == nil && s.forgets {
		return 0, store.ErrUnknown
	}
	return rev, err
}

func TestRule09ARunOfNStepsTakesNPlusOneCommits(t *testing.T) {
	for _, steps := range []int{1, 2, 5, 20} {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					req.Log.Info("hello")
					return conveyor.DoneWith("out"), nil
				}))
				e.Pipeline(slices.Repeat([]string{"d"}, steps)...)
				run := e.Finish(rig.Object("a", 1))
				require.NoError(t, run.Err())
				require.Equal(t, steps+1, e.Store.CommitsOf(run.ID))
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
				e := rig.New(t, c.opts).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Second)), conveyor.Concurrency(c.only))
				e.Pipeline("d", "d", "d")
				e.PipelineNamed("q", "d")
				before := rig.Object(c.prev, 0)
				before.Pipeline = "q"
				e.MustApply(before)
				synctest.Wait()
				run := e.MustApply(rig.Object("a", 1))
				require.Equal(t, conveyor.StateQueued, run.State)
				require.NoError(t, e.Ended(run.ID).Err())
				require.Equal(t, 3+2, e.Store.CommitsOf(run.ID))
			})
		})
	}
}

func TestRule09ARunAppliedBeforeTheStartTakesOneCommitMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d", "d", "d")
		run := e.MustApply(rig.Object("a", 1))
		require.Equal(t, conveyor.StateQueued, run.State)
		e.MustStart()
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, 3+2, e.Store.CommitsOf(run.ID))
	})
}

func TestRule09TheEndOfAStepAndTheStartOfTheNextAreOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
		e.Pipeline("d", "d")
		for event, err := range e.Watch(t.Context(), conveyor.WatchOptions{Run: e.MustApply(rig.Object("a", 1)).ID}) {
			require.NoError(t, err)
			if event.Kind == conveyor.EventRun && event.State.Final() {
				break
			}
			run := e.MustGetRun(event.Run)
			require.Contains(t, []string{"running ", "succeeded running", "succeeded succeeded"}, strings.ReplaceAll(strings.Join(rig.StatesOf(run), " "), "pending", ""))
			require.Equal(t, run.Steps[1].State == conveyor.StateSucceeded, run.State == conveyor.StateSucceeded)
		}
	})
}

func TestRule10WaitingHoldsNoWorkerAndNoSlot(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer rig.Func
		state  conveyor.State
	}{
		{"for a retry", rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)), conveyor.StateRetrying},
		{"for a requeue", rig.Always(conveyor.RequeueAfter(time.Hour), nil), conveyor.StateWaiting},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
				e.Driver("d", rig.DriverOf(rig.InTurn(c.answer, rig.Always(conveyor.Done(), nil))), conveyor.Concurrency(1))
				e.Driver("e", new(rig.Recorder), conveyor.Concurrency(1))
				e.Pipeline("d")
				run := e.MustApply(rig.Object("a", 1))
				synctest.Wait()
				require.Equal(t, c.state, e.MustGetRun(run.ID).State)
				require.Equal(t, time.Now().Add(time.Hour).UTC(), e.MustGetRun(run.ID).Steps[0].Due)
				require.NoError(t, e.Finish(rig.Object("b", 1)).Err(), "the only worker and the only slot are free")
				synctest.Wait()
				st, err := e.Stats(t.Context())
				require.NoError(t, err)
				require.Equal(t, conveyor.Stats{
					Unfinished: 1, Due: 1, Workers: 1,
					Runs: map[conveyor.State]int{c.state: 1}, Ended: map[conveyor.State]int64{conveyor.StateSucceeded: 1},
					Blocked: map[string]int{}, Slots: map[string]conveyor.DriverStats{"d": {Limit: 1}, "e": {Limit: 1}},
					Pipelines: map[string]conveyor.PipelineStats{"p": {AtWork: 1}},
				}, st)
				require.NoError(t, e.Ended(run.ID).Err())
			})
		})
	}
}

func TestRule10TenThousandWaitingRunsNeedNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 10_000
		e := rig.New(t, conveyor.Options{}).MustStart()
		again := time.Now().Add(time.Hour)
		e.Driver("retry", rig.DriverOf(rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom))))
		e.Driver("requeue", rig.DriverOf(func(context.Context, *conveyor.Request) (conveyor.Result, error) {
			return conveyor.RequeueAfter(time.Until(again)), nil
		}))
		e.Pipeline("retry")
		e.PipelineNamed("q", "requeue")
		synctest.Wait()
		// A goroutine that has just ended may still be counted for a moment.
		few := runtime.NumGoroutine() + 5
		for i := range many {
			o := rig.Object(fmt.Sprint("n", i), nil)
			o.Pipeline = []string{"p", "q"}[i%2]
			e.MustApply(o)
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
	begun := func(r *rig.Engine) *rig.Engine {
		r.Driver("here", new(rig.Recorder))
		return r.MustStart()
	}
	opts := conveyor.Options{Workers: 1}
	for _, c := range []struct {
		name    string
		restart func(*rig.Engine) *rig.Engine
	}{
		{"in the same engine", func(r *rig.Engine) *rig.Engine { return r }},
		{"after a restart", func(r *rig.Engine) *rig.Engine { return begun(r.Reborn(opts)) }},
		{"after a crash", func(r *rig.Engine) *rig.Engine { return begun(r.Crashed(opts)) }},
		{"after two restarts", func(r *rig.Engine) *rig.Engine { return begun(begun(r.Reborn(opts)).Reborn(opts)) }},
	} {
		for _, order := range [][]string{{"missing", "here"}, {"here", "missing"}} {
			t.Run(fmt.Sprint(c.name, ", steps ", order), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := begun(rig.New(t, opts))
					e.Pipeline(order...)
					e.PipelineNamed("q", "here")
					run := e.MustApply(rig.Object("a", 1))
					requireBlocked := func() {
						t.Helper()
						synctest.Wait()
						blocked := e.MustGetRun(run.ID)
						require.Equal(t, conveyor.StateBlocked, blocked.State)
						require.Contains(t, blocked.Reason, `driver "missing" is not registered`)
						other := rig.Object("b", time.Now().String())
						other.Pipeline = "q"
						require.NoError(t, e.Finish(other).Err(), "others go on")
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
					late := new(rig.Recorder)
					e.Driver("missing", late)
					require.NoError(t, e.Ended(run.ID).Err())
					require.Len(t, late.All(), 1)
					require.Equal(t, 1, late.Last().Attempt)
					require.False(t, late.Last().Resumed)
					synctest.Wait()
					st, err := e.Stats(t.Context())
					require.NoError(t, err)
					require.Empty(t, st.Blocked)
				})
			})
		}
	}
}

func TestRule11AStepInFlightWhoseDriverIsMissingAfterTheCrashIsResumedOnceItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		before := rig.Recording(rig.Taking(time.Hour))
		e.Driver("d", before)
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		synctest.Wait()
		e = e.Crashed(conveyor.Options{}).MustStart()
		synctest.Wait()
		require.Equal(t, conveyor.StateBlocked, e.MustGetRun(run.ID).State)
		after := new(rig.Recorder)
		e.Driver("d", after)
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, []string{"1+"}, after.Steps())
		require.Equal(t, before.Last().Key, after.Last().Key)
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
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
				e.Pipeline("d", "d")
				bad := e.MustApply(rig.Object("bad", 1))
				good := []*conveyor.Run{e.MustApply(rig.Object("a", 1)), e.MustApply(rig.Object("z", 1))}
				synctest.Wait()
				e = e.Crashed(conveyor.Options{Workers: 1})
				_, err := e.Store.Commit(t.Context(), c.op(c.key(bad.ID)))
				require.NoError(t, err)
				e.Driver("d", new(rig.Recorder))
				e.MustStart()
				for _, run := range good {
					require.NoError(t, e.Ended(run.ID).Err())
				}
				require.NoError(t, e.Finish(rig.Object("new", 1)).Err())
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
	e := rig.New(t, conveyor.Options{})
	_, err := e.Store.Commit(t.Context(), store.Put("format", []byte(`{"format":4}`)))
	require.NoError(t, err)
	require.ErrorIs(t, e.Start(t.Context()), store.ErrCorrupt)
	before := rig.Dump(t, e.Store.Store)
	require.ErrorIs(t, e.SavePipeline(t.Context(), rig.PipelineOf("d")), store.ErrCorrupt)
	require.Equal(t, before, rig.Dump(t, e.Store.Store))
}

func TestRule11RecordsOfAnOlderFormatAreContinuedInThePresentOne(t *testing.T) {
	for _, c := range []struct {
		name  string
		first func(e *rig.Engine)
	}{
		{"before the first pause that an older program would ignore", func(e *rig.Engine) {
			require.NoError(e.T, e.Pause(e.T.Context(), conveyor.Target{All: true}, ""))
		}},
		{"at the start", func(e *rig.Engine) { e.MustStart() }},
		{"before the first definition that an older program would misread", func(e *rig.Engine) { e.Pipeline("d") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{})
			_, err := e.Store.Commit(t.Context(), store.Put("format", []byte(`{"format":2}`)))
			require.NoError(t, err)
			c.first(e)
			format, err := e.Store.Get(t.Context(), "format")
			require.NoError(t, err)
			require.JSONEq(t, `{"format":3}`, string(format.Value))
		})
	}
}

func TestRule11ADifferentBuildOfTheProgramGoesOnJustAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("a", rig.DriverOf(rig.Always(conveyor.DoneWith("from a"), nil)))
		e.Driver("b", rig.DriverOf(rig.Taking(time.Hour)))
		e.Driver("gone", new(rig.Recorder), conveyor.Listen("r"))
		p := rig.PipelineOf("a", "b", "c")
		p.Steps[2].With = []byte(`{"old":true}`)
		e.Save(p)
		run := e.MustApply(rig.Object("x", 1))
		queued := e.MustApply(rig.Object("x", 2))
		synctest.Wait()

		e = e.Crashed(conveyor.Options{Workers: 1, Limits: conveyor.Limits{Steps: 1, Spec: 1, Output: 1}})
		b, c, n := new(rig.Recorder), rig.Recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var out string
			if err := req.Output("1", &out); err != nil || out != "from a" {
				return conveyor.Result{}, fmt.Errorf("output %q: %w", out, err)
			}
			if string(req.Step.With) != `{"old":true}` {
				return conveyor.Result{}, errors.New(string(req.Step.With))
			}
			return conveyor.Done(), nil
		}), new(rig.Recorder)
		e.Driver("c", c)
		e.Driver("b", b, conveyor.Concurrency(1), conveyor.Listen("q"))
		e.Driver("n", n)
		e.Pipeline("n")
		e.MustStart()
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, []string{"2+"}, b.Steps())
		require.Equal(t, []string{"3"}, c.Steps())
		next := e.Ended(queued.ID)
		require.NoError(t, next.Err())
		require.EqualValues(t, 2, next.Generation)
		require.Equal(t, []string{"1"}, n.Steps())
	})
}

func TestRule12AttemptsAndDueTimesSurviveARestart(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer rig.Func // of the first call; the next is due an hour later
		down   time.Duration
		up     time.Duration // when the second call is made
		steps  []string
	}{
		{"retry, back before it is due", rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)), 40 * time.Minute, time.Hour, []string{"1/2"}},
		{"retry, back after it was due", rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)), 3 * time.Hour, 3 * time.Hour, []string{"1/2"}},
		{"requeue, back before it is due", rig.Always(conveyor.RequeueAfter(time.Hour), nil), 40 * time.Minute, time.Hour, []string{"1"}},
		{"requeue, back after it was due", rig.Always(conveyor.RequeueAfter(time.Hour), nil), 3 * time.Hour, 3 * time.Hour, []string{"1"}},
	} {
		for _, die := range []func(*rig.Engine, conveyor.Options) *rig.Engine{(*rig.Engine).Reborn, (*rig.Engine).Crashed} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					began := time.Now()
					e := rig.New(t, conveyor.Options{}).MustStart()
					e.Driver("d", rig.DriverOf(c.answer))
					e.Pipeline("d")
					run := e.MustApply(rig.Object("a", 1))
					synctest.Wait()
					e = die(e, conveyor.Options{})
					time.Sleep(c.down)
					d := new(rig.Recorder)
					e.Driver("d", d)
					e.MustStart()
					require.NoError(t, e.Ended(run.ID).Err())
					require.Equal(t, c.steps, d.Steps())
					require.Equal(t, began.Add(c.up), d.Last().Began)
				})
			})
		}
	}
}

func TestRule12TheNumberOfAttemptsHoldsAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := rig.Recording(rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Hour, rig.ErrBoom)))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", d)
		p := rig.PipelineOf("d")
		p.Retry = &conveyor.RetryPolicy{MaxAttempts: 4}
		e.Save(p)
		id := e.MustApply(rig.Object("a", 1)).ID
		for i := range 3 {
			synctest.Wait()
			require.Equal(t, conveyor.StateRetrying, e.MustGetRun(id).State)
			e = []func(*rig.Engine, conveyor.Options) *rig.Engine{(*rig.Engine).Reborn, (*rig.Engine).Crashed}[i%2](e, conveyor.Options{})
			time.Sleep(time.Hour)
			e.Driver("d", d)
			e.MustStart()
		}
		run := e.Ended(id)
		require.Equal(t, conveyor.StateFailed, run.State)
		require.Equal(t, []string{"1", "1/2", "1/3", "1/4"}, d.Steps())
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
				e := rig.New(t, conveyor.Options{}).MustStart()
				d := rig.Recording(rig.Always(conveyor.RequeueAfter(24*time.Hour), nil))
				e.Driver("d", d)
				p := rig.PipelineOf("d")
				p.Timeout = conveyor.Duration(time.Hour)
				e.Save(p)
				id := e.MustApply(rig.Object("a", 1)).ID
				synctest.Wait()
				e = e.Reborn(conveyor.Options{})
				time.Sleep(c.down)
				e.Driver("d", d)
				e.MustStart()
				run := e.Ended(id)
				require.Equal(t, conveyor.StateFailed, run.State)
				require.ErrorIs(t, run.Err(), conveyor.ErrTimeout)
				require.Equal(t, began.Add(c.ends).UTC(), run.EndedAt)
				require.Len(t, d.All(), 1)
			})
		})
	}
}

func TestRule12AShutdownUsesNoAttemptHoweverOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.Taking(time.Hour))
		e.Driver("d", d)
		e.Pipeline("d")
		id := e.MustApply(rig.Object("a", 1)).ID
		for range 20 { // far more than the limit of deaths
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			require.NoError(t, e.Shutdown(ctx))
			cancel()
			run := e.MustGetRun(id)
			require.Equal(t, "queued", run.Steps[0].State.String())
			e = e.Reborn(conveyor.Options{})
			e.Driver("d", d)
			e.MustStart()
		}
		run := e.Ended(id)
		require.NoError(t, run.Err())
		require.Equal(t, 20, run.Steps[0].Interruptions)
		require.Equal(t, 1, run.Steps[0].Attempt)
		require.Equal(t, "1+", d.Steps()[20])
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
					d, rest := rig.Recording(rig.Taking(time.Hour)), new(rig.Recorder)
					e := rig.New(t, opts).MustStart()
					e.Driver("d", d)
					e.Driver("rest", rest)
					e.Pipeline("rest", "d", "rest")
					id := e.MustApply(rig.Object("a", 1)).ID
					for range c.deaths + more {
						synctest.Wait()
						e = e.Crashed(opts)
						e.Driver("d", d)
						e.Driver("rest", rest)
						e.MustStart()
					}
					run := e.Ended(id)
					calls := c.deaths + 1 // with more deaths, the last start calls no more
					require.Len(t, d.All(), calls)
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
		d := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, opts).MustStart()
		e.Driver("d", d)
		e.Pipeline("d", "d", "d")
		id := e.MustApply(rig.Object("a", 1)).ID
		for range 3 {
			for range 2 {
				time.Sleep(30 * time.Second)
				e = e.Crashed(opts)
				e.Driver("d", d)
				e.MustStart()
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		require.NoError(t, e.Ended(id).Err())
	})
}

func TestRule12WhatWasQueuedIsTakenUpAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Workers: 1}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Hour)))
		e.Pipeline("d")
		var ids []string
		for i := range 50 {
			ids = append(ids, e.MustApply(rig.Object(fmt.Sprint("n", i), i)).ID)
		}
		e = e.Crashed(conveyor.Options{Workers: 1})
		d := new(rig.Recorder)
		e.Driver("d", d)
		e.MustStart()
		for _, id := range ids {
			require.NoError(t, e.Ended(id).Err())
		}
		require.Len(t, d.All(), 50)
	})
}

func TestRule11AStartThatFailsMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		d := new(rig.Recorder)
		e.Driver("d", d)
		require.ErrorIs(t, e.Register("d", d), conveyor.ErrExists)
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", 1))
		canceled := e.MustApply(rig.Object("b", 1))
		require.NoError(t, e.Cancel(t.Context(), canceled.ID, "before the start"))
		require.Equal(t, conveyor.StateCanceled, e.Ended(canceled.ID).State)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, e.Start(ended), context.Canceled)
		_, err := e.Store.Commit(t.Context(), store.Put("format", []byte(`{"format":1}`))) // so that a start commits something
		require.NoError(t, err)
		e.Store.Refusing(func([]string) error { return rig.ErrBoom })
		require.ErrorIs(t, e.Start(t.Context()), rig.ErrBoom)
		e.Store.Refusing(nil)
		e.MustStart()
		require.ErrorIs(t, e.Start(t.Context()), conveyor.ErrConflict)
		require.NoError(t, e.Ended(run.ID).Err())
		require.Len(t, d.All(), 1)
	})
}

func TestRule11NoAcknowledgedApplyIsLostInAShutdown(t *testing.T) {
	for round := range 20 {
		synctest.Test(t, func(t *testing.T) {
			e := rig.New(t, conveyor.Options{Workers: 3}).MustStart()
			d := rig.Recording(rig.Taking(3 * time.Millisecond))
			e.Driver("d", d)
			e.Pipeline("d", "d")
			acknowledged := make(chan string, 1000)
			var applying sync.WaitGroup
			for i := range 4 {
				applying.Go(func() {
					for n := 0; ; n++ {
						run, err := e.Apply(t.Context(), rig.Object(fmt.Sprint("n", i, "-", n%5), n))
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
			e = e.Reborn(conveyor.Options{})
			e.Driver("d", d)
			e.MustStart()
			for id := range acknowledged {
				require.NoError(t, e.Ended(id).Err())
			}
			for _, o := range rig.Drain(t, e.List(t.Context(), conveyor.ResourceFilter{})) {
				require.Equal(t, o.Generation, o.Status.ObservedGeneration)
			}
		})
	}
}
