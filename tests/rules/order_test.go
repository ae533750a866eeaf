package rules_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

func TestRule01StepStartsOnlyAfterTheOneBeforeSucceeded(t *testing.T) {
	for _, c := range []struct {
		name  string
		first rig.Func
		state conveyor.State // of step 1 when step 2 begins
		after time.Duration  // when step 2 begins
	}{
		{"done", rig.Taking(time.Second), conveyor.StateSucceeded, time.Second},
		{"done with an output", rig.Always(conveyor.DoneWith("x"), nil), conveyor.StateSucceeded, 0},
		{"skipped", rig.Always(conveyor.Skip("not today"), nil), conveyor.StateSkipped, 0},
		{"done after a failed attempt", rig.InTurn(rig.Always(conveyor.Done(), conveyor.RetryAfter(time.Minute, rig.ErrBoom)), rig.Taking(time.Second)), conveyor.StateSucceeded, 61 * time.Second},
		{"done after a requeue", rig.InTurn(rig.Always(conveyor.RequeueAfter(time.Hour), nil), rig.Always(conveyor.Done(), nil)), conveyor.StateSucceeded, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				began := time.Now()
				e.Driver("first", rig.DriverOf(c.first))
				second := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					run, err := e.GetRun(ctx, req.Run)
					if err != nil || run.Steps[0].State != c.state || run.Steps[1].State != conveyor.StateRunning || run.Steps[2].State != conveyor.StatePending {
						return conveyor.Result{}, conveyor.Permanent(fmt.Errorf("on record: %v, %w", rig.StatesOf(run), err))
					}
					return conveyor.Done(), nil
				})
				e.Driver("second", second)
				e.Driver("third", new(rig.Recorder))
				e.Pipeline("first", "second", "third")
				run := e.Finish(rig.Object("a", nil))
				require.NoError(t, run.Err())
				require.Equal(t, conveyor.StateSucceeded, run.State)
				require.Equal(t, began.Add(c.after), second.Last().Began)
			})
		})
	}
}

func TestRule02OneResourceHasAtMostOneRunAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g rig.Gauge
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(g.Around(rig.ByResource, rig.Taking(time.Second))))
		e.Pipeline("d", "d", "d")
		for i := range 40 {
			for _, name := range []string{"a", "b", "c"} {
				e.MustApply(rig.Object(name, i))
			}
			if i%7 == 0 {
				_, err := e.Trigger(t.Context(), conveyor.Key{Type: "r", Name: "a"})
				require.NoError(t, err)
			}
			time.Sleep(300 * time.Millisecond)
			synctest.Wait()
			atWork := map[conveyor.Key]int{}
			for _, run := range rig.Drain(t, e.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})) {
				if run.State != conveyor.StateQueued {
					atWork[run.Resource]++
				}
			}
			require.Len(t, atWork, 3)
			for key, n := range atWork {
				require.Equal(t, 1, n, key)
			}
		}
		time.Sleep(time.Minute)
		for _, name := range []string{"a", "b", "c"} {
			require.Equal(t, 1, g.Peak(name))
		}
	})
}

func TestRule02DifferentResourcesRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g rig.Gauge
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(g.Around(rig.ByNothing, rig.Taking(time.Second))))
		e.Pipeline("d")
		for i := range 20 {
			e.MustApply(rig.Object(fmt.Sprint("n", i), nil))
		}
		synctest.Wait()
		require.Equal(t, 20, g.Peak(""))
	})
}

func TestRule03ChangesDuringARunAreTakenUpByOneMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.Taking(time.Minute))
		e.Driver("d", d)
		e.Pipeline("d")
		first := e.MustApply(rig.Object("a", 1))
		synctest.Wait()
		var queued []string
		for i := 2; i <= 5; i++ {
			run := e.MustApply(rig.Object("a", i))
			require.Equal(t, conveyor.StateQueued, run.State)
			require.EqualValues(t, i, run.Generation)
			queued = append(queued, run.ID)
		}
		require.Equal(t, []string{queued[0], queued[0], queued[0], queued[0]}, queued)
		require.NotEqual(t, first.ID, queued[0])
		require.EqualValues(t, 1, e.Ended(first.ID).Generation)
		require.EqualValues(t, 5, e.Ended(queued[0]).Generation)
		require.Len(t, e.RunsOf(rig.Object("a", nil)), 2)
		require.Equal(t, []string{"1", "5"}, []string{d.All()[0].Spec, d.All()[1].Spec})
		require.Equal(t, conveyor.CauseUpdated, d.Last().Cause)
		status := e.MustGet(rig.Object("a", nil)).Status
		require.Equal(t, conveyor.Status{Phase: conveyor.StateSucceeded, ObservedGeneration: 5, Run: queued[0]}, status)
	})
}

