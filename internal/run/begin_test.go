package run_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

func TestRunBeginsAlongItsPipeline(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b")
	w.host.places["p"] = 1
	p := listOf("a", "b")
	p.Timeout = document.Duration(time.Minute)
	saved := w.savePipeline("p", p)
	k := w.queuedRun("p", record.Created)
	w.now++
	r := w.drive(k, run.Input{})
	require.Equal(t, []string{"a"}, r.starts)
	require.True(t, r.begun)
	require.Equal(t, []run.Change{{State: plan.Running}, {Step: "a", Driver: "a", State: plan.Running, Attempt: 1}}, r.changes)
	is := w.recOf(k)
	require.Equal(t, plan.Running, is.Rec.State)
	require.Equal(t, saved.Hash, is.Rec.Hash, "the plan is the definition's")
	require.False(t, w.has(record.PlanKey(k.id)))
	require.Equal(t, w.now, is.Rec.Started)
	require.Equal(t, w.now.Add(time.Minute), is.Rec.Deadline)
	require.Equal(t, start, is.Rec.MadeAt)
	head := w.head()
	require.Equal(t, k.id, head.Active)
	require.Empty(t, head.Pending)
	require.Zero(t, head.Cause)
	require.Equal(t, plan.Running, head.Status.Phase)
	require.Zero(t, w.host.places["p"])
	require.JSONEq(t, `{"a":1}`, string(k.state.Spec))
}

// TestRunThatCannotBegin looks at each reason for which a run stays queued, or ends before it has begun.
func TestRunThatCannotBegin(t *testing.T) {
	active := func(_ *record.Run, head *record.Resource) { head.Active = "other" }
	for _, c := range []struct {
		name     string
		pipeline string
		cause    record.Cause
		records  func(*record.Run, *record.Resource)
		world    func(*world)
		preempts plan.Stop // of the run at work
		needs    bool      // a worker
		end      plan.State
		reason   string
	}{
		{"another run is at work", "p", record.Updated, active, nil, plan.StopNone, false, plan.Unset, ""},
		{"another run is at work, which a newer generation supersedes", "p", record.Updated, func(rec *record.Run, head *record.Resource) {
			active(rec, head)
			head.Supersede = true
		}, nil, plan.StopSupersede, false, plan.Unset, ""},
		{"another run is at work, and the resource is to be deleted", "p", record.Deleted, active, nil, plan.StopCancel, false, plan.Unset, ""},
		{"another run waits before it", "p", record.Updated, func(rec *record.Run, head *record.Resource) {
			rec.Position, head.Pending, head.Queued, head.LastPosition = 1, "other", 1, 1
		}, func(w *world) {
			w.put(record.PendingKey(resource, 1), &record.Pending{Run: "run0001", Generation: 1, Cause: record.Updated})
		}, plan.StopNone, false, plan.Unset, ""},
		{"the pipeline has no place", "p", record.Created, nil, func(w *world) { w.host.places["p"] = 0 }, plan.StopNone, false, plan.Unset, ""},
		{"no worker is free", "p", record.Created, nil, func(w *world) { w.host.workers = 0 }, plan.StopNone, true, plan.Unset, ""},
		{"the driver has no slot", "p", record.Created, nil, func(w *world) { w.host.drivers["a"].slots = 0 }, plan.StopNone, false, plan.Unset, ""},
		{"an abandoned call has not returned", "p", record.Created, nil, func(w *world) { w.host.held = true }, plan.StopNone, false, plan.Unset, ""},
		{"the host is draining", "p", record.Created, nil, func(w *world) { w.host.draining = true }, plan.StopNone, false, plan.Unset, ""},

		{"the resource is gone", "p", record.Created, func(rec *record.Run, _ *record.Resource) { rec.ResourceID = "earlier" }, nil,
			plan.StopNone, false, plan.Failed, "the resource no longer has this run"},
		{"the resource has another run instead", "p", record.Created, func(_ *record.Run, head *record.Resource) { head.Pending = "other" }, nil,
			plan.StopNone, false, plan.Failed, "the resource no longer has this run"},
		{"the resource is to be deleted", "p", record.Updated, func(_ *record.Run, head *record.Resource) { head.Deleted = start }, nil,
			plan.StopNone, false, plan.Canceled, "the resource is to be deleted"},
		{"the pipeline was deleted", "q", record.Created, nil, nil, plan.StopNone, false, plan.Failed, `pipeline "q" was deleted`},
		{"the pipeline is for another type now", "p", record.Created, nil, func(w *world) {
			w.savePipeline("p", listOf("a"), func(rec *record.Pipeline) { rec.Resource = "other" })
		}, plan.StopNone, false, plan.Failed, `pipeline "p" is now for resources of type "other"`},
		{"no driver listens", "", record.Created, nil, nil, plan.StopNone, false, plan.Skipped, `no driver listens to resources of type "thing", and the resource names no pipeline: its Meta.Pipeline is empty`},
		{"too many drivers listen", "", record.Created, nil, func(w *world) {
			w.host.listeners, w.limits.Steps = []string{"a", "b", "c"}, 2
		}, plan.StopNone, false, plan.Failed, `3 drivers listen to resources of type "thing", more than the limit of 2 (Limits.Steps)`},
		{"more drivers listen than a record can hold", "", record.Created, nil, func(w *world) {
			w.host.listeners, w.limits.Steps = manyNames(20_000), 30_000
		}, plan.StopNone, false, plan.Failed, "the 20000 steps of the run have 10560030 bytes as a record, more than the limit of 8388608 (a fixed limit)"},
		{"no driver listens, and the host is draining", "", record.Created, nil, func(w *world) { w.host.draining = true },
			plan.StopNone, false, plan.Unset, ""},
		{"the run that it repeats is gone", "p", record.Retried, func(rec *record.Run, _ *record.Resource) { rec.Of = "gone" }, nil,
			plan.StopNone, false, plan.Failed, "run gone, which this one repeats, is no longer on record"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b", "c")
			w.savePipeline("p", listOf("a"))
			var changes []func(*record.Run, *record.Resource)
			if c.records != nil {
				changes = append(changes, c.records)
			}
			k := w.queuedRun(c.pipeline, c.cause, changes...)
			if c.world != nil {
				c.world(w)
			}
			free := w.host.places["p"]
			before := w.records()
			r := w.drive(k, run.Input{})
			require.Empty(t, r.starts)
			require.Equal(t, c.needs, r.needsWorker)
			require.Equal(t, free, w.host.places["p"])
			if c.preempts == plan.StopNone {
				require.Nil(t, r.preempts)
			} else {
				require.Equal(t, "other", r.preempts.Run)
				require.Equal(t, c.preempts, r.preempts.Stop.Kind)
				require.True(t, r.preempts.Stop.Gently)
			}
			rec := w.recOf(k).Rec
			if c.end == plan.Unset {
				require.False(t, r.over)
				require.Empty(t, r.ops)
				require.Equal(t, before, w.records())
				require.Equal(t, plan.Queued, rec.State)
				return
			}
			require.True(t, r.over)
			require.Equal(t, c.end, rec.State)
			require.Equal(t, c.reason, rec.Reason)
			require.Zero(t, rec.Started)
			require.False(t, w.has(record.ActiveKey(k.id)))
			require.Equal(t, c.end == plan.Skipped, w.has(record.UnlistenedKey(resource)))
			if head := w.head(); head.Status.Run == k.id && rec.ResourceID == head.ID && head.Pending != "other" {
				require.Empty(t, head.Pending)
				require.Equal(t, c.end, head.Status.Phase)
				require.Equal(t, c.reason, head.Status.Message)
			}
		})
	}
}

