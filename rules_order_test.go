package conveyor_test

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
)

func TestRule01StepStartsOnlyAfterTheOneBeforeSucceeded(t *testing.T) {
	for _, c := range []struct {
		name  string
		first driverFunc
		state conveyor.State // of step 1 when step 2 begins
		after time.Duration  // when step 2 begins
	}{
		{"done", taking(time.Second), conveyor.StateSucceeded, time.Second},
		{"done with an output", always(conveyor.DoneWith("x"), nil), conveyor.StateSucceeded, 0},
		{"skipped", always(conveyor.Skip("not today"), nil), conveyor.StateSkipped, 0},
		{"done after a failed attempt", inTurn(always(conveyor.Done(), conveyor.RetryAfter(time.Minute, errBoom)), taking(time.Second)), conveyor.StateSucceeded, 61 * time.Second},
		{"done after a requeue", inTurn(always(conveyor.RequeueAfter(time.Hour), nil), always(conveyor.Done(), nil)), conveyor.StateSucceeded, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				began := time.Now()
				e.driver("first", driverOf(c.first))
				second := recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					run, err := e.GetRun(ctx, req.Run)
					if err != nil || run.Steps[0].State != c.state || run.Steps[1].State != conveyor.StateRunning || run.Steps[2].State != conveyor.StateUnset {
						return conveyor.Result{}, conveyor.Permanent(fmt.Errorf("on record: %v, %w", statesOf(run), err))
					}
					return conveyor.Done(), nil
				})
				e.driver("second", second)
				e.driver("third", new(recorder))
				e.pipeline("first", "second", "third")
				run := e.finish(object("a", nil))
				require.NoError(t, run.Err())
				require.Equal(t, conveyor.StateSucceeded, run.State)
				require.Equal(t, began.Add(c.after), second.last().Began)
			})
		})
	}
}

func TestRule02OneResourceHasAtMostOneRunAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(g.around(byResource, taking(time.Second))))
		e.pipeline("d", "d", "d")
		for i := range 40 {
			for _, name := range []string{"a", "b", "c"} {
				e.apply(object(name, i))
			}
			if i%7 == 0 {
				_, err := e.Trigger(t.Context(), conveyor.Key{Type: "r", Name: "a"})
				require.NoError(t, err)
			}
			time.Sleep(300 * time.Millisecond)
			synctest.Wait()
			atWork := map[conveyor.Key]int{}
			for _, run := range drain(t, e.Runs(t.Context(), conveyor.RunFilter{Unfinished: true})) {
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
			require.Equal(t, 1, g.peak(name))
		}
	})
}

func TestRule02DifferentResourcesRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(g.around(byNothing, taking(time.Second))))
		e.pipeline("d")
		for i := range 20 {
			e.apply(object(fmt.Sprint("n", i), nil))
		}
		synctest.Wait()
		require.Equal(t, 20, g.peak(""))
	})
}

func TestRule03ChangesDuringARunAreTakenUpByOneMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		d := recording(taking(time.Minute))
		e.driver("d", d)
		e.pipeline("d")
		first := e.apply(object("a", 1))
		synctest.Wait()
		var queued []string
		for i := 2; i <= 5; i++ {
			run := e.apply(object("a", i))
			require.Equal(t, conveyor.StateQueued, run.State)
			require.EqualValues(t, i, run.Generation)
			queued = append(queued, run.ID)
		}
		require.Equal(t, []string{queued[0], queued[0], queued[0], queued[0]}, queued)
		require.NotEqual(t, first.ID, queued[0])
		require.EqualValues(t, 1, e.ended(first.ID).Generation)
		require.EqualValues(t, 5, e.ended(queued[0]).Generation)
		require.Len(t, e.runs(object("a", nil)), 2)
		require.Equal(t, []string{"1", "5"}, []string{d.all()[0].Spec, d.all()[1].Spec})
		require.Equal(t, conveyor.CauseUpdated, d.last().Cause)
		status := e.resource(object("a", nil)).Status
		require.Equal(t, conveyor.Status{Phase: conveyor.StateSucceeded, ObservedGeneration: 5, Run: queued[0]}, status)
	})
}

