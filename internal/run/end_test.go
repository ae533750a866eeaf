package run_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/store"
)

// TestRunEnds brings a run of two steps with a cleanup to its end in each way.
func TestRunEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		drive  func(w *world, k *heldRun)
		state  plan.State
		reason string
		failed string
	}{
		{"succeeded", func(w *world, k *heldRun) {
			w.answer(k, 0, done)
			w.answer(k, 1, done)
			w.answer(k, 2, done)
		}, plan.Succeeded, "", ""},
		{"halted", func(w *world, k *heldRun) {
			w.answer(k, 0, halted)
			w.answer(k, 2, done)
		}, plan.Succeeded, "enough", ""},
		{"failed", func(w *world, k *heldRun) {
			w.answer(k, 0, failedForGood)
			w.answer(k, 2, done)
		}, plan.Failed, "step a (driver a): boom", "a"},
		{"failed in the cleanup", func(w *world, k *heldRun) {
			w.answer(k, 0, halted)
			w.answer(k, 2, failedForGood)
		}, plan.Failed, "step f (driver f): boom", "f"},
		{"failed in the steps and in the cleanup", func(w *world, k *heldRun) {
			w.answer(k, 0, failedForGood)
			w.answer(k, 2, failedForGood)
		}, plan.Failed, "step a (driver a): boom", "a"},
		{"canceled while a step is called", func(w *world, k *heldRun) {
			w.drive(k, stops(cancelIt))
			w.answer(k, 0, failed)
			w.answer(k, 2, done)
		}, plan.Canceled, "enough", ""},
		{"canceled while a step waits", func(w *world, k *heldRun) {
			w.answer(k, 0, failed)
			require.Equal(w, []string{"f"}, w.drive(k, stops(cancelIt)).starts)
			w.answer(k, 2, done)
		}, plan.Canceled, "enough", ""},
		{"canceled while the last step is called, which is done", func(w *world, k *heldRun) {
			w.answer(k, 0, done)
			w.drive(k, stops(cancelIt))
			w.answer(k, 1, done)
			w.answer(k, 2, done)
		}, plan.Canceled, "enough", ""},
		{"canceled in the cleanup of a success", func(w *world, k *heldRun) {
			w.answer(k, 0, halted)
			w.drive(k, stops(cancelIt))
			w.answer(k, 2, failed)
		}, plan.Canceled, "enough", ""},
		{"canceled in the cleanup of a failure", func(w *world, k *heldRun) {
			w.answer(k, 0, failedForGood)
			w.drive(k, stops(cancelIt))
			w.answer(k, 2, failed)
		}, plan.Failed, "step a (driver a): boom; the cleanup was canceled: enough", "a"},
		{"canceled twice", func(w *world, k *heldRun) {
			w.drive(k, stops(cancelIt))
			w.answer(k, 0, failed)
			w.drive(k, stops(cancelIt))
			w.answer(k, 2, failed)
		}, plan.Canceled, "enough; the cleanup was canceled: enough", ""},
		{"superseded", func(w *world, k *heldRun) {
			w.drive(k, stops(replaceIt))
			w.answer(k, 0, cut)
			w.answer(k, 2, done)
		}, plan.Superseded, "generation 2 came", ""},
		{"superseded in the cleanup, which goes on", func(w *world, k *heldRun) {
			w.answer(k, 0, halted)
			w.drive(k, stops(replaceIt))
			w.answer(k, 2, done)
		}, plan.Succeeded, "enough", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b", "f")
			k := w.activeRun(finally(listOf("a", "b"), "f"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
			w.now++
			c.drive(w, k)
			rec := w.recOf(k).Rec
			require.Equal(t, c.state, rec.State)
			require.Equal(t, c.reason, rec.Reason)
			require.Equal(t, c.failed, rec.FailedStep)
			require.Equal(t, w.now, rec.Ended)
			require.False(t, w.has(record.ActiveKey(k.id)))
			head := w.head()
			require.Empty(t, head.Active)
			require.Equal(t, c.state, head.Status.Phase)
			require.Equal(t, int64(1), head.Status.ObservedGeneration)
			want := c.reason
			if c.state == plan.Succeeded {
				want = ""
			}
			require.Equal(t, want, head.Status.Message)
		})
	}
}