func TestRunThatIsMissingItsDriverBegins(t *testing.T) {
	w := newWorld(t)
	w.savePipeline("p", listOf("a"))
	k := w.queuedRun("p", record.Created)
	r := w.drive(k, run.Input{})
	require.True(t, r.begun)
	require.False(t, r.idle, "that it is blocked is on record")
	require.Equal(t, plan.Blocked, w.recOf(k).Steps[0].Rec.State)
	require.Equal(t, plan.Running, w.recOf(k).Rec.State)
}

func TestIdleRunWritesItsLinesAlone(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	w.host.workers = 0
	w.savePipeline("p", listOf("a"))
	k := w.queuedRun("p", record.Created)
	k.lines.pending = 1
	r := w.drive(k, run.Input{})
	require.True(t, r.idle)
	require.Equal(t, []string{record.LogKey(k.id, 1), "?" + record.RunKey(k.id)}, r.ops)
	require.Empty(t, r.changes)
}

func TestRunTakesUpWhatIsOnRecordWhenItBegins(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b")
	w.savePipeline("p", listOf("a"))
	w.savePipeline("q", listOf("b"))
	k := w.queuedRun("p", record.Created, func(_ *record.Run, head *record.Resource) {
		head.Generation, head.Version, head.Pipeline, head.Cause = 3, 4, "q", record.Updated
		head.Metadata = record.Metadata{"m": []byte(`"4"`)}
	})
	require.Equal(t, []string{"b"}, w.drive(k, run.Input{}).starts)
	rec := w.recOf(k).Rec
	require.Equal(t, int64(3), rec.Generation)
	require.Equal(t, int64(4), rec.Version)
	require.Equal(t, "q", rec.Pipeline)
	require.Equal(t, record.Updated, rec.Cause)
	require.Equal(t, record.Metadata{"m": []byte(`"4"`)}, rec.Metadata)
}

