package features_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store"
)

// targets are one target of each kind that holds the runs of pauseFixture's resource "a", and the steps "2" of all others.
var targets = []conveyor.Target{
	{All: true}, {Type: "r"}, {Pipeline: "p"}, {Driver: "second"}, {Resource: conveyor.Key{Type: "r", Name: "a"}},
}

// asAda is the context of calls that ada makes.
func asAda(t *testing.T) context.Context { return conveyor.As(t.Context(), "ada") }

func TestPauseHoldsWhatItNamesUntilResume(t *testing.T) {
	for _, target := range targets {
		t.Run(target.String(), func(t *testing.T) {
			eachStore(t, func(t *testing.T, st store.Store) {
				e := rig.NewOn(t, st, conveyor.Options{Workers: 1}).MustStart()
				first, second := new(rig.Recorder), new(rig.Recorder)
				e.Driver("first", first)
				e.Driver("second", second, conveyor.Concurrency(1))
				p := rig.AtMost(rig.PipelineOf("second", "first"), 1)
				e.Save(p)
				require.NoError(t, e.Pause(asAda(t), target, "freeze"))
				run := e.MustApply(rig.Object("a", 1))
				synctest.Wait()
				held := e.MustGetRun(run.ID)
				require.Equal(t, conveyor.StateBlocked, held.State)
				require.Equal(t, "paused by ada: freeze", held.Reason)
				require.True(t, held.StartedAt.IsZero(), "it takes up newer generations until it begins")
				require.Empty(t, first.All())
				require.Empty(t, second.All())
				stats := e.MustStats()
				require.Equal(t, map[string]int{"paused by ada: freeze": 1}, stats.Blocked)
				require.Equal(t, map[conveyor.State]int{conveyor.StateBlocked: 1}, stats.Runs)
				require.Zero(t, stats.Busy+stats.Ready+stats.Slots["second"].Busy+stats.Slots["second"].Waiting)
				require.Zero(t, stats.Pipelines["p"].AtWork+stats.Pipelines["p"].Waiting, "no place within MaxRuns")
				require.Len(t, rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{States: []conveyor.State{conveyor.StateBlocked}})), 1)

				changed := e.MustApply(rig.Object("a", 2))
				require.Equal(t, run.ID, changed.ID, "the held run takes up the change")
				time.Sleep(time.Hour)
				require.NoError(t, e.Resume(t.Context(), target))
				ended := e.Ended(run.ID)
				require.NoError(t, ended.Err())
				require.EqualValues(t, 2, ended.Generation)
				require.Equal(t, "2", first.Last().Spec)
				require.Empty(t, rig.Drain(t, e.Pauses(t.Context())))
				require.NoError(t, e.Finish(rig.Object("b", 1)).Err())
			})
		})
	}
}

func TestPauseHoldsNothingElse(t *testing.T) {
	for _, target := range []conveyor.Target{
		{Type: "other"}, {Pipeline: "q"}, {Driver: "p"}, {Resource: conveyor.Key{Type: "r", Name: "b"}}, {Resource: conveyor.Key{Type: "other", Name: "a"}},
	} {
		t.Run(target.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", new(rig.Recorder))
				e.Pipeline("d")
				require.NoError(t, e.Pause(t.Context(), target, ""))
				require.NoError(t, e.Finish(rig.Object("a", nil)).Err())
			})
		})
	}
}

// TestPauseLetsAStepThatHasBegunEnd pauses in the middle of a first step that fails once, asks to be called again, and awaits a
// signal before it is done.
func TestPauseLetsAStepThatHasBegunEnd(t *testing.T) {
	for _, target := range targets {
		t.Run(target.String(), func(t *testing.T) {
			eachStore(t, func(t *testing.T, st store.Store) {
				e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
				long := rig.Recording(rig.InTurn(
					func(context.Context, *conveyor.Request) (conveyor.Result, error) {
						time.Sleep(time.Minute)
						return conveyor.Result{}, rig.ErrBoom
					},
					rig.Always(conveyor.RequeueAfter(time.Minute), nil), rig.Always(conveyor.Await("go", 0), nil), rig.Always(conveyor.Done(), nil)))
				second := new(rig.Recorder)
				e.Driver("first", long)
				e.Driver("second", second)
				e.Pipeline("first", "second")
				run := e.MustApply(rig.Object("a", nil))
				time.Sleep(time.Second)
				require.NoError(t, e.Pause(asAda(t), target, ""))
				time.Sleep(time.Hour)
				require.Equal(t, conveyor.StateWaiting, e.MustGetRun(run.ID).State)
				require.NoError(t, e.Signal(t.Context(), run.ID, "go", nil), "signals work meanwhile")
				synctest.Wait()
				require.Equal(t, []string{"1", "1/2", "1/2", "1/2"}, long.Steps())
				held := e.MustGetRun(run.ID)
				require.Equal(t, conveyor.StateBlocked, held.State)
				require.Equal(t, "step 2: paused by ada", held.Reason)
				require.Equal(t, []string{"succeeded", "blocked"}, rig.StatesOf(held))
				require.Empty(t, second.All())
				require.NoError(t, e.Resume(t.Context(), target))
				require.NoError(t, e.Ended(run.ID).Err())
				require.Equal(t, []string{"2"}, second.Steps())
			})
		})
	}
}

