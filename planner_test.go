package conveyor_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// fanOut is a pipeline "p" with a step for each element of the resource's spec, or what plan says instead.
type fanOut struct {
	conveyor.PipelineSpec
	plan  func(ctx context.Context, res *conveyor.Object) ([]conveyor.Step, error)
	calls *atomic.Int64
}

func newFanOut() fanOut {
	return fanOut{PipelineSpec: conveyor.PipelineSpec{Name: "p", Resource: "r"}, calls: new(atomic.Int64)}
}

func (f fanOut) Plan(ctx context.Context, res *conveyor.Object) (steps []conveyor.Step, err error) {
	f.calls.Add(1)
	if f.plan != nil {
		return f.plan(ctx, res)
	}
	var elements []string
	if err := json.Unmarshal(res.Spec, &elements); err != nil {
		return nil, conveyor.Permanent(err)
	}
	for _, e := range elements {
		steps = append(steps, conveyor.Step{Driver: "d", Name: e, With: jsonOf(e)})
	}
	return steps, nil
}

func (r *rig) plan(f fanOut) {
	r.t.Helper()
	require.NoError(r.t, r.SavePipeline(r.t.Context(), f))
}

func idsOf(run *conveyor.Run) (ids []string) {
	for _, s := range run.Steps {
		ids = append(ids, s.ID)
	}
	return ids
}

func TestPlannerComputesTheStepsOfEachResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := recording(taking(time.Second))
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", work)
		f := newFanOut()
		f.Finally = []conveyor.Step{{Driver: "d"}}
		e.plan(f)
		two := e.apply(object("two", []string{"a", "b"}))
		three := e.finish(object("three", []string{"a", "b", "c"}))
		two = e.ended(two.ID)
		require.NoError(t, two.Err())
		require.NoError(t, three.Err())
		require.Equal(t, []string{conveyor.PlanStep, "1", "2", "finally-1"}, idsOf(two))
		require.Equal(t, []string{conveyor.PlanStep, "1", "2", "3", "finally-1"}, idsOf(three))
		require.JSONEq(t, `"c"`, string(three.Step("3").With))
		require.Equal(t, 6, e.store.commitsOf(three.ID), "N+1, the planning included")
		require.Equal(t, int64(2), f.calls.Load())
		var order []string
		for _, c := range work.all() {
			if c.Resource == "three" {
				order = append(order, c.Step)
			}
		}
		require.Equal(t, []string{"1", "2", "3", "finally-1"}, order)
		saved, err := e.GetPipeline(t.Context(), "p")
		require.NoError(t, err)
		require.Empty(t, saved.Steps)

		none := e.finish(object("none", []string{}))
		require.NoError(t, none.Err())
		require.Equal(t, []string{conveyor.PlanStep, "finally-1"}, idsOf(none))
		later := e.finish(object("two", []string{"a"}))
		require.Equal(t, []string{conveyor.PlanStep, "1", "finally-1"}, idsOf(later))
		require.Equal(t, two, e.run(two.ID), "what was planned stays")
	})
}

func TestPlannerMayPlanAGraph(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := recording(taking(time.Second))
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", work)
		f := newFanOut()
		f.plan = func(ctx context.Context, _ *conveyor.Object) ([]conveyor.Step, error) {
			_, err := taking(time.Second)(ctx, nil)
			return []conveyor.Step{{ID: "a", Driver: "d"}, {ID: "b", Driver: "d"}, {ID: "c", Driver: "d", After: []string{"a", "b"}}}, err
		}
		e.plan(f)
		run := e.finish(object("x", nil))
		require.NoError(t, run.Err())
		began := map[string]time.Duration{}
		for _, s := range run.Steps {
			began[s.ID] = s.StartedAt.Sub(run.StartedAt)
		}
		require.Equal(t, map[string]time.Duration{conveyor.PlanStep: 0, "a": time.Second, "b": time.Second, "c": 2 * time.Second}, began)
		var picture strings.Builder
		require.NoError(t, run.Mermaid(&picture))
		require.Contains(t, picture.String(), "  s1 --> s2\n  s1 --> s3\n  s2 --> s4\n  s3 --> s4\n")
	})
}

