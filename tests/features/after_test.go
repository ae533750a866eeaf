package features_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// startsOf returns when each step of a run began, in seconds after the first one.
func startsOf(run *conveyor.Run) string {
	var first time.Time
	for _, s := range run.Steps {
		if !s.StartedAt.IsZero() && (first.IsZero() || s.StartedAt.Before(first)) {
			first = s.StartedAt
		}
	}
	var text []string
	for _, s := range run.Steps {
		if s.StartedAt.IsZero() {
			text = append(text, s.ID+" never")
		} else {
			text = append(text, fmt.Sprintf("%s %.0f", s.ID, s.StartedAt.Sub(first).Seconds()))
		}
	}
	return strings.Join(text, ", ")
}

func TestAfterOrdersListsAndGraphsAlike(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps conveyor.PipelineSpec
		want  string // each step takes a second
	}{
		{"a list", rig.GraphOf("a", "b", "c"), "a 0, b 1, c 2"},
		{"a step of a list that names another", rig.GraphOf("a", "b", "c<a", "d"), "a 0, b 1, c 1, d 2"},
		{"two steps of a list that name others", rig.GraphOf("a", "b<a", "c<a", "d", "e"), "a 0, b 1, c 1, d 2, e 3"},
		{"a step that starts at once", rig.GraphOf("a", "b", "c<", "d"), "a 0, b 1, c 0, d 2"},
		{"the first step that starts at once", rig.GraphOf("a<", "b", "c"), "a 0, b 1, c 2"},
		{"all start at once, but for the last", rig.GraphOf("a<", "b<", "c<", "d"), "a 0, b 0, c 0, d 1"},
		{"a step that names one listed behind it", rig.GraphOf("a<b", "b<", "c"), "a 1, b 0, c 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
				e.Save(c.steps)
				run := e.Finish(rig.Object("x", nil))
				require.NoError(t, run.Err())
				require.Equal(t, c.want, startsOf(run))
			})
		})
	}
}

// A list that becomes a graph by the After of two of its steps keeps the deployment behind the approval.
func TestADeploymentWithoutAfterWaitsForTheApproval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := rig.New(t, conveyor.Options{}).MustStart()
		deploy := new(rig.Recorder)
		e.Driver("d", new(rig.Recorder))
		e.Driver("asks", rig.DriverOf(rig.Awaiting(0)))
		e.Driver("deploys", deploy)
		p := rig.GraphOf("build", "test<build", "scan<build", "approve", "deploy")
		p.Steps[3].Driver, p.Steps[4].Driver = "asks", "deploys"
		e.Save(p)
		run := e.MustApply(rig.Object("x", nil))
		time.Sleep(time.Hour)
		require.Empty(t, deploy.All())
		require.NoError(t, e.Signal(t.Context(), run.ID, "go", "ann"))
		require.NoError(t, e.Ended(run.ID).Err())
		require.Len(t, deploy.All(), 1)
	})
}

func TestAStepWithoutAfterCountsWhatIsBeforeItLikeAnyOther(t *testing.T) {
	for _, c := range []struct {
		name     string
		bad      rig.Func
		tolerant bool
		state    conveyor.State
		want     string
	}{
		{"a success", rig.Always(conveyor.Done(), nil), false, conveyor.StateSucceeded, "bad 0, slow 0, next 2, last 2"},
		{"a skip", rig.Always(conveyor.Skip("not today"), nil), false, conveyor.StateSucceeded, "bad 0, slow 0, next 2, last 2"},
		{"a tolerated failure", rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), true, conveyor.StateSucceeded, "bad 0, slow 0, next 2, last 2"},
		{"a failure", rig.Always(conveyor.Done(), conveyor.Permanent(rig.ErrBoom)), false, conveyor.StateFailed, "bad 0, slow 0, next never, last never"},
		{"a halt", rig.Always(conveyor.Halt("enough"), nil), false, conveyor.StateSucceeded, "bad 0, slow 0, next never, last never"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("bad", rig.DriverOf(c.bad))
				e.Driver("slow", rig.DriverOf(rig.Taking(2*time.Second)))
				e.Driver("d", new(rig.Recorder))
				p := rig.GraphOf("bad<", "slow<", "next", "last<next")
				p.Steps[0].Driver, p.Steps[1].Driver, p.Steps[0].ContinueOnError = "bad", "slow", c.tolerant
				e.Save(p)
				run := e.Finish(rig.Object("x", nil))
				require.Equal(t, c.state, run.State)
				require.Equal(t, c.want, startsOf(run))
			})
		})
	}
}