func TestRunThatKeepsItsGenerationMakesWayForTheNext(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	w.savePipeline("p", listOf("a"))
	k := w.queuedRun("p", record.Updated, func(_ *record.Run, head *record.Resource) {
		head.Generation, head.Version, head.FixedGeneration, head.Queued, head.LastPosition = 3, 3, 2, 1, 7
	})
	w.put(record.RevisionKey(resource, 2), &record.Revision{Pipeline: "p", Version: 2, At: start, Spec: []byte(`{"a":2}`)})
	w.put(record.PendingKey(resource, 7), &record.Pending{Run: "next", Generation: 3, Cause: record.Updated})
	require.Equal(t, []string{"a"}, w.drive(k, run.Input{}).starts)
	require.Equal(t, int64(2), w.recOf(k).Rec.Generation)
	require.JSONEq(t, `{"a":2}`, string(k.state.Spec))
	head := w.head()
	require.Equal(t, "next", head.Pending)
	require.Equal(t, int64(3), head.FixedGeneration)
	require.Equal(t, record.Updated, head.Cause)
	require.Zero(t, head.Queued)
	require.False(t, w.has(record.PendingKey(resource, 7)))
}

func TestRunReadsTheResourceAgainWhenItsNextIsGone(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	w.host.workers = 0
	w.savePipeline("p", listOf("a"))
	k := w.queuedRun("p", record.Updated, func(_ *record.Run, head *record.Resource) { head.Queued, head.LastPosition = 1, 1 })
	w.put(record.PendingKey(resource, 1), &record.Pending{Run: "next", Generation: 1, Cause: record.Updated})
	require.True(t, w.drive(k, run.Input{}).needsWorker)
	require.NotZero(t, k.state.Rev, "a run that waits for a worker stays in memory")
	head := w.head()
	head.Queued = 0
	w.write(store.Put(record.ResourceKey(resource), record.Encode(head)), store.Delete(record.PendingKey(resource, 1)))
	w.host.workers = 1
	tr, err := run.Next(&k.state, w.input(k, run.Input{}), w.ledger.View(ctx), w.host, w.limits)
	require.ErrorIs(t, err, store.ErrCorrupt)
	tr.Recycle()
	w.host.Release()
	require.Equal(t, []string{"a"}, w.drive(k, run.Input{}).starts)
}

func TestRunOfListenersPinsThem(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b")
	w.host.listeners, w.limits.Steps = []string{"a", "b"}, 2
	w.write(store.Put(record.UnlistenedKey(resource), []byte("{}")))
	k := w.queuedRun("", record.Created)
	require.Equal(t, []string{"a", "b"}, w.drive(k, run.Input{}).starts)
	require.True(t, w.has(record.PlanKey(k.id)))
	require.False(t, w.has(record.UnlistenedKey(resource)))
	w.host.listeners = []string{"c"}
	w.crash()
	w.load(k)
	require.Equal(t, 2, k.state.Run.Plan.Len())
}

// TestDeletionFinalizesBackwards deletes a resource that has had runs. What is defined and registered now makes no
// difference.
func TestDeletionFinalizesBackwards(t *testing.T) {
	done := record.Step{State: plan.Succeeded, Attempt: 1}
	planned := &plan.Plan{Planned: true, Steps: append((&plan.Plan{}).Unplanned("p").Steps, listOf("a", "b").Steps...)}
	for _, c := range []struct {
		name      string
		pipeline  string
		plan      *plan.Plan // of the newest run; nil if there was none
		steps     []record.Step
		finalizes []string // drivers
	}{
		{"steps that were called", "p", listOf("a", "b"), []record.Step{done, done}, []string{"b", "a"}},
		{"a step that was never called", "p", listOf("a", "b"), []record.Step{done, {}}, []string{"a"}},
		{"steps that were planned", "p", planned, []record.Step{done, done, done}, []string{"b", "a"}},
		{"the pipeline was deleted", "q", listOf("a", "b"), []record.Step{done, done}, []string{"b", "a"}},
		{"the pipeline is for another type now", "other", listOf("a", "b"), []record.Step{done, done}, []string{"b", "a"}},
		{"drivers that listened", "", plan.Listeners([]string{"a", "b"}), []record.Step{done, done}, []string{"b", "a"}},
		{"no run has begun", "p", nil, nil, nil},
		{"no driver has listened", "", nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b", "c", plan.PlannerName("p"))
			w.host.listeners = []string{"c"}
			w.savePipeline("p", listOf("c"))
			w.savePipeline("other", listOf("c"), func(rec *record.Pipeline) { rec.Resource = "other" })
			if c.plan != nil {
				w.endedRun("old", c.plan, nil, c.steps...)
				w.write(store.Put(record.RunIndexKey(resource, 1, "old"), []byte("{}")))
			}
			k := w.queuedRun(c.pipeline, record.Deleted)
			in := run.Input{}
			var finalized []string
			for {
				r := w.drive(k, in)
				if r.over {
					break
				}
				p := w.recOf(k).Plan
				require.True(t, p.Finalize)
				require.NotZero(t, w.recOf(k).Rec.DeletedAt)
				require.Len(t, r.starts, 1)
				i := p.Index(r.starts[0])
				finalized = append(finalized, p.Step(i).Driver)
				in = run.Input{Outcomes: []*run.Outcome{w.outcome(k, i, func(*run.Outcome) {})}}
			}
			require.Equal(t, c.finalizes, finalized)
			require.Equal(t, plan.Succeeded, w.recOf(k).Rec.State)
			require.Nil(t, w.head(), "the resource is removed")
		})
	}
}