func TestPlannerThatGoesWrong(t *testing.T) {
	type plan = func(context.Context, *conveyor.Object) ([]conveyor.Step, error)
	steps := func(steps ...conveyor.Step) plan {
		return func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { return steps, nil }
	}
	var tooMany []conveyor.Step
	for range 256 {
		tooMany = append(tooMany, conveyor.Step{Driver: "d"})
	}
	for _, c := range []struct {
		name    string
		plan    plan
		attempt int
		is      error  // what the run's error is
		reason  string // what it contains
	}{
		{"an error", func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { return nil, errBoom }, 3, nil, "boom"},
		{"an error for good", func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			return nil, conveyor.Permanent(errBoom)
		}, 1, nil, "boom"},
		{"a panic", func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { panic("kaboom") }, 3, nil, "kaboom"},
		{"a plan that takes too long", func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			time.Sleep(10 * time.Minute)
			return nil, nil
		}, 3, conveyor.ErrTimeout, "did not return"},
		{"a step without a driver", steps(conveyor.Step{ID: "a"}), 1, conveyor.ErrInvalid, "steps[0].driver: is empty"},
		{"equal ids", steps(conveyor.Step{ID: "a", Driver: "d"}, conveyor.Step{ID: "a", Driver: "d"}), 1, conveyor.ErrInvalid, `steps[1].id: "a" is the id of steps[0] too`},
		{"the id of a final step", steps(conveyor.Step{ID: "undo", Driver: "d"}), 1, conveyor.ErrInvalid, `finally[0].id: "undo" is the id of steps[0] too`},
		{"the id of the planning", steps(conveyor.Step{ID: conveyor.PlanStep, Driver: "d"}), 1, conveyor.ErrInvalid, "steps[0].id: "},
		{"a ring", steps(conveyor.Step{ID: "a", Driver: "d", After: []string{"b"}}, conveyor.Step{ID: "b", Driver: "d", After: []string{"a"}}), 1, conveyor.ErrInvalid, `"a", "b" wait for each other`},
		{"an arrow from nowhere", steps(conveyor.Step{Driver: "d", After: []string{"z"}}), 1, conveyor.ErrInvalid, `steps[0].after[0]: no step has the id "z"`},
		{"settings that are no JSON", steps(conveyor.Step{Driver: "d", With: json.RawMessage("{")}), 1, conveyor.ErrInvalid, "steps[0].with"},
		{"too many steps", steps(tooMany...), 1, conveyor.ErrTooLarge, "steps: 257 steps, more than the limit of 256"},
		{"too large steps", steps(conveyor.Step{Driver: "d", With: jsonOf(strings.Repeat("x", 3<<20))}), 1, conveyor.ErrTooLarge, "bytes as a document, more than the limit of 2097152"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work := new(recorder)
				e := newEngine(t, conveyor.Options{StepTimeout: time.Minute}).start()
				e.driver("d", work)
				f := newFanOut()
				f.Finally, f.plan = []conveyor.Step{{ID: "undo", Driver: "d"}}, c.plan
				e.plan(f)
				run := e.finish(object("x", nil))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Contains(t, run.Reason, c.reason)
				require.Equal(t, c.attempt, run.Step(conveyor.PlanStep).Attempt)
				var step *conveyor.StepError
				require.ErrorAs(t, run.Err(), &step)
				require.Equal(t, conveyor.PlanStep, step.Step)
				if c.is != nil {
					require.ErrorIs(t, run.Err(), c.is)
				}
				require.Equal(t, []string{"undo"}, work.steps(), "Finally is run all the same")
				time.Sleep(time.Hour)
			})
		})
	}
}

func TestRule11PlannerThatIsMissingBlocksTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := recording(taking(time.Minute))
		e := newEngine(t, conveyor.Options{}) // not started
		f := newFanOut()
		e.plan(f)
		run := e.apply(object("x", []string{"a", "b"}))

		e = e.crashed(conveyor.Options{})
		e.driver("d", work)
		e.start()
		time.Sleep(time.Second)
		blocked := e.run(run.ID)
		require.Equal(t, conveyor.StateBlocked, blocked.State)
		require.Equal(t, `step .plan: pipeline "p" has a Planner, and this program has not saved it with one`, blocked.Reason)
		e.plan(f)
		time.Sleep(time.Second)
		require.Equal(t, []string{conveyor.PlanStep, "1", "2"}, idsOf(e.run(run.ID)))

		e = e.crashed(conveyor.Options{}) // what was planned needs no Planner any more
		e.driver("d", work)
		e.start()
		require.NoError(t, e.ended(run.ID).Err())
		require.Equal(t, int64(1), f.calls.Load())
		require.Equal(t, []string{"1", "1+", "2"}, work.steps())
	})
}

func TestPlannerPlansADeletionToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := undoer{new(recorder), new(recorder)}
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", d)
		e.plan(newFanOut())
		require.NoError(t, e.finish(object("x", []string{"a", "b", "c"})).Err())
		run, err := e.Delete(t.Context(), object("x", nil).Key())
		require.NoError(t, err)
		run = e.ended(run.ID)
		require.NoError(t, run.Err())
		require.Equal(t, []string{conveyor.PlanStep, "3", "2", "1"}, idsOf(run))
		require.Equal(t, []string{"3", "2", "1"}, d.undo.steps())
		require.Equal(t, []string{"1", "2", "3"}, d.steps())
	})
}

func TestPlannerAndRetry(t *testing.T) {
	for _, c := range []struct {
		name  string
		from  conveyor.RetryFrom
		plans int64
		calls []string // of the retry
		ids   []string
	}{
		{"from the failed step", conveyor.RetryFrom{}, 0, []string{"2", "3"}, []string{".plan", "1", "2", "3"}},
		{"from a named step", conveyor.RetryFrom{Step: "1"}, 0, []string{"1", "2", "3"}, []string{".plan", "1", "2", "3"}},
		{"from the planning", conveyor.RetryFrom{Step: conveyor.PlanStep}, 1, []string{"1", "2", "3", "4"}, []string{".plan", "1", "2", "3", "4"}},
		{"from the start", conveyor.RetryFrom{Start: true}, 0, []string{"1", "2", "3"}, []string{".plan", "1", "2", "3"}},
		{"newest", conveyor.RetryFrom{Newest: true}, 1, []string{"2", "3", "4"}, []string{".plan", "1", "2", "3", "4"}},
		{"newest, from the start", conveyor.RetryFrom{Newest: true, Start: true}, 1, []string{"1", "2", "3", "4"}, []string{".plan", "1", "2", "3", "4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := true
				work := recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if broken && req.Step.ID == "2" {
						return conveyor.Done(), conveyor.Permanent(errBoom)
					}
					return conveyor.Done(), nil
				})
				e := newEngine(t, conveyor.Options{}).start()
				e.driver("d", work)
				f, n := newFanOut(), 3
				f.plan = func(context.Context, *conveyor.Object) (steps []conveyor.Step, err error) {
					for range n {
						steps = append(steps, conveyor.Step{Driver: "d"})
					}
					return steps, nil
				}
				e.plan(f)
				first := e.finish(object("x", nil))
				require.Equal(t, conveyor.StateFailed, first.State)
				broken, n = false, 4
				before := len(work.all())
				second, err := e.Retry(t.Context(), first.ID, c.from)
				require.NoError(t, err)
				second = e.ended(second.ID)
				require.NoError(t, second.Err())
				require.Equal(t, c.calls, work.steps()[before:])
				require.Equal(t, c.ids, idsOf(second))
				require.Equal(t, 1+c.plans, f.calls.Load())
			})
		})
	}
}