func TestPlannedStepsFollowTheRuleOfAfter(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps conveyor.PipelineSpec
		want  string // each step takes a second, and so does the planning
	}{
		{"a list", rig.GraphOf("a", "b"), ".plan 0, a 1, b 2"},
		{"a graph", rig.GraphOf("a", "b<a", "c<a", "d"), ".plan 0, a 1, b 2, c 2, d 3"},
		{"steps that start at once start after the planning", rig.GraphOf("a", "b<", "c"), ".plan 0, a 1, b 1, c 2"},
		{"all of them", rig.GraphOf("a<", "b<"), ".plan 0, a 1, b 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
				f := rig.NewFanOut()
				f.Func = func(ctx context.Context, _ *conveyor.Object) ([]conveyor.Step, error) {
					_, err := rig.Taking(time.Second)(ctx, nil)
					return c.steps.Steps, err
				}
				e.SavePlanned(f)
				run := e.Finish(rig.Object("x", nil))
				require.NoError(t, run.Err())
				require.Equal(t, c.want, startsOf(run))
			})
		})
	}
}

// What lies behind a step is repeated with it, though nobody wrote that it comes after it.
func TestRetryRollbackAndDeleteFollowTheRuleOfAfter(t *testing.T) {
	for _, c := range []struct {
		name string
		from conveyor.RetryFrom
		want string // the steps that are called again, and when
	}{
		{"from the failed step", conveyor.RetryFrom{}, "d 0, e 0"},
		{"from a step in the middle", conveyor.RetryFrom{Step: "b"}, "b 0, d 2, e 2"},
		{"from a step that starts at once", conveyor.RetryFrom{Step: "c"}, "c 0, d 1, e 1"},
		{"from the start", conveyor.RetryFrom{Start: true}, "a 0, b 2, c 0, d 4, e 4"},
		{"on the newest definition", conveyor.RetryFrom{Newest: true}, "d 0, e 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := true
				work := rig.Recording(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
					if broken && req.Step.ID == "d" {
						return conveyor.Done(), conveyor.Permanent(rig.ErrBoom)
					}
					lasts := map[string]time.Duration{"a": 2 * time.Second, "b": 2 * time.Second, "c": time.Second}[req.Step.ID]
					return rig.Taking(lasts)(ctx, req)
				})
				d := rig.Undoing(work, new(rig.Recorder))
				e := rig.New(t, conveyor.Options{}).MustStart()
				e.Driver("d", d)
				e.Save(rig.GraphOf("a", "b", "c<", "d", "e"))
				first := e.Finish(rig.Object("x", 1))
				require.Equal(t, conveyor.StateFailed, first.State)
				n := len(work.All())
				broken = false
				again, err := e.Retry(t.Context(), first.ID, c.from)
				require.NoError(t, err)
				require.NoError(t, e.Ended(again.ID).Err())
				calls := work.All()[n:]
				slices.SortFunc(calls, func(a, b rig.Call) int { return strings.Compare(a.Step, b.Step) })
				var got []string
				for _, call := range calls {
					got = append(got, fmt.Sprintf("%s %.0f", call.Step, call.Began.Sub(again.CreatedAt).Seconds()))
				}
				require.Equal(t, c.want, strings.Join(got, ", "))

				require.NoError(t, e.Finish(rig.Object("x", 2)).Err())
				back, err := e.Rollback(t.Context(), rig.Object("x", nil).Key(), 1)
				require.NoError(t, err)
				require.Equal(t, "a 0, b 2, c 0, d 4, e 4", startsOf(e.Ended(back.ID)))

				gone, err := e.Delete(t.Context(), rig.Object("x", nil).Key())
				require.NoError(t, err)
				require.NoError(t, e.Ended(gone.ID).Err())
				require.Equal(t, []string{"e", "d", "c", "b", "a"}, d.Undo.Steps())
			})
		})
	}
}