// endedRun writes a run that has ended, with the records of its steps.
func (w *world) endedRun(id string, p *plan.Plan, change func(*record.Run), steps ...record.Step) {
	w.Helper()
	rec := &record.Run{
		Type: resource.Type, Name: resource.Name, ResourceID: "r1", Cause: record.Created, State: plan.Failed, Generation: 1, Version: 1,
		Pipeline: "p", Created: start, Started: start, Ended: start,
	}
	if change != nil {
		change(rec)
	}
	w.put(record.RunKey(id), rec)
	if rec.Hash == "" {
		w.put(record.PlanKey(id), p)
	}
	for i := range steps {
		if steps[i].State != plan.Unset {
			w.put(record.StepKey(id, p.Step(i).ID), &steps[i])
		}
	}
}

// drivenBy returns p with another driver of its first step.
func drivenBy(p *plan.Plan, driver string) *plan.Plan {
	p.Steps[0].Driver = driver
	return p
}

// set returns p with settings of its first step.
func set(p *plan.Plan, with string) *plan.Plan {
	p.Steps[0].With = []byte(with)
	return p
}

// tolerant returns a copy of p that tolerates a failure of its first step.
func tolerant(p *plan.Plan) *plan.Plan {
	c := *p
	c.Steps = slices.Clone(p.Steps)
	c.Steps[0].ContinueOnError = true
	return &c
}

// halting returns the record of a step that has ended its run by a halt.
func halting(s record.Step) record.Step {
	s.Halted = true
	return s
}

// TestRetryFindsTheHaltOfAnEarlierVersion repeats a run whose record says that it was halted, and not by which step.
func TestRetryFindsTheHaltOfAnEarlierVersion(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b", "c")
	done := func(reason string) record.Step {
		return record.Step{State: plan.Succeeded, Attempt: 1, Started: 1, Ended: 2, Reason: reason}
	}
	w.savePipeline("p", listOf("a", "b", "c"))
	w.endedRun("old", listOf("a", "b", "c"), func(rec *record.Run) {
		rec.State, rec.Stop, rec.StopReason = plan.Succeeded, plan.StopHalt, "rejected"
	}, done(""), done("rejected"), record.Step{})
	k := w.queuedRun("p", record.Retried, func(rec *record.Run, _ *record.Resource) { rec.Of = "old" })
	require.Equal(t, []string{"b"}, w.drive(k, run.Input{}).starts)
}

func TestRetryFailsIfItsPlaceIsGone(t *testing.T) {
	for name, planned := range map[string]bool{"listed": false, "planned": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b", "c", plan.PlannerName("p"))
			now := listOf("a", "c")
			if planned {
				now = &plan.Plan{}
			}
			w.savePipeline("p", now, func(rec *record.Pipeline) { rec.Planned = planned })
			w.endedRun("old", listOf("a", "b"), nil, record.Step{State: plan.Succeeded}, record.Step{State: plan.Failed})
			k := w.queuedRun("p", record.Retried, func(rec *record.Run, _ *record.Resource) {
				rec.Of, rec.From, rec.Newest = "old", "b", true
			})
			r := w.drive(k, run.Input{})
			if planned {
				require.Equal(t, []string{plan.PlannerStep}, r.starts)
				r = w.answer(k, 0, func(o *run.Outcome) {
					o.Kind, o.Plan = run.Planned, listOf(plan.PlannerStep, "a", "c")
				})
			}
			require.Empty(t, r.starts)
			require.True(t, r.over)
			require.Equal(t, plan.Failed, w.recOf(k).Rec.State)
			require.Contains(t, w.recOf(k).Rec.Reason, `pipeline "p" has no step "b" any more`)
		})
	}
}