func TestPauseHoldsNeitherFinallyNorADeletion(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		undone, cleaned := new(rig.Recorder), new(rig.Recorder)
		e.Driver("d", rig.Undoing(new(rig.Recorder), undone))
		e.Driver("slow", rig.DriverOf(rig.Taking(time.Minute)))
		e.Driver("clean", cleaned)
		p := rig.PipelineOf("d", "slow", "d")
		p.Finally = []conveyor.Step{{Driver: "clean"}}
		e.Save(p)
		canceled := e.MustApply(rig.Object("a", nil))
		deleted := e.MustApply(rig.Object("b", nil))
		never := e.MustApply(rig.Object("c", nil))
		time.Sleep(time.Second)
		require.NoError(t, e.Pause(t.Context(), conveyor.Target{All: true}, ""))
		time.Sleep(time.Hour)
		require.NoError(t, e.Cancel(t.Context(), canceled.ID, "enough"))
		require.Equal(t, conveyor.StateCanceled, e.Ended(canceled.ID).State)
		require.Len(t, cleaned.All(), 1)
		deletion, err := e.Delete(t.Context(), rig.Object("b", nil).Key())
		require.NoError(t, err)
		require.NoError(t, e.Ended(deletion.ID).Err())
		require.Equal(t, conveyor.StateCanceled, e.Ended(deleted.ID).State)
		require.Len(t, undone.All(), 1, "the third step has never begun")
		require.Equal(t, conveyor.StateBlocked, e.MustGetRun(never.ID).State)

		queued := e.MustApply(rig.Object("new", nil))
		require.NoError(t, e.Cancel(t.Context(), queued.ID, "not any more"), "also of a run that cannot begin")
		require.Equal(t, conveyor.StateCanceled, e.Ended(queued.ID).State)
	})
}

func TestPauseHoldsAPlanAndWhatItHasPlanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := new(rig.Recorder)
		e.Driver("d", d)
		f := rig.NewFanOut()
		f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			time.Sleep(time.Minute)
			return []conveyor.Step{{Driver: "d"}, {Driver: "d"}}, nil
		}
		e.SavePlanned(f)
		target := conveyor.Target{Pipeline: "p"}
		require.NoError(t, e.Pause(t.Context(), target, ""))
		run := e.MustApply(rig.Object("a", nil))
		time.Sleep(time.Hour)
		require.Zero(t, f.Calls.Load())
		require.NoError(t, e.Resume(t.Context(), target))
		time.Sleep(time.Second)
		require.NoError(t, e.Pause(t.Context(), target, ""))
		time.Sleep(time.Hour)
		require.EqualValues(t, 1, f.Calls.Load())
		require.Empty(t, d.All())
		require.Equal(t, []string{"succeeded", "blocked", "pending"}, rig.StatesOf(e.MustGetRun(run.ID)))
		require.NoError(t, e.Resume(t.Context(), target))
		require.NoError(t, e.Ended(run.ID).Err())
	})
}

func TestPauseHoldsTheDriversThatListenAndResyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := new(rig.Recorder)
		e.Driver("d", d, conveyor.Listen("loose"))
		e.Driver("other", new(rig.Recorder), conveyor.Listen("loose"))
		p := rig.PipelineOf("d")
		p.Resync = conveyor.Duration(time.Minute)
		e.Save(p)
		require.NoError(t, e.Finish(rig.Object("a", nil)).Err())
		require.NoError(t, e.Pause(t.Context(), conveyor.Target{Driver: "d"}, ""))
		loose := e.MustApply(rig.Loose("loose", "b", nil))
		time.Sleep(time.Hour)
		require.Len(t, d.All(), 1)
		require.Equal(t, []string{"blocked", "succeeded"}, rig.StatesOf(e.MustGetRun(loose.ID)))
		runs := e.RunsOf(rig.Object("a", nil))
		require.Len(t, runs, 2, "resyncs do not pile up")
		require.Equal(t, conveyor.StateBlocked, runs[1].State)
		require.NoError(t, e.Resume(t.Context(), conveyor.Target{Driver: "d"}))
		require.NoError(t, e.Ended(loose.ID).Err())
		require.NoError(t, e.Ended(runs[1].ID).Err())
	})
}

func TestPauseHoldsAResourceToWhichNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		require.NoError(t, e.Pause(t.Context(), conveyor.Target{All: true}, ""))
		run := e.MustApply(rig.Loose("loose", "a", nil))
		synctest.Wait()
		require.Equal(t, conveyor.StateBlocked, e.MustGetRun(run.ID).State, "it is not skipped before somebody can listen")
		e.Driver("d", new(rig.Recorder), conveyor.Listen("loose"))
		require.NoError(t, e.Resume(t.Context(), conveyor.Target{All: true}))
		require.Equal(t, conveyor.StateSucceeded, e.Ended(run.ID).State)
	})
}

func TestPausesAddUpAndHoldWhatComesLater(t *testing.T) {
	eachStore(t, func(t *testing.T, st store.Store) {
		e := rig.NewOn(t, st, conveyor.Options{})
		ctx := t.Context()
		for _, target := range targets {
			require.NoError(t, e.Pause(ctx, target, "before the start"))
		}
		e.MustStart()
		e.Driver("second", new(rig.Recorder))
		e.Pipeline("second")
		run := e.MustApply(rig.Object("a", nil))
		for i, target := range targets {
			synctest.Wait()
			require.Equal(t, conveyor.StateBlocked, e.MustGetRun(run.ID).State, "%d are left", len(targets)-i)
			require.Equal(t, map[string]int{"paused: before the start": 1}, e.MustStats().Blocked)
			require.NoError(t, e.Resume(ctx, target))
		}
		require.NoError(t, e.Ended(run.ID).Err())
	})
}

func TestPauseAgainReplacesTheReasonAndTheActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.Taking(time.Minute)))
		e.Pipeline("d", "d")
		begun := e.MustApply(rig.Object("begun", nil))
		time.Sleep(time.Second)
		target := conveyor.Target{Pipeline: "p"}
		require.NoError(t, e.Pause(t.Context(), target, "first"))
		queued := e.MustApply(rig.Object("queued", nil))
		time.Sleep(time.Hour)
		at := time.Now()
		require.NoError(t, e.Pause(asAda(t), target, "second"))
		synctest.Wait()
		require.Equal(t, "step 2: paused by ada: second", e.MustGetRun(begun.ID).Reason)
		require.Equal(t, "paused by ada: second", e.MustGetRun(queued.ID).Reason)
		require.Equal(t, []conveyor.Pause{{Target: target, Reason: "second", By: "ada", At: at.Round(0).UTC()}}, rig.Drain(t, e.Pauses(t.Context())))
		require.NoError(t, e.Resume(t.Context(), target))
		require.ErrorIs(t, e.Resume(t.Context(), target), conveyor.ErrNotFound)
	})
}

func TestPauseLetsTheTimeOfARunGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		cleaned := new(rig.Recorder)
		e.Driver("d", new(rig.Recorder))
		e.Driver("slow", rig.DriverOf(rig.Taking(time.Minute)))
		e.Driver("clean", cleaned)
		p := rig.PipelineOf("slow", "d")
		p.Finally = []conveyor.Step{{Driver: "clean"}}
		p.Timeout = conveyor.Duration(time.Hour)
		e.Save(p)
		run := e.MustApply(rig.Object("a", nil))
		time.Sleep(time.Second)
		require.NoError(t, e.Pause(t.Context(), conveyor.Target{Driver: "d"}, ""))
		began := time.Now()
		ended := e.Ended(run.ID)
		require.Equal(t, conveyor.StateFailed, ended.State)
		require.ErrorIs(t, ended.Err(), conveyor.ErrTimeout)
		require.Equal(t, time.Hour-time.Second, time.Since(began))
		require.Len(t, cleaned.All(), 1)

		// A run that has not begun has no time yet.
		waits := e.MustApply(rig.Object("b", nil))
		require.NoError(t, e.Cancel(t.Context(), waits.ID, ""))
		require.NoError(t, e.Pause(t.Context(), conveyor.Target{Pipeline: "p"}, ""))
		waits = e.MustApply(rig.Object("c", nil))
		time.Sleep(24 * time.Hour)
		require.Equal(t, conveyor.StateBlocked, e.MustGetRun(waits.ID).State)
	})
}

func TestPauseRefusesWhatIsNoTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{Limits: conveyor.Limits{ErrorText: 10}}).MustStart()
		before := rig.Dump(t, e.Store.Store)
		for _, c := range []struct {
			name   string
			target conveyor.Target
			says   string
		}{
			{"nothing", conveyor.Target{}, "conveyor: invalid: target: has 0 fields that are set; set one of All, Type, Pipeline, Driver and Resource"},
			{"two fields", conveyor.Target{All: true, Driver: "d"}, "target: has 2 fields that are set"},
			{"a name that none can have", conveyor.Target{Driver: "a/b"}, "target.Driver: "},
			{"a resource without a name", conveyor.Target{Resource: conveyor.Key{Type: "r"}}, "target.Resource.Name: "},
			{"a resource without a type", conveyor.Target{Resource: conveyor.Key{Name: "r"}}, "target.Resource.Type: "},
		} {
			for _, err := range []error{e.Pause(t.Context(), c.target, ""), e.Resume(t.Context(), c.target)} {
				require.ErrorIs(t, err, conveyor.ErrInvalid, c.name)
				require.ErrorContains(t, err, c.says, c.name)
			}
		}
		require.ErrorIs(t, e.Pause(conveyor.As(t.Context(), "conveyor"), conveyor.Target{All: true}, ""), conveyor.ErrInvalid)
		require.Equal(t, before, rig.Dump(t, e.Store.Store))

		require.NoError(t, e.Pause(t.Context(), conveyor.Target{Type: "t"}, strings.Repeat("x", 100)))
		pauses := rig.Drain(t, e.Pauses(t.Context()))
		require.Less(t, len(pauses[0].Reason), 20, "cut to ErrorText")
		e.Stop()
		require.ErrorIs(t, e.Pause(t.Context(), conveyor.Target{All: true}, ""), conveyor.ErrClosed)
		require.ErrorIs(t, e.Resume(t.Context(), conveyor.Target{Type: "t"}), conveyor.ErrClosed)
		require.Len(t, rig.Drain(t, e.Pauses(t.Context())), 1, "what only reads works")
	})
}

// TestPauseReturnsWhenNothingCanStartAnyMore has a start be on its way to the store while Pause is called.
func TestPauseReturnsWhenNothingCanStartAnyMore(t *testing.T) {
	for _, c := range []struct{ name, step string }{{"the start of a run", "1"}, {"the start of a later step", "2"}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				d := new(rig.Recorder)
				e.Driver("d", d)
				e.Pipeline("d", "d", "d")
				reached, gate := make(chan struct{}), make(chan struct{})
				var once sync.Once
				e.Store.Refusing(func(keys []string) error {
					if slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "stp/") && strings.HasSuffix(k, "/"+c.step) }) {
						once.Do(func() { close(reached); <-gate })
					}
					return nil
				})
				go e.MustApply(rig.Object("a", nil))
				<-reached
				paused := make(chan error, 1)
				go func() { paused <- e.Pause(t.Context(), conveyor.Target{All: true}, "") }()
				time.Sleep(time.Hour)
				require.Empty(t, paused, "the step may still start")
				close(gate)
				require.NoError(t, <-paused)
				time.Sleep(time.Hour)
				require.Equal(t, c.step, d.Last().Step, "the step whose start is on record is the last one")
			})
		})
	}
}