func TestRingsNameTheEdgeThatNobodyWrote(t *testing.T) {
	for _, c := range []struct {
		name string
		spec conveyor.PipelineSpec
		want string
	}{
		{"two steps", rig.GraphOf("a<c", "b<", "c"), `steps: the steps "a", "c" wait for each other: "c" has no after, so it comes after "a"`},
		{"a longer ring", rig.GraphOf("a<d", "b<", "c", "d<c"), `steps: the steps "a", "c", "d" wait for each other: "c" has no after, so it comes after "a"`},
		{"written alone", rig.GraphOf("a", "b<c", "c<b"), `steps: the steps "b", "c" wait for each other`},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.EqualError(t, c.spec.Validate(), "conveyor: invalid: "+c.want)
			e := rig.New(t, conveyor.Options{})
			err := e.SavePipeline(t.Context(), c.spec)
			require.ErrorIs(t, err, conveyor.ErrInvalid)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestFinallyHasNoAfter(t *testing.T) {
	for _, after := range [][]string{conveyor.AtOnce(), {"a"}} {
		p := rig.GraphOf("a")
		p.Finally = []conveyor.Step{{ID: "f", Driver: "d", After: after}}
		require.ErrorContains(t, p.Validate(), "finally[0].after: has no meaning here; these steps run in order")
	}
}

func TestMermaidDrawsTheTransitiveReduction(t *testing.T) {
	for _, c := range []struct {
		name string
		spec conveyor.PipelineSpec
		want string // the arrows
	}{
		{"a list", rig.GraphOf("a", "b", "c"), "s1-->s2 s2-->s3 s3-.finally.->s%d"},
		{"a step without After behind three", rig.GraphOf("a", "b<a", "c<a", "d"), "s1-->s2 s1-->s3 s2-->s4 s3-->s4 s4-.finally.->s%d"},
		{"what is written twice over", rig.GraphOf("a", "b<a", "c<a,b"), "s1-->s2 s2-->s3 s3-.finally.->s%d"},
		{"a step that starts at once", rig.GraphOf("a", "b", "c<", "d"), "s1-->s2 s2-->s4 s3-->s4 s4-.finally.->s%d"},
		{"no step without After behind", rig.GraphOf("a", "b<", "c<a"), "s1-->s3 s2-.finally.->s%[1]d s3-.finally.->s%[1]d"},
		{"a step that names one listed behind it", rig.GraphOf("a<b", "b<", "c"), "s2-->s1 s1-->s3 s3-.finally.->s%d"},
		{"a ring as it is", rig.GraphOf("a<b", "b<a", "c<a,b"), "s2-->s1 s1-->s2 s1-->s3 s2-->s3 s3-.finally.->s%d"},
		{"a step that names none there is", rig.GraphOf("a", "b<x"), "s1-.finally.->s%[1]d s2-.finally.->s%[1]d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Finally = []conveyor.Step{{ID: "f", Driver: "d"}}
			var picture strings.Builder
			require.NoError(t, c.spec.Mermaid(&picture))
			var arrows []string
			for line := range strings.Lines(picture.String()) {
				if strings.Contains(line, ">") && !strings.Contains(line, "[") {
					arrows = append(arrows, strings.ReplaceAll(strings.TrimSpace(line), " ", ""))
				}
			}
			require.Equal(t, fmt.Sprintf(c.want, len(c.spec.Steps)+1), strings.Join(arrows, " "))
		})
	}
}

// oldRecords are stores with what a program of format 1 left behind when it died. Its rule of After had each step without
// After start at once if another step has one. The pipelines list, graph and failing have the steps first, second, side
// and last; in the latter two, second comes after first, and last after second and side. Each has a run of the resource
// with its name:
//
//   - list: waits for the signal go in first;
//   - graph: waits for the signal go in first, and has not begun side, whose driver was missing;
//   - failing: has failed in first and in side;
//   - planned: like graph, of steps that a Planner has returned;
//   - planning: was calling its Planner.
var oldRecords = []struct {
	name string
	open func(t *testing.T) store.Store
}{
	{"file", func(t *testing.T) store.Store { return openOld(t, "order-format1.db.gz") }},
	{"memory", func(t *testing.T) store.Store {
		old, st := openOld(t, "order-format1.db.gz"), memory.New()
		for r, err := range old.List(t.Context(), store.Query{}) {
			require.NoError(t, err)
			_, err = st.Commit(t.Context(), store.Put(r.Key, r.Value))
			require.NoError(t, err)
		}
		return st
	}},
}

// oldSteps are the steps of the old pipelines.
func oldSteps() []conveyor.Step {
	return rig.GraphOf("first", "second<first", "side", "last<second,side").Steps
}

// oldProgram is the program that continues the old records. Its driver "side" is there now.
func oldProgram(e *rig.Engine) *rig.Engine {
	e.T.Helper()
	e.Driver("d", rig.DriverOf(rig.Taking(time.Second)))
	e.Driver("side", rig.DriverOf(rig.Taking(time.Second)))
	e.Driver("fails", rig.DriverOf(rig.Taking(time.Second))) // no longer
	e.Driver("waits", rig.DriverOf(rig.Awaiting(0)))
	f := rig.NewFanOut()
	f.Name = "planning"
	f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { return oldSteps(), nil }
	e.SavePlanned(f)
	return e
}

// oldRuns returns the runs of the old records by the names of their resources.
func oldRuns(e *rig.Engine) map[string]*conveyor.Run {
	runs := map[string]*conveyor.Run{}
	for _, run := range rig.Drain(e.T, e.Runs(context.Background(), conveyor.RunFilter{})) {
		if runs[run.Resource.Name] == nil {
			runs[run.Resource.Name] = e.MustGetRun(run.ID)
		}
	}
	return runs
}

const atOnceByTheOldRule = "first 0, second 1, side 0, last 2"

func TestRunsPinnedUnderTheOldRuleOfAfterKeepIt(t *testing.T) {
	for _, old := range oldRecords {
		t.Run(old.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				e := oldProgram(rig.NewOn(t, old.open(t), conveyor.Options{})).MustStart()
				time.Sleep(time.Hour)
				runs := oldRuns(e)
				for name, want := range map[string][]string{
					"list": {"first waiting"}, "graph": {"first waiting", "side succeeded"},
					"planned":  {".plan succeeded", "first waiting", "side succeeded"},
					"failing":  {"first failed", "side failed"},
					"planning": {".plan succeeded", "first succeeded", "second succeeded", "side succeeded", "last succeeded"},
				} {
					var got []string
					for _, s := range runs[name].Steps {
						if s.State != conveyor.StatePending && s.State != conveyor.StateSkipped {
							got = append(got, s.ID+" "+s.State.String())
						}
					}
					require.Equal(t, want, got, name)
				}
				require.Equal(t, ".plan 0, first 0, second 1, side 2, last 3", startsOf(runs["planning"]), "the Planner is of this program")
				var picture strings.Builder
				require.NoError(t, runs["graph"].Mermaid(&picture))
				require.Contains(t, picture.String(), "  s1 --> s2\n  s2 --> s4\n  s3 --> s4\n  classDef")

				// A definition that is not saved anew keeps its meaning, and is shown in the words of the present rule.
				read, err := e.GetPipeline(ctx, "graph")
				require.NoError(t, err)
				require.Equal(t, conveyor.AtOnce(), read.Steps[2].After)
				read, err = e.GetPipeline(ctx, "list")
				require.NoError(t, err)
				require.Nil(t, read.Steps[2].After)
				again, err := e.Retry(ctx, runs["failing"].ID, conveyor.RetryFrom{})
				require.NoError(t, err)
				require.Equal(t, atOnceByTheOldRule, startsOf(e.Ended(again.ID)))
				object := rig.Along("failing", "failing")
				object.Spec = rig.JSON(2)
				require.Equal(t, atOnceByTheOldRule, startsOf(e.Finish(object)))

				// Saving the same text anew is a change, for the runs that begin from now on.
				failing := conveyor.PipelineSpec{Name: "failing", Resource: "r", Steps: oldSteps()}
				failing.Steps[0].Driver, failing.Steps[2].Driver = "fails", "fails"
				graph := conveyor.PipelineSpec{Name: "graph", Resource: "r", Steps: oldSteps()}
				graph.Steps[0].Driver, graph.Steps[2].Driver = "waits", "side"
				require.Equal(t, 1, savedAnew(e, failing))
				require.Equal(t, 0, savedAnew(e, failing))
				require.Equal(t, 1, savedAnew(e, graph))
				object.Spec = rig.JSON(3)
				require.Equal(t, "first 0, second 1, side 2, last 3", startsOf(e.Finish(object)))
				back, err := e.Rollback(ctx, object.Key(), 1)
				require.NoError(t, err)
				require.Equal(t, "first 0, second 1, side 2, last 3", startsOf(e.Ended(back.ID)))

				// The runs that have pinned the old definition do not notice, over a restart too.
				e = oldProgram(e.Crashed(conveyor.Options{})).MustStart()
				for _, name := range []string{"graph", "planned", "list"} {
					require.NoError(t, e.Signal(ctx, runs[name].ID, "go", "ann"))
					run := e.Ended(runs[name].ID)
					require.NoError(t, run.Err())
					require.Equal(t, name != "list", run.Step("side").StartedAt.Before(run.Step("second").StartedAt), name)
					require.False(t, run.Step("last").StartedAt.Before(run.Step("side").EndedAt), name)
				}
				rig.RequireAtRest(t, e.Store.Store)
			})
		})
	}
}