func TestRetryKeepsWhatWasDone(t *testing.T) {
	was := func(state plan.State) record.Step { return record.Step{State: state, Attempt: 2, Started: 1, Ended: 2} }
	diamond := listOf("a", "b", "c", "d")
	diamond.Steps[1].After, diamond.Steps[2].After, diamond.Steps[3].After = []string{"a"}, []string{"a"}, []string{"b", "c"}
	planned := listOf(plan.PlannerStep, "a", "b")
	planned.Steps[0].Driver, planned.Planned = plan.PlannerName("p"), true
	for _, c := range []struct {
		name   string
		old    *plan.Plan
		steps  []record.Step
		of     record.Run // its From and Newest
		now    *plan.Plan // the definition as it is now
		starts []string
		kept   []string
	}{
		{"from the failed step", finally(listOf("a", "b", "c"), "f"), []record.Step{was(plan.Succeeded), was(plan.Failed), {}, was(plan.Succeeded)},
			record.Run{}, nil, []string{"b"}, []string{"a"}},
		{"after a skip", listOf("a", "b"), []record.Step{was(plan.Skipped), was(plan.Failed)}, record.Run{}, nil, []string{"b"}, []string{"a"}},
		{"before a step that was done", listOf("a", "b"), []record.Step{was(plan.Failed), was(plan.Succeeded)}, record.Run{}, nil, []string{"a"}, nil},
		{"from a canceled step", listOf("a", "b"), []record.Step{was(plan.Succeeded), was(plan.Canceled)}, record.Run{}, nil, []string{"b"}, []string{"a"}},
		{"from a named step", listOf("a", "b", "c"), []record.Step{was(plan.Succeeded), was(plan.Succeeded), was(plan.Failed)},
			record.Run{From: "b"}, nil, []string{"b"}, []string{"a"}},
		{"from a named step of a graph", diamond, []record.Step{was(plan.Succeeded), was(plan.Succeeded), was(plan.Succeeded), was(plan.Succeeded)},
			record.Run{From: "c"}, nil, []string{"c"}, []string{"a", "b"}},
		{"from the start", listOf("a", "b"), []record.Step{was(plan.Succeeded), was(plan.Failed)}, record.Run{From: run.FromStart}, nil, []string{"a"}, nil},
		{"from the start of planned steps", planned, []record.Step{was(plan.Succeeded), was(plan.Succeeded), was(plan.Failed)},
			record.Run{From: run.FromStart}, nil, []string{"a"}, []string{plan.PlannerStep}},
		{"from the failed one of planned steps", planned, []record.Step{was(plan.Succeeded), was(plan.Succeeded), was(plan.Failed)},
			record.Run{}, nil, []string{"b"}, []string{plan.PlannerStep, "a"}},
		{"along the newest definition", listOf("a", "b"), []record.Step{was(plan.Succeeded), was(plan.Failed)},
			record.Run{Newest: true}, listOf("c", "a", "b"), []string{"c"}, nil},
		{"along the newest definition, with a new step behind", listOf("a", "b"), []record.Step{was(plan.Succeeded), was(plan.Failed)},
			record.Run{Newest: true}, listOf("a", "c", "b"), []string{"c"}, []string{"a"}},
		{"along the newest definition, with another driver under the id", listOf("a", "b"), []record.Step{was(plan.Succeeded), was(plan.Failed)},
			record.Run{Newest: true}, drivenBy(listOf("a", "b"), "c"), []string{"a"}, nil},
		{"along the newest definition, with other settings", listOf("a", "b"), []record.Step{was(plan.Succeeded), was(plan.Failed)},
			record.Run{Newest: true}, set(listOf("a", "b"), `{"n":2}`), []string{"a"}, nil},
		{"along the newest definition, with the same settings", set(listOf("a", "b"), `{"n":2}`), []record.Step{was(plan.Succeeded), was(plan.Failed)},
			record.Run{Newest: true}, set(listOf("a", "b"), `{"n":2}`), []string{"b"}, []string{"a"}},
		{"after a tolerated failure", tolerant(listOf("a", "b", "c")), []record.Step{was(plan.Failed), was(plan.Succeeded), was(plan.Failed)},
			record.Run{}, nil, []string{"c"}, []string{"a", "b"}},
		{"from a tolerated failure", tolerant(listOf("a", "b", "c")), []record.Step{was(plan.Failed), was(plan.Succeeded), was(plan.Failed)},
			record.Run{From: "a"}, nil, []string{"a"}, nil},
		{"after a tolerated failure of a graph", tolerant(diamond), []record.Step{was(plan.Failed), was(plan.Succeeded), was(plan.Failed), {}},
			record.Run{}, nil, []string{"c"}, []string{"a", "b"}},
		{"along the newest definition, which does not tolerate the failure", tolerant(listOf("a", "b")), []record.Step{was(plan.Failed), was(plan.Failed)},
			record.Run{Newest: true}, listOf("a", "b"), []string{"a"}, nil},
		{"from the step that halted", listOf("a", "b", "c"), []record.Step{was(plan.Succeeded), halting(was(plan.Succeeded)), {}},
			record.Run{}, nil, []string{"b"}, []string{"a"}},
		{"from a step after the one that halted", listOf("a", "b", "c"), []record.Step{was(plan.Succeeded), halting(was(plan.Succeeded)), {}},
			record.Run{From: "c"}, nil, []string{"b"}, []string{"a"}},
		{"from the step that superseded or died", listOf("a", "b", "c"), []record.Step{was(plan.Succeeded), was(plan.Superseded), {}},
			record.Run{}, nil, []string{"b"}, []string{"a"}},
		{"from a step that still waited", listOf("a", "b", "c"), []record.Step{was(plan.Succeeded), {State: plan.Waiting, Attempt: 1, Await: "go"}, {}},
			record.Run{}, nil, []string{"b"}, []string{"a"}},
		{"along the newest definition, from the start", listOf("a", "b"), []record.Step{was(plan.Succeeded), was(plan.Failed)},
			record.Run{Newest: true, From: run.FromStart}, listOf("a", "c"), []string{"a"}, nil},
	} {
		for _, changes := range []int{0, 1, 2} {
			t.Run(fmt.Sprint(c.name, ", ", changes), func(t *testing.T) {
				w := newWorld(t)
				w.limits.Changes = changes
				w.host.register("a", "b", "c", "d", "f", plan.PlannerName("p"))
				w.savePipeline("p", listOf("z"))
				if c.now != nil {
					w.savePipeline("p", c.now)
				}
				w.endedRun("old", c.old, nil, c.steps...)
				k := w.queuedRun("p", record.Retried, func(rec *record.Run, _ *record.Resource) {
					rec.Of, rec.From, rec.Newest = "old", c.of.From, c.of.Newest
				})
				require.Equal(t, c.starts, w.driveAll(k))
				is := w.recOf(k)
				require.Equal(t, "old", is.Rec.Of)
				var kept []string
				for i := range is.Steps {
					if s := is.Steps[i].Rec; s.State.Final() {
						kept = append(kept, is.Plan.Step(i).ID)
						old := w.oldStep("old", is.Plan.Step(i).ID)
						require.Equal(t, old, s)
					} else if s.State == plan.Running {
						require.Equal(t, 1, s.Attempt, "attempts are counted from 1 again")
					}
				}
				require.Equal(t, c.kept, kept)
			})
		}
	}
}