func TestPlannerPipelinesAreSavedWithoutSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		e.driver("d", new(recorder))
		f := newFanOut()
		f.Steps = []conveyor.Step{{Driver: "d"}}
		err := e.SavePipeline(t.Context(), f)
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		require.ErrorContains(t, err, "steps: has 1; the steps of a pipeline with a Planner are those that Plan returns")
		require.ErrorContains(t, e.SavePipeline(t.Context(), newFanOut().PipelineSpec), "steps: has none")

		e.plan(newFanOut())
		require.Len(t, e.finish(object("x", []string{"a"})).Steps, 2)
		e.pipeline("d") // from here on it has steps
		require.Equal(t, []string{"1"}, idsOf(e.finish(object("x", []string{"a", "b"}))))
		again := newFanOut()
		e.plan(again)
		e.plan(again)
		require.Equal(t, []string{conveyor.PlanStep, "1", "2", "3"}, idsOf(e.finish(object("x", []string{"a", "b", "c"}))))
		require.Equal(t, int64(1), again.calls.Load())
	})
}

func TestCancelEndsThePlanning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		f := newFanOut()
		f.plan = func(ctx context.Context, _ *conveyor.Object) ([]conveyor.Step, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		e.plan(f)
		run := e.apply(object("x", nil))
		time.Sleep(time.Second)
		require.NoError(t, e.Cancel(t.Context(), run.ID, "enough"))
		require.ErrorIs(t, e.ended(run.ID).Err(), conveyor.ErrCanceled)
	})
}

func TestPlannerAnswersWhileItsRunIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &probe{Store: memory.New()}
		e := newEngineOn(t, st, conveyor.Options{}).start()
		e.driver("d", recording(taking(time.Hour)))
		require.NoError(t, e.SavePipeline(t.Context(), fanOut{PipelineSpec: conveyor.PipelineSpec{Name: "p", Resource: "r"}, calls: new(atomic.Int64), plan: func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			time.Sleep(time.Second)
			return []conveyor.Step{{Driver: "d"}}, nil
		}}))
		run := e.apply(object("x", 1))
		st.on(func(key string) {
			if strings.HasPrefix(key, "pln/") {
				st.on(nil)
				time.Sleep(2 * time.Second) // the reader is slow, and the plan comes meanwhile
			}
		})
		_, err := e.GetRun(t.Context(), run.ID)
		require.NoError(t, err)
	})
}

func TestPlannerOfARetryWhoseOriginalIsGoneFailsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &probe{Store: memory.New()}
		e := newEngineOn(t, st, conveyor.Options{Retention: conveyor.Retention{Age: time.Hour}}).start()
		e.driver("d", recording(always(conveyor.Done(), conveyor.Permanent(errBoom))))
		require.NoError(t, e.SavePipeline(t.Context(), fanOut{PipelineSpec: conveyor.PipelineSpec{Name: "p", Resource: "r"}, calls: new(atomic.Int64), plan: func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			time.Sleep(time.Minute)
			return []conveyor.Step{{Driver: "d"}}, nil
		}}))
		old := e.finish(object("x", 1))
		time.Sleep(2 * time.Hour)
		st.on(func(key string) {
			if key == "run/"+old.ID { // the look at the past is slow
				st.on(nil)
				time.Sleep(10 * time.Second)
			}
		})
		newer, err := e.Trigger(t.Context(), object("x", nil).Key())
		require.NoError(t, err)
		e.ended(newer.ID)
		time.Sleep(time.Second)
		again, err := e.Retry(t.Context(), old.ID, conveyor.RetryFrom{Newest: true})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = e.GetRun(t.Context(), old.ID)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		require.True(t, e.run(again.ID).State.Final(), "%v", e.run(again.ID))
	})
}