func TestRule03TheLastAcknowledgedGenerationIsAlwaysReconciled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		d := recording(inTurn(taking(3*time.Millisecond), always(conveyor.Done(), errBoom), taking(time.Millisecond),
			always(conveyor.Halt("enough"), nil), always(conveyor.RequeueAfter(time.Millisecond), nil), taking(2*time.Millisecond)))
		e.driver("d", d, conveyor.Retry(conveyor.RetryPolicy{Initial: conveyor.Duration(time.Millisecond)}))
		e.pipeline("d", "d")
		for round := range 50 {
			for i := range 1 + rand.IntN(5) {
				e.apply(object("a", fmt.Sprint(round, "-", i)))
				time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
			}
			last := e.apply(object("a", fmt.Sprint(round, "-last")))
			run := e.ended(last.ID)
			o := e.resource(object("a", nil))
			require.Equal(t, o.Generation, run.Generation)
			require.Equal(t, o.Generation, o.Status.ObservedGeneration)
			require.Equal(t, string(o.Spec), d.last().Spec)
		}
	})
}

func TestRule03AChangeByTheDriverItselfIsReconciledToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		d := recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var n int
			if err := req.Settings(&n); err != nil {
				return conveyor.Result{}, err
			}
			if req.Resource.Generation < 4 {
				_, err := e.Apply(ctx, object("a", req.Resource.Generation+1))
				return conveyor.Done(), err
			}
			return conveyor.Done(), nil
		})
		e.driver("d", d)
		e.pipeline("d")
		e.apply(object("a", 1))
		synctest.Wait()
		require.EqualValues(t, 4, e.resource(object("a", nil)).Status.ObservedGeneration)
		require.Equal(t, "4", d.last().Spec)
		require.Len(t, e.runs(object("a", nil)), 4)
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
				e := newEngine(t, conveyor.Options{}).start()
				d := recording(taking(time.Second))
				e.driver("d", d)
				e.pipeline("d")
				o := object("a", nil)
				o.Spec = []byte(c.before)
				first := e.apply(o)
				again := object("a", nil)
				again.Spec = []byte(c.after)
				require.Equal(t, first.ID, e.apply(again).ID, "while it runs")
				require.Equal(t, first.ID, e.finish(again).ID)
				require.Equal(t, first.ID, e.apply(again).ID, "after it ended")
				require.Equal(t, conveyor.StateSucceeded, e.apply(again).State)
				synctest.Wait()
				require.EqualValues(t, 1, again.Generation)
				require.EqualValues(t, 1, again.Version)
				require.Len(t, d.all(), 1)
				require.Len(t, e.runs(again), 1)
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
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("d", new(recorder), conveyor.Listen("r"))
				e.pipeline("d")
				q := pipelineOf("d")
				q.Name = "q"
				e.save(q)
				o := object("a", nil)
				o.Spec = []byte(`{"n":9007199254740993}`)
				first := e.finish(o)
				c.change(o)
				o.Version = 0
				second := e.finish(o)
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
		e := newEngine(t, conveyor.Options{}).start()
		rest := new(recorder)
		e.driver("ok", driverOf(always(conveyor.DoneWith(1), nil)))
		e.driver("bad", driverOf(always(conveyor.Done(), errBoom)))
		e.driver("rest", rest)
		e.pipeline("ok", "bad", "rest", "rest")
		o := object("a", nil)
		run := e.finish(o)
		require.Equal(t, conveyor.StateFailed, run.State)
		require.Equal(t, []string{"succeeded", "failed", "skipped", "skipped"}, statesOf(run))
		require.Empty(t, rest.all())
		require.Contains(t, run.Steps[2].Reason, "step 2 failed")
		require.Contains(t, run.Reason, "boom")

		var step *conveyor.StepError
		require.ErrorAs(t, run.Err(), &step)
		require.Equal(t, "2 bad 3 boom", fmt.Sprint(step.Step, " ", step.Driver, " ", step.Attempt, " ", step.Err))
		require.Equal(t, run.ID, step.Run)
		require.Len(t, run.Steps[1].Attempts, 3)

		status := e.resource(o).Status
		require.Equal(t, conveyor.StateFailed, status.Phase)
		require.Equal(t, run.Reason, status.Message)
		require.EqualValues(t, 1, status.ObservedGeneration)
		require.Equal(t, run, e.run(run.ID), "a failed run stays on record")
	})
}

func TestRule06AFailedRunDoesNotKeepTheNextGenerationFromRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", driverOf(inTurn(always(conveyor.Done(), conveyor.Permanent(errBoom)), always(conveyor.Done(), nil))))
		e.pipeline("d")
		require.Equal(t, conveyor.StateFailed, e.finish(object("a", 1)).State)
		require.Equal(t, conveyor.StateSucceeded, e.finish(object("a", 2)).State)
		require.Equal(t, conveyor.Status{
			Phase: conveyor.StateSucceeded, ObservedGeneration: 2, Run: e.runs(object("a", nil))[1].ID,
		}, e.resource(object("a", nil)).Status)
	})
}