func TestRule03TheLastAcknowledgedGenerationIsAlwaysReconciled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(rig.InTurn(rig.Taking(3*time.Millisecond), rig.Always(conveyor.Done(), rig.ErrBoom), rig.Taking(time.Millisecond),
			rig.Always(conveyor.Halt("enough"), nil), rig.Always(conveyor.RequeueAfter(time.Millisecond), nil), rig.Taking(2*time.Millisecond)))
		e.Driver("d", d, conveyor.Retry(conveyor.RetryPolicy{Initial: conveyor.Duration(time.Millisecond)}))
		e.Pipeline("d", "d")
		for round := range 50 {
			for i := range 1 + rand.IntN(5) {
				e.MustApply(rig.Object("a", fmt.Sprint(round, "-", i)))
				time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
			}
			last := e.MustApply(rig.Object("a", fmt.Sprint(round, "-last")))
			run := e.Ended(last.ID)
			o := e.MustGet(rig.Object("a", nil))
			require.Equal(t, o.Generation, run.Generation)
			require.Equal(t, o.Generation, o.Status.ObservedGeneration)
			require.Equal(t, string(o.Spec), d.Last().Spec)
		}
	})
}

func TestRule03AChangeByTheDriverItselfIsReconciledToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var n int
			if err := req.Settings(&n); err != nil {
				return conveyor.Result{}, err
			}
			if req.Resource.Generation < 4 {
				_, err := e.Apply(ctx, rig.Object("a", req.Resource.Generation+1))
				return conveyor.Done(), err
			}
			return conveyor.Done(), nil
		})
		e.Driver("d", d)
		e.Pipeline("d")
		e.MustApply(rig.Object("a", 1))
		synctest.Wait()
		require.EqualValues(t, 4, e.MustGet(rig.Object("a", nil)).Status.ObservedGeneration)
		require.Equal(t, "4", d.Last().Spec)
		require.Len(t, e.RunsOf(rig.Object("a", nil)), 4)
	})
}