// TestPauseDiesAtEachCommit has the process die at each commit of a program that pauses, applies, resumes and applies. Whatever
// was acknowledged holds after the restart: while a pause is on record nothing that it holds starts, and when it has ended
// everything goes on.
func TestPauseDiesAtEachCommit(t *testing.T) {
	died := errors.New("died")
	eachStore(t, func(t *testing.T, st store.Store) {
		target := conveyor.Target{Driver: "second"}
		for n := 1; ; n++ {
			name := func(s string) *conveyor.Object { return rig.Object(fmt.Sprintf("%s%d", s, n), nil) }
			e := rig.NewOn(t, st, conveyor.Options{})
			var left atomic.Int64 // commits before the death; the caller and the workers commit at the same time
			left.Store(int64(n))
			e.Store.Refusing(func([]string) error {
				if left.Add(-1) <= 0 {
					e.Store.CutOff()
					return fmt.Errorf("%w: %w", store.ErrClosed, died)
				}
				return nil
			})
			second := new(rig.Recorder)
			drivers := func(e *rig.Engine) {
				e.Driver("first", new(rig.Recorder))
				e.Driver("second", second)
			}
			drivers(e)
			var paused, resumed bool // acknowledged
			pausing, resuming := false, false
			var applied []conveyor.Key
			apply := func(o *conveyor.Object) {
				if _, err := e.Apply(t.Context(), o); err == nil {
					applied = append(applied, o.Key())
				}
				synctest.Wait()
			}
			if e.Start(t.Context()) == nil && e.SavePipeline(t.Context(), rig.PipelineOf("first", "second")) == nil {
				pausing = true
				paused = e.Pause(t.Context(), target, "") == nil
				apply(name("a"))
				if paused {
					require.Empty(t, second.All())
				}
				resuming = paused
				resumed = paused && e.Resume(t.Context(), target) == nil
				apply(name("b"))
			}
			whole := left.Load() > 0
			calls := len(second.All())

			again := e.Crashed(conveyor.Options{})
			drivers(again)
			again.Save(rig.PipelineOf("first", "second"))
			again.MustStart()
			synctest.Wait()
			held := len(rig.Drain(t, again.Pauses(t.Context()))) > 0
			require.Equal(t, pausing && (paused || held), held || resumed || resuming && !held, "a pause that was acknowledged is on record until a Resume")
			if resumed {
				require.False(t, held, "a resume that was acknowledged stays")
			}
			if held {
				require.Len(t, second.All(), calls, "commit %d: a step starts though it is paused", n)
				require.NoError(t, again.Resume(t.Context(), target))
			}
			for _, k := range applied {
				runs := rig.Drain(t, again.Runs(t.Context(), conveyor.RunFilter{Resource: k}))
				require.Len(t, runs, 1)
				require.NoError(t, again.Ended(runs[0].ID).Err())
			}
			again.Stop()
			if whole {
				require.Greater(t, n, 8)
				return
			}
		}
	})
}

func TestPauseThatTheStoreDoesNotAcknowledgeHoldsWhatIsOnRecord(t *testing.T) {
	for _, c := range []struct {
		name   string
		commit bool // the commit has happened, although the store returns an error
		err    error
		held   bool
	}{
		{"refused", false, errors.New("disk full"), false},
		{"unknown, and it has happened", true, store.ErrUnknown, true},
		{"unknown, and it has not happened", false, store.ErrUnknown, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", new(rig.Recorder))
				e.Pipeline("d")
				var failed atomic.Bool
				e.Store.Refusing(func(keys []string) error {
					if !strings.HasPrefix(keys[0], "pse/") || failed.Swap(true) {
						return nil
					}
					if c.commit {
						_, err := e.Store.Store.Commit(t.Context(), store.Put(keys[0], []byte(`{"reason":"x","at":946684800000000000}`)).IfAbsent())
						require.NoError(t, err)
					}
					return c.err
				})
				err := e.Pause(t.Context(), conveyor.Target{All: true}, "x")
				require.Equal(t, c.held, err == nil)
				run := e.MustApply(rig.Object("a", nil))
				synctest.Wait()
				require.Equal(t, c.held, e.MustGetRun(run.ID).State == conveyor.StateBlocked)
			})
		})
	}
}

func TestPauseThatIsDamagedHoldsItsTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{})
		_, err := e.Store.Commit(t.Context(), store.Put("pse/driver/d", []byte(`{"at":`)), store.Put("pse/what", []byte("{}")))
		require.NoError(t, err)
		e.MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		run := e.MustApply(rig.Object("a", nil))
		synctest.Wait()
		require.Equal(t, "paused: its record is damaged", e.MustGetRun(run.ID).Reason)
		for _, err := range e.Pauses(t.Context()) {
			require.ErrorIs(t, err, store.ErrCorrupt)
		}
		require.NoError(t, e.Resume(t.Context(), conveyor.Target{Driver: "d"}))
		require.NoError(t, e.Ended(run.ID).Err())
	})
}

func TestPauseIsSeenInEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		e.Pipeline("d")
		events := e.Watch(t.Context(), conveyor.WatchOptions{})
		require.NoError(t, e.Pause(asAda(t), conveyor.Target{Pipeline: "p"}, "freeze"))
		run := e.MustApply(rig.Object("a", nil))
		synctest.Wait()
		require.NoError(t, e.Resume(asAda(t), conveyor.Target{Pipeline: "p"}))
		e.Ended(run.ID)
		var seen []string
		for event, err := range events {
			require.NoError(t, err)
			if event.Kind == conveyor.EventPause || event.Kind == conveyor.EventRun {
				seen = append(seen, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", event.Kind, event.By, event.State, event.Reason)))
			}
			if event.State == conveyor.StateSucceeded && event.Kind == conveyor.EventRun {
				break
			}
		}
		require.Equal(t, []string{
			"pause ada unset freeze", "run  queued", "run  blocked paused by ada: freeze", "pause ada unset resumed", "run  running", "run  succeeded",
		}, seen)
	})
}