func TestRule07EditingAPipelineChangesLaterRunsOnly(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*rig) error
		then []string // what the next run does; none if it fails
	}{
		{"steps renamed and swapped", func(e *rig) error {
			p := pipelineOf("b", "a", "a")
			p.Steps[0].ID, p.Steps[1].ID, p.Steps[2].ID = "z", "1", "y"
			return e.SavePipeline(context.Background(), p)
		}, []string{"b z", "a 1", "a y"}},
		{"steps removed", func(e *rig) error {
			return e.SavePipeline(context.Background(), pipelineOf("c"))
		}, []string{"c 1"}},
		{"another driver under the same id", func(e *rig) error {
			return e.SavePipeline(context.Background(), pipelineOf("a", "c", "b"))
		}, []string{"a 1", "c 2", "b 3"}},
		{"saved anew without a change", func(e *rig) error {
			return e.SavePipeline(context.Background(), pipelineOf("a", "b", "c"))
		}, []string{"a 1", "b 2", "c 3"}},
		{"deleted", func(e *rig) error { return e.DeletePipeline(context.Background(), "p") }, nil},
		{"made for another type", func(e *rig) error {
			p := pipelineOf("a")
			p.Resource = "other"
			return e.SavePipeline(context.Background(), p)
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, conveyor.Options{}).start()
				var did []string
				for _, name := range []string{"a", "b", "c"} {
					e.driver(name, driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
						did = append(did, name+" "+req.Step.ID)
						return taking(time.Minute)(ctx, req)
					}))
				}
				e.pipeline("a", "b", "c")
				first := e.apply(object("x", 1))
				time.Sleep(90 * time.Second) // into the second step
				second := e.apply(object("x", 2))
				require.NoError(t, c.edit(e))
				require.Equal(t, []string{"succeeded", "succeeded", "succeeded"}, statesOf(e.ended(first.ID)))
				ended := e.ended(second.ID)
				require.Equal(t, append([]string{"a 1", "b 2", "c 3"}, c.then...), did)
				require.Equal(t, len(c.then) > 0, ended.State == conveyor.StateSucceeded, "%s: %s", ended.State, ended.Reason)
				require.Equal(t, len(c.then) == 0, ended.Err() != nil)
			})
		})
	}
}

func TestRule07ARunKeepsItsGenerationAndOutputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		type seen struct{ Spec, Meta, Output string }
		var saw []seen
		e.driver("make", driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			result, err := taking(time.Minute)(ctx, req)
			if err != nil {
				return result, err
			}
			return conveyor.DoneWith("made of " + string(req.Resource.Spec)), nil
		}))
		e.driver("use", driverOf(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			s := seen{Spec: string(req.Resource.Spec), Meta: req.Resource.Metadata["m"]}
			if err := req.Output("1", &s.Output); err != nil {
				return conveyor.Result{}, err
			}
			if err := req.Output("2", new(any)); !errors.Is(err, conveyor.ErrNotFound) {
				return conveyor.Result{}, fmt.Errorf("output of a step that has none: %w", err)
			}
			saw = append(saw, s)
			return taking(time.Minute)(ctx, req)
		}))
		e.pipeline("make", "use", "use")
		old := object("a", "old")
		old.Metadata = map[string]string{"m": "before"}
		e.apply(old)
		time.Sleep(30 * time.Second)
		fresh := object("a", "new")
		fresh.Metadata = map[string]string{"m": "after"}
		e.finish(fresh)
		require.Equal(t, []seen{
			{`"old"`, "before", `made of "old"`}, {`"old"`, "before", `made of "old"`},
			{`"new"`, "after", `made of "new"`}, {`"new"`, "after", `made of "new"`},
		}, saw)
	})
}

func TestRule07OneDriverServesSeveralSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		d := recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			var with string
			if err := req.Settings(&with); err != nil {
				return conveyor.Result{}, err
			}
			return conveyor.DoneWith(with + " by " + req.Step.ID), nil
		})
		e.driver("d", d)
		p := pipelineOf("d", "d", "d", "d")
		p.Steps[1] = conveyor.Step{ID: "twice", Driver: "d", With: []byte(`"second"`)}
		p.Steps[2] = conveyor.Step{ID: "thrice", Driver: "d", With: []byte(`"third"`)}
		e.save(p)
		run := e.finish(object("a", nil))
		require.NoError(t, run.Err())
		require.Equal(t, []string{"1", "twice", "thrice", "4"}, d.steps())
		require.JSONEq(t, `"second by twice"`, string(run.Step("twice").Output))
		require.JSONEq(t, `"third by thrice"`, string(run.Step("thrice").Output))
		keys := map[string]bool{}
		for _, c := range d.all() {
			keys[c.Key] = true
		}
		require.Len(t, keys, 4)
	})
}