// driveAll drives a run until nothing is left to decide, and returns the steps that start. The process dies in between.
func (w *world) driveAll(k *heldRun) (starts []string) {
	w.Helper()
	for more := true; more; {
		r := w.drive(k, run.Input{})
		starts, more = append(starts, r.starts...), r.more
		if more && len(k.calls) == 0 {
			w.crash()
		}
	}
	return starts
}

func (w *world) oldStep(run, step string) record.Step {
	w.Helper()
	r, err := w.store.Get(ctx, record.StepKey(run, step))
	require.NoError(w, err)
	var rec record.Step
	require.NoError(w, record.Decode(r, &rec))
	return rec
}

func TestRetryLeavesWaitsAndLinesToTheOldRun(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b")
	w.endedRun("old", listOf("a", "b"), nil,
		record.Step{State: plan.Succeeded, Attempt: 1, Lines: 3, Output: []byte("1"), Waits: []record.Wait{{Signal: "go", From: 1, To: 2}}},
		record.Step{State: plan.Failed, Attempt: 1})
	k := w.queuedRun("", record.Retried, func(rec *record.Run, _ *record.Resource) { rec.Of = "old" })
	w.drive(k, run.Input{})
	require.Equal(t, record.Step{State: plan.Succeeded, Attempt: 1, Output: []byte("1")}, w.recOf(k).Steps[0].Rec)
}

