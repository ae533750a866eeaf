package features_test

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
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/store/memory"
)

func idsOf(run *conveyor.Run) (ids []string) {
	for _, s := range run.Steps {
		ids = append(ids, s.ID)
	}
	return ids
}

func TestPlannerComputesTheStepsOfEachResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Second))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", work)
		f := rig.NewFanOut()
		f.Finally = []conveyor.Step{{Driver: "d"}}
		e.SavePlanned(f)
		two := e.MustApply(rig.Object("two", []string{"a", "b"}))
		three := e.Finish(rig.Object("three", []string{"a", "b", "c"}))
		two = e.Ended(two.ID)
		require.NoError(t, two.Err())
		require.NoError(t, three.Err())
		require.Equal(t, []string{conveyor.PlanStep, "1", "2", "finally-1"}, idsOf(two))
		require.Equal(t, []string{conveyor.PlanStep, "1", "2", "3", "finally-1"}, idsOf(three))
		require.JSONEq(t, `"c"`, string(three.Step("3").With))
		require.Equal(t, 6, e.Store.CommitsOf(three.ID), "N+1, the planning included")
		require.Equal(t, int64(2), f.Calls.Load())
		var order []string
		for _, c := range work.All() {
			if c.Resource == "three" {
				order = append(order, c.Step)
			}
		}
		require.Equal(t, []string{"1", "2", "3", "finally-1"}, order)
		saved, err := e.GetPipeline(t.Context(), "p")
		require.NoError(t, err)
		require.Empty(t, saved.Steps)

		none := e.Finish(rig.Object("none", []string{}))
		require.NoError(t, none.Err())
		require.Equal(t, []string{conveyor.PlanStep, "finally-1"}, idsOf(none))
		later := e.Finish(rig.Object("two", []string{"a"}))
		require.Equal(t, []string{conveyor.PlanStep, "1", "finally-1"}, idsOf(later))
		require.Equal(t, two, e.MustGetRun(two.ID), "what was planned stays")
	})
}

func TestPlannerMayPlanAGraph(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Second))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", work)
		f := rig.NewFanOut()
		f.Func = func(ctx context.Context, _ *conveyor.Object) ([]conveyor.Step, error) {
			_, err := rig.Taking(time.Second)(ctx, nil)
			return []conveyor.Step{{ID: "a", Driver: "d"}, {ID: "b", Driver: "d", After: conveyor.AtOnce()}, {ID: "c", Driver: "d", After: []string{"a", "b"}}}, err
		}
		e.SavePlanned(f)
		run := e.Finish(rig.Object("x", nil))
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
		{"an error", func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { return nil, rig.ErrBoom }, 3, nil, "boom"},
		{"an error for good", func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			return nil, conveyor.Permanent(rig.ErrBoom)
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
		{"too many steps", steps(tooMany...), 1, conveyor.ErrTooLarge, "steps: 257 steps, more than the limit of 256 (Limits.Steps)"},
		{"too large steps", steps(conveyor.Step{Driver: "d", With: rig.JSON(strings.Repeat("x", 3<<20))}), 1, conveyor.ErrTooLarge, "bytes as a document, more than the limit of 2097152 (Limits.Document)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work := new(rig.Recorder)
				e := rig.New(t, conveyor.Options{StepTimeout: time.Minute}).MustStart()
				e.Driver("d", work)
				f := rig.NewFanOut()
				f.Finally, f.Func = []conveyor.Step{{ID: "undo", Driver: "d"}}, c.plan
				e.SavePlanned(f)
				run := e.Finish(rig.Object("x", nil))
				require.Equal(t, conveyor.StateFailed, run.State)
				require.Contains(t, run.Reason, c.reason)
				require.Equal(t, c.attempt, run.Step(conveyor.PlanStep).Attempt)
				var step *conveyor.StepError
				require.ErrorAs(t, run.Err(), &step)
				require.Equal(t, conveyor.PlanStep, step.Step)
				if c.is != nil {
					require.ErrorIs(t, run.Err(), c.is)
				}
				require.Equal(t, []string{"undo"}, work.Steps(), "Finally is run all the same")
				time.Sleep(time.Hour)
			})
		})
	}
}

func TestRule11PlannerThatIsMissingBlocksTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := rig.Recording(rig.Taking(time.Minute))
		e := rig.New(t, conveyor.Options{}) // not started
		f := rig.NewFanOut()
		e.SavePlanned(f)
		run := e.MustApply(rig.Object("x", []string{"a", "b"}))

		e = e.Crashed(conveyor.Options{})
		e.Driver("d", work)
		e.MustStart()
		time.Sleep(time.Second)
		blocked := e.MustGetRun(run.ID)
		require.Equal(t, conveyor.StateBlocked, blocked.State)
		require.Equal(t, `step .plan: pipeline "p" has a Planner, and this program has not saved it with one`, blocked.Reason)
		e.SavePlanned(f)
		time.Sleep(time.Second)
		require.Equal(t, []string{conveyor.PlanStep, "1", "2"}, idsOf(e.MustGetRun(run.ID)))

		e = e.Crashed(conveyor.Options{}) // what was planned needs no Planner any more
		e.Driver("d", work)
		e.MustStart()
		require.NoError(t, e.Ended(run.ID).Err())
		require.Equal(t, int64(1), f.Calls.Load())
		require.Equal(t, []string{"1", "1+", "2"}, work.Steps())
	})
}

func TestADeletionFinalizesThePlannedSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := rig.Undoing(new(rig.Recorder), new(rig.Recorder))
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", d)
		f := rig.NewFanOut()
		e.SavePlanned(f)
		require.NoError(t, e.Finish(rig.Object("x", []string{"a", "b", "c"})).Err())
		run, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err)
		run = e.Ended(run.ID)
		require.NoError(t, run.Err())
		require.Equal(t, []string{"3", "2", "1"}, idsOf(run))
		require.EqualValues(t, 1, f.Calls.Load(), "nothing is planned again")
		require.Equal(t, []string{"3", "2", "1"}, d.Undo.Steps())
		require.Equal(t, []string{"1", "2", "3"}, d.Steps())
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
				work := rig.Recording(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if broken && req.Step.ID == "2" {
						return conveyor.Done(), conveyor.Permanent(rig.ErrBoom)
					}
					return conveyor.Done(), nil
				})
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", work)
				f, n := rig.NewFanOut(), 3
				f.Func = func(context.Context, *conveyor.Object) (steps []conveyor.Step, err error) {
					for range n {
						steps = append(steps, conveyor.Step{Driver: "d"})
					}
					return steps, nil
				}
				e.SavePlanned(f)
				first := e.Finish(rig.Object("x", nil))
				require.Equal(t, conveyor.StateFailed, first.State)
				broken, n = false, 4
				before := len(work.All())
				second, err := e.Retry(t.Context(), first.ID, c.from)
				require.NoError(t, err)
				second = e.Ended(second.ID)
				require.NoError(t, second.Err())
				require.Equal(t, c.calls, work.Steps()[before:])
				require.Equal(t, c.ids, idsOf(second))
				require.Equal(t, 1+c.plans, f.Calls.Load())
			})
		})
	}
}

func TestPlannerPipelinesAreSavedWithoutSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		e.Driver("d", new(rig.Recorder))
		f := rig.NewFanOut()
		f.Steps = []conveyor.Step{{Driver: "d"}}
		err := e.SavePipeline(t.Context(), f)
		require.ErrorIs(t, err, conveyor.ErrInvalid)
		require.ErrorContains(t, err, "steps: has 1; the steps of a pipeline with a Planner are those that Plan returns")
		require.ErrorContains(t, e.SavePipeline(t.Context(), rig.NewFanOut().PipelineSpec), "steps: has none")

		e.SavePlanned(rig.NewFanOut())
		require.Len(t, e.Finish(rig.Object("x", []string{"a"})).Steps, 2)
		e.Pipeline("d") // from here on it has steps
		require.Equal(t, []string{"1"}, idsOf(e.Finish(rig.Object("x", []string{"a", "b"}))))
		again := rig.NewFanOut()
		e.SavePlanned(again)
		e.SavePlanned(again)
		require.Equal(t, []string{conveyor.PlanStep, "1", "2", "3"}, idsOf(e.Finish(rig.Object("x", []string{"a", "b", "c"}))))
		require.Equal(t, int64(1), again.Calls.Load())
	})
}

func TestCancelEndsThePlanning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		f := rig.NewFanOut()
		f.Func = func(ctx context.Context, _ *conveyor.Object) ([]conveyor.Step, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		e.SavePlanned(f)
		run := e.MustApply(rig.Object("x", nil))
		time.Sleep(time.Second)
		require.NoError(t, e.Cancel(t.Context(), run.ID, "enough"))
		require.ErrorIs(t, e.Ended(run.ID).Err(), conveyor.ErrCanceled)
	})
}

func TestPlannerAnswersWhileItsRunIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{}).MustStart()
		e.Driver("d", rig.Recording(rig.Taking(time.Hour)))
		require.NoError(t, e.SavePipeline(t.Context(), rig.FanOut{PipelineSpec: conveyor.PipelineSpec{Name: "p", Resource: "r"}, Calls: new(atomic.Int64), Func: func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			time.Sleep(time.Second)
			return []conveyor.Step{{Driver: "d"}}, nil
		}}))
		run := e.MustApply(rig.Object("x", 1))
		st.After(func(key string) {
			if strings.HasPrefix(key, "pln/") {
				st.After(nil)
				time.Sleep(2 * time.Second) // the reader is slow, and the plan comes meanwhile
			}
		})
		_, err := e.GetRun(t.Context(), run.ID)
		require.NoError(t, err)
	})
}

func TestPlannerOfARetryWhoseOriginalIsGoneFailsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &rig.Probe{Store: memory.New()}
		e := rig.NewOn(t, st, conveyor.Options{Retention: conveyor.Retention{Age: time.Hour}}).MustStart()
		e.Driver("d", rig.Recording(rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom))))
		require.NoError(t, e.SavePipeline(t.Context(), rig.FanOut{PipelineSpec: conveyor.PipelineSpec{Name: "p", Resource: "r"}, Calls: new(atomic.Int64), Func: func(context.Context, *conveyor.Object) ([]conveyor.Step, error) {
			time.Sleep(time.Minute)
			return []conveyor.Step{{Driver: "d"}}, nil
		}}))
		old := e.Finish(rig.Object("x", 1))
		time.Sleep(2 * time.Hour)
		st.After(func(key string) {
			if key == "run/"+old.ID { // the look at the past is slow
				st.After(nil)
				time.Sleep(10 * time.Second)
			}
		})
		newer, err := e.Trigger(t.Context(), rig.Object("x", nil).Key())
		require.NoError(t, err)
		e.Ended(newer.ID)
		time.Sleep(time.Second)
		again, err := e.Retry(t.Context(), old.ID, conveyor.RetryFrom{Newest: true})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = e.GetRun(t.Context(), old.ID)
		require.ErrorIs(t, err, conveyor.ErrNotFound)
		require.True(t, e.MustGetRun(again.ID).State.Final(), "%v", e.MustGetRun(again.ID))
	})
}