func TestQueuedRunEndsWithoutHavingBegun(t *testing.T) {
	for _, c := range []struct {
		name  string
		stop  run.StopRequest
		state plan.State
	}{
		{"canceled", cancelIt, plan.Canceled},
		{"canceled gently", deleteIt, plan.Canceled},
		{"superseded", replaceIt, plan.Superseded},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a")
			w.savePipeline("p", listOf("a"))
			k := w.queuedRun("p", record.Updated, func(_ *record.Run, head *record.Resource) { head.Active, head.Supersede = "other", true })
			r := w.drive(k, stops(c.stop))
			require.True(t, r.over)
			rec := w.recOf(k).Rec
			require.Equal(t, c.state, rec.State)
			require.Equal(t, c.stop.Reason, rec.Reason)
			require.Zero(t, rec.Started)
			head := w.head()
			require.Equal(t, "other", head.Active, "the run at work goes on")
			require.Empty(t, head.Pending)
			require.False(t, head.Supersede)
			require.Equal(t, int64(1), head.Status.ObservedGeneration)
		})
	}
}

func TestQueuedRunLeavesItsPlace(t *testing.T) {
	// Three runs wait: the first pending one, and two behind it.
	for _, c := range []struct {
		name    string
		place   int64 // of the run that is canceled; 0 for the first
		pending string
		left    int64 // the place that is still taken
		end     int64 // the generation that the canceled run stands for
	}{
		{"the first", 0, "two", 2, 2},
		{"the second", 1, "first", 2, 3},
		{"the last", 2, "first", 1, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			k := w.queuedRun("", record.Updated, func(rec *record.Run, head *record.Resource) {
				head.Generation, head.FixedGeneration, head.Queued, head.LastPosition, head.Active = 3, 2, 2, 2, "other"
				if c.place > 0 {
					head.Pending, rec.Position, rec.Generation = "first", c.place, 3
				}
			})
			w.put(record.RevisionKey(resource, 2), &record.Revision{Version: 2, At: start, Spec: []byte(`{"a":2}`)})
			for place, id := range map[int64]string{1: "two", 2: "three"} {
				if place == c.place {
					id = k.id
				}
				w.put(record.PendingKey(resource, place), &record.Pending{Run: id, Generation: 3, Cause: record.Triggered})
			}
			require.True(t, w.drive(k, stops(cancelIt)).over)
			head := w.head()
			require.Equal(t, c.pending, head.Pending)
			require.Equal(t, 1, head.Queued)
			require.True(t, w.has(record.PendingKey(resource, c.left)))
			require.Equal(t, c.end, w.recOf(k).Rec.Generation)
		})
	}
}

func TestQueuedRunEndsBesideADamagedRecord(t *testing.T) {
	other := &record.Pending{Run: "other", Generation: 1, Cause: record.Updated}
	for _, c := range []struct {
		name    string
		counted int             // runs behind the first pending one, as the resource has it
		place   *record.Pending // what is under the place of the run; nil for the run itself
		absent  bool            // nothing is under the place
		want    int             // that are counted then
		kept    bool            // the record of the place
	}{
		{"the resource counts none", 0, nil, false, 0, false},
		{"the run has lost its place", 1, nil, true, 1, false},
		{"the place is that of another run", 1, other, false, 1, true},
		{"the place is unreadable", 1, new(record.Pending), false, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			k := w.queuedRun("", record.Updated, func(rec *record.Run, head *record.Resource) {
				head.Pending, head.Queued, head.LastPosition, head.Active, rec.Position = "first", c.counted, 1, "active", 1
			})
			switch {
			case c.absent:
			case c.place != nil:
				w.put(record.PendingKey(resource, 1), c.place)
			default:
				w.put(record.PendingKey(resource, 1), &record.Pending{Run: k.id, Generation: 1, Cause: record.Updated})
			}
			require.True(t, w.drive(k, stops(cancelIt)).over)
			require.Equal(t, plan.Canceled, w.recOf(k).Rec.State)
			require.Equal(t, c.want, w.head().Queued)
			require.Equal(t, c.kept, w.has(record.PendingKey(resource, 1)))
		})
	}
}

func TestRunOfResourceThatIsGoneEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world)
	}{
		{"there is no resource", func(w *world) { w.write(store.Delete(record.ResourceKey(resource))) }},
		{"there is another one of the same name", func(w *world) {
			head := w.head()
			head.ID, head.Active = "r2", ""
			w.put(record.ResourceKey(resource), head)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a")
			k := w.activeRun(listOf("a"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
			c.change(w)
			before := w.head()
			r := w.answer(k, 0, done)
			require.True(t, r.over)
			require.Nil(t, r.head)
			require.Equal(t, before, w.head())
			require.Equal(t, plan.Succeeded, w.recOf(k).Rec.State)
		})
	}
}

func TestEndKeepsTheStatusOfNewerRun(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	k := w.activeRun(listOf("a"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}}, func(_ *record.Run, head *record.Resource) {
		head.Pending, head.Cause, head.Status = "next", record.Updated, record.Status{Phase: plan.Queued, Run: "next", ObservedGeneration: 7}
	})
	r := w.answer(k, 0, done)
	require.Equal(t, "next", r.head.Pending)
	require.Equal(t, record.Status{Phase: plan.Queued, Run: "next", ObservedGeneration: 7}, w.head().Status)
}

func TestEndWaitsForCommitAfterConflict(t *testing.T) {
	w := newWorld(t)
	w.host.register("a")
	k := w.activeRun(listOf("a"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
	w.load(k)
	in := w.input(k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, 0, done)}})
	tr := w.next(k, in)
	head := w.head()
	head.Pending, head.Cause = "next", record.Updated
	w.put(record.ResourceKey(resource), head)
	require.Nil(t, w.commit(k, in, tr), "the resource has changed")
	require.Equal(t, plan.Running, w.recOf(k).Rec.State)
	require.True(t, w.commit(k, in, w.next(k, in)).over)
	require.Equal(t, "next", w.head().Pending)
}

func TestDeletionRemovesResource(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*run.Outcome)
		state  plan.State
		gone   bool
	}{
		{"a finalizer that is done", done, plan.Succeeded, true},
		{"a finalizer that is skipped", skipped, plan.Succeeded, true},
		{"a finalizer that fails", failedForGood, plan.Failed, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a")
			k := w.activeRun(listOf("a").Backwards(nil), []record.Step{{State: plan.Running, Attempt: 1, Started: start}},
				func(_ *record.Run, head *record.Resource) { head.Generation, head.Version = 3, 3 })
			for generation := range int64(2) {
				w.put(record.RevisionKey(resource, generation+1), &record.Revision{Version: 1, At: start, Spec: []byte(`{"a":1}`)})
			}
			w.write(store.Put(record.UnlistenedKey(resource), []byte("{}")))
			r := w.answer(k, 0, c.answer)
			require.True(t, r.over)
			require.Equal(t, c.state, w.recOf(k).Rec.State)
			require.Equal(t, !c.gone, w.has(record.ResourceKey(resource)))
			require.Equal(t, !c.gone, w.has(record.UnlistenedKey(resource)))
			require.Equal(t, c.gone, w.has(record.TombstoneKey(resource)))
			for generation := range int64(3) {
				require.Equal(t, !c.gone, w.has(record.RevisionKey(resource, generation+1)), "generation %d", generation+1)
			}
			last := r.changes[len(r.changes)-1]
			require.Equal(t, c.gone, last.Removed)
			if c.gone {
				stone, _, err := ledger.Load[record.Tombstone](ctx, w.ledger, record.TombstoneKey(resource))
				require.NoError(t, err)
				require.Equal(t, int64(3), stone.Generation)
			} else {
				require.NotZero(t, w.head().Deleted, "the resource stays marked")
			}
		})
	}
}