// savedAnew saves a pipeline and returns how many changes of pipelines that made.
func savedAnew(e *rig.Engine, p conveyor.PipelineSpec) (changes int) {
	e.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() {
		for event, err := range e.Watch(ctx, conveyor.WatchOptions{}) {
			if err == nil && event.Kind == conveyor.EventPipeline {
				changes++
			}
		}
	})
	synctest.Wait()
	e.Save(p)
	synctest.Wait()
	cancel()
	watch.Wait()
	return changes
}

// TestOldRunsKeepTheirOrderAtADeathAtEveryCommit lets the program that continues the old records die at its first commit,
// at its second, and so on.
func TestOldRunsKeepTheirOrderAtADeathAtEveryCommit(t *testing.T) {
	for _, old := range oldRecords {
		t.Run(old.name, func(t *testing.T) {
			stride := testenv.Some(t, 3, 1)
			for n, died := 1, true; died; n += stride {
				synctest.Test(t, func(t *testing.T) { died = oldRunsWithADeath(t, old.open(t), n) })
			}
		})
	}
}

// oldRunsWithADeath continues the old records, and reports whether the program died at commit n on the way.
func oldRunsWithADeath(t *testing.T, st store.Store, n int) (died bool) {
	e := rig.NewOn(t, st, conveyor.Options{})
	var mu sync.Mutex // guards commits
	commits := 0
	e.Store.Refusing(func([]string) error {
		mu.Lock()
		defer mu.Unlock()
		if commits++; commits >= n {
			return store.ErrClosed
		}
		return nil
	})
	live := func(e *rig.Engine) {
		ctx := t.Context()
		for _, name := range []string{"d", "side", "fails"} {
			e.Driver(name, rig.DriverOf(rig.Taking(time.Second)))
		}
		e.Driver("waits", rig.DriverOf(rig.Awaiting(0)))
		f := rig.NewFanOut()
		f.Name = "planning"
		f.Func = func(context.Context, *conveyor.Object) ([]conveyor.Step, error) { return oldSteps(), nil }
		if e.SavePipeline(ctx, f) != nil || e.Start(ctx) != nil {
			return
		}
		time.Sleep(time.Minute)
		for run, err := range e.Runs(ctx, conveyor.RunFilter{Unfinished: true}) {
			if err != nil {
				return
			}
			run = e.MustGetRun(run.ID)
			if first := run.Step("first"); first != nil && first.State == conveyor.StateWaiting {
				_ = e.Signal(ctx, run.ID, "go", "ann") // refused by a store that is dead
			}
		}
		time.Sleep(time.Minute)
	}
	live(e)
	mu.Lock()
	died = commits >= n
	mu.Unlock()
	e = e.Crashed(conveyor.Options{})
	live(e)
	runs := oldRuns(e)
	require.Len(t, runs, 5)
	for _, name := range slices.Sorted(maps.Keys(runs)) {
		run := runs[name]
		require.True(t, run.State.Final(), "%s: %s", name, run.State)
		if name == "failing" {
			continue
		}
		require.NoError(t, run.Err(), "%s, commit %d", name, n)
		require.Equal(t, name == "graph" || name == "planned", run.Step("side").StartedAt.Before(run.Step("second").StartedAt), "%s, commit %d: %s", name, n, startsOf(run))
		require.False(t, run.Step("last").StartedAt.Before(run.Step("side").EndedAt))
		require.False(t, run.Step("second").StartedAt.Before(run.Step("first").EndedAt))
	}
	return died
}