func TestRetryPinsTheDefinitionOfTheOldRun(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b")
	p := listOf("a")
	p.Timeout = document.Duration(time.Hour)
	old := w.savePipeline("p", p)
	w.endedRun("old", p, func(rec *record.Run) { rec.Hash = old.Hash }, record.Step{State: plan.Failed, Attempt: 3})
	w.savePipeline("p", listOf("b"))
	k := w.queuedRun("p", record.Retried, func(rec *record.Run, _ *record.Resource) { rec.Of = "old" })
	require.Equal(t, []string{"a"}, w.drive(k, run.Input{}).starts)
	require.Equal(t, old.Hash, w.recOf(k).Rec.Hash)
	require.Equal(t, start.Add(time.Hour), w.recOf(k).Rec.Deadline)
}

func TestRetryThatAChangeOvertakesIsARunLikeAnyOther(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	w.savePipeline("p", listOf("a"))
	k := w.queuedRun("p", record.Retried, func(rec *record.Run, head *record.Resource) {
		rec.Of, head.Cause, head.Generation = "gone", record.Updated, 2
	})
	require.Equal(t, []string{"a"}, w.drive(k, run.Input{}).starts)
	require.Empty(t, w.recOf(k).Rec.Of)
}

func TestRetryOfNewestPlanKeepsWhatIsPlannedAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		gone   bool
		starts []string
		state  plan.State
	}{
		{"the old run is there", false, []string{"b"}, plan.Succeeded},
		{"the old run is gone", true, nil, plan.Failed},
	} {
		for _, changes := range []int{0, 1} {
			t.Run(fmt.Sprint(c.name, ", ", changes), func(t *testing.T) {
				w := newWorld(t)
				w.limits.Changes = changes
				w.host.register("a", "b", plan.PlannerName("p"))
				w.savePipeline("p", &plan.Plan{}, func(rec *record.Pipeline) { rec.Planned = true })
				old := listOf(plan.PlannerStep, "a", "b")
				old.Planned = true
				w.endedRun("old", old, nil, record.Step{State: plan.Succeeded}, record.Step{State: plan.Succeeded, Attempt: 1}, record.Step{State: plan.Failed})
				k := w.queuedRun("p", record.Retried, func(rec *record.Run, _ *record.Resource) { rec.Of, rec.Newest = "old", true })
				require.Equal(t, []string{plan.PlannerStep}, w.drive(k, run.Input{}).starts, "the steps are planned again")
				if c.gone {
					w.write(store.Delete(record.RunKey("old")))
				}
				r := w.answer(k, 0, func(o *run.Outcome) {
					whole := *k.state.Run.Plan
					whole.Steps = append(append([]plan.Step{}, whole.Steps...), listOf("a", "b").Steps...)
					o.Kind, o.Plan = run.Planned, &whole
				})
				if changes > 0 && !c.gone {
					require.True(t, r.more)
					require.Equal(t, c.starts, w.driveAll(k))
				} else if !r.more {
					require.Equal(t, c.starts, r.starts)
					require.Equal(t, c.gone, r.over)
				}
				require.Equal(t, c.state, w.recOf(k).Steps[0].Rec.State)
			})
		}
	}
}

func TestRetryOfRunWithoutStepsIsCorrupt(t *testing.T) {
	w := newWorld(t)
	w.savePipeline("p", listOf("a"))
	w.put(record.RunKey("old"), &record.Run{
		Type: resource.Type, Name: resource.Name, ResourceID: "r1", Cause: record.Created, State: plan.Canceled, Created: start, Ended: start,
	})
	k := w.queuedRun("p", record.Retried, func(rec *record.Run, _ *record.Resource) { rec.Of = "old" })
	w.load(k)
	tr, err := run.Next(&k.state, w.input(k, run.Input{}), w.ledger.View(ctx), w.host, w.limits)
	require.ErrorIs(t, err, store.ErrCorrupt)
	w.host.Release()
	tr.Recycle()
}

func TestPreemptionOfActiveRun(t *testing.T) {
	for _, c := range []struct {
		name string
		head record.Resource
		kind plan.Stop
		is   error
		text string
	}{
		{"nothing is at work", record.Resource{Deleted: 1, Supersede: true}, plan.StopNone, nil, ""},
		{"a change that waits", record.Resource{Active: "a"}, plan.StopNone, nil, ""},
		{"a change that does not wait", record.Resource{Active: "a", Supersede: true, Generation: 7}, plan.StopSupersede, fault.Superseded, "generation 7 came"},
		{"a deletion", record.Resource{Active: "a", Deleted: 1, Supersede: true}, plan.StopCancel, fault.Canceled, "the resource is to be deleted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := run.Preempt(&c.head)
			if c.kind == plan.StopNone {
				require.Nil(t, p)
				return
			}
			require.Equal(t, "a", p.Run)
			require.Equal(t, c.kind, p.Stop.Kind)
			require.Equal(t, c.text, p.Stop.Reason)
			require.True(t, p.Stop.Gently)
			require.ErrorIs(t, p.Stop.Cause, c.is)
		})
	}
}