func TestDeletionWithoutDriversIsOneCommit(t *testing.T) {
	w := newWorld(t)
	k := w.queuedRun("", record.Deleted)
	r := w.drive(k, run.Input{})
	require.True(t, r.over)
	require.Nil(t, w.head())
	require.Equal(t, []run.Change{{State: plan.Running}, {State: plan.Succeeded}, {Removed: true}}, r.changes)
}

// A deletion of a resource with more generations than one commit removes takes several, and the resource goes in the last one. A
// process that dies in between goes on, and nobody stops the deletion any more.
func TestEndOfADeletionTakesAsManyCommitsAsTheStoreNeeds(t *testing.T) {
	const generations = 20
	for _, dies := range []bool{false, true} {
		t.Run(fmt.Sprint("dies ", dies), func(t *testing.T) {
			w := newWorld(t)
			w.limits.Changes = 2
			k := w.queuedRun("", record.Deleted, func(rec *record.Run, head *record.Resource) {
				rec.Generation, head.Generation = generations, generations
				for i := range int64(generations - 1) {
					w.put(record.RevisionKey(resource, i+1), &record.Revision{Version: 1, At: start, Spec: []byte(`{"a":1}`)})
				}
			})
			var changes []run.Change
			parts := 0
			for over := false; !over; parts++ {
				r := w.drive(k, run.Input{})
				require.NotEqual(t, r.over, r.more)
				require.Equal(t, r.over, w.head() == nil)
				require.Equal(t, !r.over, w.has(record.RevisionKey(resource, generations)))
				changes = append(changes, r.changes...)
				if over = r.over; over {
					break
				}
				if dies {
					w.crash()
				}
				r = w.drive(k, run.Input{Stops: []*run.StopRequest{{Kind: plan.StopCancel, Reason: "too late", Cause: fault.Canceled}}})
				require.NoError(t, r.stop)
				changes = append(changes, r.changes...)
				over = r.over
			}
			require.GreaterOrEqual(t, parts, 2)
			require.Equal(t, []run.Change{{State: plan.Running}, {State: plan.Succeeded}, {Removed: true}}, changes)
			for i := range int64(generations) {
				require.False(t, w.has(record.RevisionKey(resource, i+1)), "generation %d", i+1)
			}
		})
	}
}

func TestEndRemovesLeftovers(t *testing.T) {
	for _, c := range []struct {
		name    string
		signals int
		known   bool // that there may be some
		more    bool
		left    int
	}{
		{"none are known", 0, false, false, 0},
		{"as many as one commit removes", ledger.RemoveBatch - 1, true, false, 0},
		{"more than one commit removes", ledger.RemoveBatch, true, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a")
			k := w.activeRun(listOf("a"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
			if k.leftovers = c.known; c.known {
				w.write(store.Put(record.CheckpointKey(k.id, "a"), []byte("1")))
			}
			for i := range c.signals {
				w.write(store.Put(fmt.Sprintf("%s%04d", record.SignalsOf(k.id, "go"), i), []byte("1")))
			}
			w.load(k)
			in := w.input(k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, 0, done)}})
			tr := w.next(k, in)
			require.True(t, tr.Over())
			require.Equal(t, c.more, tr.LeavesLeftovers())
			removed := 0
			for _, op := range tr.Ops() {
				if op.Removes() {
					removed++
				}
			}
			want := 1 // of the list of unfinished runs
			if c.known {
				want += 1 + c.signals - c.left
			}
			require.Equal(t, want, removed)
			w.commit(k, in, tr)
			require.False(t, w.has(record.CheckpointKey(k.id, "a")))
		})
	}
}