func TestRule04AnUnchangedSpecMakesNoGenerationAndNoRun(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after string
	}{
		{"the very same", `{"a":1}`, `{"a":1}`},
		{"other white space", `{"a":1,"b":[1,2]}`, "{ \"a\": 1,\n \"b\": [1, 2] }"},
		{"other order of fields", `{"a":1,"b":{"c":2,"d":3}}`, `{"b":{"d":3,"c":2},"a":1}`},
		{"a character escaped", `{"a":"é"}`, `{"a":"\u00e9"}`},
		{"no spec", ``, ``},
		{"a number too large for a float", `{"n":9007199254740993}`, ` {"n":9007199254740993}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				d := rig.Recording(rig.Taking(time.Second))
				e.Driver("d", d)
				e.Pipeline("d")
				o := rig.Object("a", nil)
				o.Spec = []byte(c.before)
				first := e.MustApply(o)
				again := rig.Object("a", nil)
				again.Spec = []byte(c.after)
				require.Equal(t, first.ID, e.MustApply(again).ID, "while it runs")
				require.Equal(t, first.ID, e.Finish(again).ID)
				require.Equal(t, first.ID, e.MustApply(again).ID, "after it ended")
				require.Equal(t, conveyor.StateSucceeded, e.MustApply(again).State)
				synctest.Wait()
				require.EqualValues(t, 1, again.Generation)
				require.EqualValues(t, 1, again.Version)
				require.Len(t, d.All(), 1)
				require.Len(t, e.RunsOf(again), 1)
			})
		})
	}
}

func TestRule04AChangeThatMeansSomethingElseMakesARun(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*conveyor.Object)
	}{
		{"another value", func(o *conveyor.Object) { o.Spec = []byte(`{"n":9007199254740992}`) }},
		{"another order of elements", func(o *conveyor.Object) { o.Spec = []byte(`[2,1]`) }},
		{"no spec any more", func(o *conveyor.Object) { o.Spec = nil }},
		{"null instead of nothing", func(o *conveyor.Object) { o.Spec = []byte(`null`) }},
		{"another pipeline", func(o *conveyor.Object) { o.Pipeline = "q" }},
		{"no pipeline", func(o *conveyor.Object) { o.Pipeline = "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", new(rig.Recorder), conveyor.Listen("r"))
				e.Pipeline("d")
				q := rig.PipelineOf("d")
				q.Name = "q"
				e.Save(q)
				o := rig.Object("a", nil)
				o.Spec = []byte(`{"n":9007199254740993}`)
				first := e.Finish(o)
				c.change(o)
				o.Version = 0
				second := e.Finish(o)
				require.NotEqual(t, first.ID, second.ID)
				require.EqualValues(t, 2, second.Generation)
				require.EqualValues(t, 2, o.Generation)
				require.EqualValues(t, 2, o.Version)
			})
		})
	}
}

func TestRule06AFailedStepEndsTheRunAndSkipsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		rest := new(rig.Recorder)
		e.Driver("ok", rig.DriverOf(rig.Always(conveyor.DoneWith(1), nil)))
		e.Driver("bad", rig.DriverOf(rig.Always(conveyor.Done(), rig.ErrBoom)))
		e.Driver("rest", rest)
		e.Pipeline("ok", "bad", "rest", "rest")
		o := rig.Object("a", nil)
		run := e.Finish(o)
		require.Equal(t, conveyor.StateFailed, run.State)
		require.Equal(t, []string{"succeeded", "failed", "skipped", "skipped"}, rig.StatesOf(run))
		require.Empty(t, rest.All())
		require.Contains(t, run.Steps[2].Reason, "step 2 failed")
		require.Contains(t, run.Reason, "boom")

		var step *conveyor.StepError
		require.ErrorAs(t, run.Err(), &step)
		require.Equal(t, "2 bad 3 boom", fmt.Sprint(step.Step, " ", step.Driver, " ", step.Attempt, " ", step.Err))
		require.Equal(t, run.ID, step.Run)
		require.Len(t, run.Steps[1].Attempts, 3)

		status := e.MustGet(o).Status
		require.Equal(t, conveyor.StateFailed, status.Phase)
		require.Equal(t, run.Reason, status.Message)
		require.EqualValues(t, 1, status.ObservedGeneration)
		require.Equal(t, run, e.MustGetRun(run.ID), "a failed run stays on record")
	})
}

func TestRule06AFailedRunDoesNotKeepTheNextGenerationFromRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", rig.DriverOf(rig.InTurn(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), rig.Always(conveyor.Done(), nil))))
		e.Pipeline("d")
		require.Equal(t, conveyor.StateFailed, e.Finish(rig.Object("a", 1)).State)
		require.Equal(t, conveyor.StateSucceeded, e.Finish(rig.Object("a", 2)).State)
		require.Equal(t, conveyor.Status{
			Phase: conveyor.StateSucceeded, ObservedGeneration: 2, Run: e.RunsOf(rig.Object("a", nil))[1].ID,
		}, e.MustGet(rig.Object("a", nil)).Status)
	})
}

func TestRule07EditingAPipelineChangesLaterRunsOnly(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*rig.Engine) error
		then []string // what the next run does; none if it fails
	}{
		{"steps renamed and swapped", func(e *rig.Engine) error {
			p := rig.PipelineOf("b", "a", "a")
			p.Steps[0].ID, p.Steps[1].ID, p.Steps[2].ID = "z", "1", "y"
			return e.SavePipeline(context.Background(), p)
		}, []string{"b z", "a 1", "a y"}},
		{"steps removed", func(e *rig.Engine) error {
			return e.SavePipeline(context.Background(), rig.PipelineOf("c"))
		}, []string{"c 1"}},
		{"another driver under the same id", func(e *rig.Engine) error {
			return e.SavePipeline(context.Background(), rig.PipelineOf("a", "c", "b"))
		}, []string{"a 1", "c 2", "b 3"}},
		{"saved anew without a change", func(e *rig.Engine) error {
			return e.SavePipeline(context.Background(), rig.PipelineOf("a", "b", "c"))
		}, []string{"a 1", "b 2", "c 3"}},
		{"deleted", func(e *rig.Engine) error { return e.DeletePipeline(context.Background(), "p") }, nil},
		{"made for another type", func(e *rig.Engine) error {
			p := rig.PipelineOf("a")
			p.Resource = "other"
			return e.SavePipeline(context.Background(), p)
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				var did []string
				for _, name := range []string{"a", "b", "c"} {
					e.Driver(name, rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
						did = append(did, name+" "+req.Step.ID)
						return rig.Taking(time.Minute)(ctx, req)
					}))
				}
				e.Pipeline("a", "b", "c")
				first := e.MustApply(rig.Object("x", 1))
				time.Sleep(90 * time.Second) // into the second step
				second := e.MustApply(rig.Object("x", 2))
				require.NoError(t, c.edit(e))
				require.Equal(t, []string{"succeeded", "succeeded", "succeeded"}, rig.StatesOf(e.Ended(first.ID)))
				ended := e.Ended(second.ID)
				require.Equal(t, append([]string{"a 1", "b 2", "c 3"}, c.then...), did)
				require.Equal(t, len(c.then) > 0, ended.State == conveyor.StateSucceeded, "%s: %s", ended.State, ended.Reason)
				require.Equal(t, len(c.then) == 0, ended.Err() != nil)
			})
		})
	}
}

func TestRule07ARunKeepsItsGenerationAndOutputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		type seen struct{ Spec, Meta, Output string }
		var saw []seen
		e.Driver("make", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			result, err := rig.Taking(time.Minute)(ctx, req)
			if err != nil {
				return result, err
			}
			return conveyor.DoneWith("made of " + string(req.Resource.Spec)), nil
		}))
		e.Driver("use", rig.DriverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			s := seen{Spec: string(req.Resource.Spec), Meta: req.Resource.Metadata["m"]}
			if err := req.Output("1", &s.Output); err != nil {
				return conveyor.Result{}, err
			}
			if err := req.Output("2", new(any)); !errors.Is(err, conveyor.ErrNotFound) {
				return conveyor.Result{}, fmt.Errorf("output of a step that has none: %w", err)
			}
			saw = append(saw, s)
			return rig.Taking(time.Minute)(ctx, req)
		}))
		e.Pipeline("make", "use", "use")
		old := rig.Object("a", "old")
		old.Metadata = map[string]string{"m": "before"}
		e.MustApply(old)
		time.Sleep(30 * time.Second)
		fresh := rig.Object("a", "new")
		fresh.Metadata = map[string]string{"m": "after"}
		e.Finish(fresh)
		require.Equal(t, []seen{
			{`"old"`, "before", `made of "old"`}, {`"old"`, "before", `made of "old"`},
			{`"new"`, "after", `made of "new"`}, {`"new"`, "after", `made of "new"`},
		}, saw)
	})
}

func TestRule07OneDriverServesSeveralSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		d := rig.Recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var with string
			if err := req.Settings(&with); err != nil {
				return conveyor.Result{}, err
			}
			return conveyor.DoneWith(with + " by " + req.Step.ID), nil
		})
		e.Driver("d", d)
		p := rig.PipelineOf("d", "d", "d", "d")
		p.Steps[1] = conveyor.Step{ID: "twice", Driver: "d", With: []byte(`"second"`)}
		p.Steps[2] = conveyor.Step{ID: "thrice", Driver: "d", With: []byte(`"third"`)}
		e.Save(p)
		run := e.Finish(rig.Object("a", nil))
		require.NoError(t, run.Err())
		require.Equal(t, []string{"1", "twice", "thrice", "4"}, d.Steps())
		require.JSONEq(t, `"second by twice"`, string(run.Step("twice").Output))
		require.JSONEq(t, `"third by thrice"`, string(run.Step("thrice").Output))
		keys := map[string]bool{}
		for _, c := range d.All() {
			keys[c.Key] = true
		}
		require.Len(t, keys, 4)
	})
}