// TestNewRun creates a run, together with its resource or behind another run.
func TestNewRun(t *testing.T) {
	for _, c := range []struct {
		name     string
		pipeline string
		start    bool // a worker is there
		change   func(*world, *record.Resource)
		state    plan.State
		starts   []string
		needs    bool
		preempts plan.Stop
	}{
		{"it starts at once", "p", true, nil, plan.Running, []string{"a"}, false, plan.StopNone},
		{"no worker is free", "p", false, nil, plan.Queued, nil, true, plan.StopNone},
		{"it waits behind an active run", "p", false, func(_ *world, head *record.Resource) { head.Active = "other" }, plan.Queued, nil, false, plan.StopNone},
		{"it supersedes an active run", "p", false, func(_ *world, head *record.Resource) { head.Active, head.Supersede = "other", true },
			plan.Queued, nil, false, plan.StopSupersede},
		{"it deletes the resource of an active run", "p", false, func(_ *world, head *record.Resource) { head.Active, head.Deleted = "other", start },
			plan.Queued, nil, false, plan.StopCancel},
		{"its driver is missing", "p", true, func(w *world, _ *record.Resource) { clear(w.host.drivers) }, plan.Running, nil, false, plan.StopNone},
		{"its driver has no slot", "p", true, func(w *world, _ *record.Resource) { w.host.drivers["a"].slots = 0 }, plan.Queued, nil, false, plan.StopNone},
		{"its worker is gone", "p", true, func(w *world, _ *record.Resource) { w.host.workers = 0 }, plan.Queued, nil, true, plan.StopNone},
		{"its pipeline has no place", "p", true, func(w *world, _ *record.Resource) { w.host.places["p"] = 0 }, plan.Queued, nil, false, plan.StopNone},
		{"its pipeline is deleted", "q", true, nil, plan.Failed, nil, false, plan.StopNone},
		{"no driver listens", "", true, nil, plan.Skipped, nil, false, plan.StopNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a")
			w.host.places["p"] = 1
			w.savePipeline("p", listOf("a"))
			id := w.newID()
			head := &record.Resource{ID: "r1", Pipeline: c.pipeline, Version: 1, Generation: 1, First: 1, Created: start, Updated: start}
			rec := record.Run{
				Type: resource.Type, Name: resource.Name, ResourceID: "r1", Cause: record.Created, State: plan.Queued, Generation: 1, Pipeline: c.pipeline, Created: start,
			}
			require.Empty(t, head.EnqueuePending(resource, id, &rec, false, ""))
			head.Status = record.Status{Phase: plan.Queued, Run: id}
			if c.change != nil {
				c.change(w, head)
			}
			given, places := *head, w.host.places["p"]
			k := w.hold(id)
			k.state.Run = &record.RunState{ID: id, Rec: rec}
			revision := &record.Revision{Pipeline: c.pipeline, Version: 1, At: start, Spec: []byte(`{"a":1}`)}
			in := w.input(k, run.Input{})
			r := w.commit(k, in, w.twice(&k.state, func() (*run.Transition, error) {
				return run.New(&k.state, &run.Wanted{
					Head: head, Spec: revision.Spec, Start: c.start,
					Extra: []store.Op{store.Put(record.RevisionKey(resource, 1), record.Encode(revision)).IfAbsent()},
				}, in, w.ledger.View(ctx), w.host, w.limits)
			}))
			require.Equal(t, given, *head, "the resource as it was given")
			require.Equal(t, c.starts, r.starts)
			require.Equal(t, c.needs, r.needsWorker)
			require.Equal(t, c.state.Final(), r.over)
			require.False(t, r.idle)
			if c.preempts == plan.StopNone {
				require.Nil(t, r.preempts)
			} else {
				require.Equal(t, c.preempts, r.preempts.Stop.Kind)
			}
			is := w.recOf(k)
			require.Equal(t, c.state, is.Rec.State)
			require.True(t, w.has(record.RunIndexKey(resource, is.Rec.Number, id)))
			require.True(t, w.has(record.RevisionKey(resource, 1)))
			require.Equal(t, !c.state.Final(), w.has(record.ActiveKey(id)))
			require.Equal(t, c.state, w.head().Status.Phase)
			want := places
			if c.state == plan.Running {
				want--
			}
			require.Equal(t, want, w.host.places["p"], "a run that has not begun has no place")
		})
	}
}

// manyNames returns names that are as long as they may be.
func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%0*d", text.MaxName, i))
	}
	return names
}