func TestEndTakesSignalThatAStepGetsOnce(t *testing.T) {
	// The signal is given to one step in the commit in which the run ends because of another.
	w := newWorld(t)
	w.host.register("a", "b")
	p := listOf("a", "b")
	p.Steps[0].After, p.Steps[1].After = nil, nil
	p.Independent = true
	k := w.activeRun(p, []record.Step{{State: plan.Running, Attempt: 1, Started: start}, {State: plan.Waiting, Attempt: 1, Again: true, Await: "go"}})
	w.write(store.Put(record.SignalsOf(k.id, "go")+"1", []byte("1")))
	k.leftovers = true
	r := w.drive(k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, 0, halted)}})
	require.True(t, r.over)
	require.False(t, w.has(record.SignalsOf(k.id, "go")+"1"))
}

func TestSuccessPlansResync(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*run.Outcome)
		head   func(*record.Resource)
		resync record.Time
	}{
		{"after a success", done, func(*record.Resource) {}, start.Add(time.Hour)},
		{"not after a failure", failedForGood, func(*record.Resource) {}, 0},
		{"not when another run waits", done, func(head *record.Resource) { head.Pending = "next" }, 0},
		{"not when the resource is to be deleted", done, func(head *record.Resource) { head.Deleted = start }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a")
			p := listOf("a")
			p.Resync = document.Duration(time.Hour)
			k := w.activeRun(p, []record.Step{{State: plan.Running, Attempt: 1, Started: start}}, func(_ *record.Run, head *record.Resource) { c.head(head) })
			require.True(t, w.answer(k, 0, c.answer).over)
			require.Equal(t, c.resync, w.head().Resync)
			require.Equal(t, c.resync != 0, w.has(record.ResyncKey(start.Add(time.Hour), resource)))
		})
	}
}

func TestRunThatBeginsAndEndsAtOncePlansResyncAnew(t *testing.T) {
	// The run takes back the due time of the run before it, which is the one that it plans itself.
	w := newWorld(t)
	p := listOf("a")
	p.Resync = document.Duration(time.Hour)
	w.savePipeline("p", p)
	w.endedRun("old", p, nil, record.Step{State: plan.Succeeded, Attempt: 1})
	due := start.Add(time.Hour)
	head := w.saveResource("p", func(head *record.Resource) { head.Resync = due })
	w.write(store.Put(record.ResyncKey(due, resource), []byte("{}")))
	_, rev, err := w.ledger.Resource(ctx, resource)
	require.NoError(t, err)
	id := w.newID()
	rec := record.Run{
		Type: resource.Type, Name: resource.Name, ResourceID: "r1", Cause: record.Retried, State: plan.Queued, Generation: 1, Pipeline: "p", Created: start, Of: "old",
	}
	head.EnqueuePending(resource, id, &rec, false, "")
	head.Status = record.Status{Phase: plan.Queued, Run: id}
	extra := head.CancelResync(resource)
	k := w.hold(id)
	k.state.Run = &record.RunState{ID: id, Rec: rec}
	in := w.input(k, run.Input{})
	r := w.commit(k, in, w.twice(&k.state, func() (*run.Transition, error) {
		want := &run.Wanted{Head: head, Rev: rev, Spec: []byte(`{"a":1}`), Extra: extra, Start: true}
		return run.New(&k.state, want, in, w.ledger.View(ctx), w.host, w.limits)
	}))
	require.True(t, r.over, "all steps were done in the run that this one repeats")
	require.Equal(t, due, w.head().Resync)
	require.True(t, w.has(record.ResyncKey(due, resource)))
}

func TestOutputsAreThoseOfTheChangedSteps(t *testing.T) {
	w := newWorld(t)
	w.host.register("a", "b")
	k := w.activeRun(listOf("a", "b"), []record.Step{{State: plan.Running, Attempt: 1, Started: start}})
	w.load(k)
	in := w.input(k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, 0, doneWith(`{"b":2}`))}})
	tr := w.next(k, in)
	outputs := map[string]string{}
	for step, output := range tr.Outputs {
		outputs[step] = string(output)
	}
	require.Equal(t, map[string]string{"a": `{"b":2}`}, outputs)
	w.commit(k, in, tr)
	require.JSONEq(t, `{"b":2}`, string(w.recOf(k).Steps[0].Rec.Output))
}
