package run_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/store"
)

var errBroken = errors.New("broken")

// brokenReader is a reader that fails in one of its calls.
type brokenReader struct {
	reader run.Reader
	left   int // calls before that one
}

func (r *brokenReader) fails() error {
	if r.left--; r.left == -1 {
		return errBroken
	}
	return nil
}

func (r *brokenReader) Resource(k record.Key) (*record.Resource, store.Revision, error) {
	if err := r.fails(); err != nil {
		return nil, 0, err
	}
	return r.reader.Resource(k)
}

func (r *brokenReader) Target(k record.Key, head *record.Resource) (*record.Target, error) {
	if err := r.fails(); err != nil {
		return nil, err
	}
	return r.reader.Target(k, head)
}

func (r *brokenReader) IsPending(run string, rec *record.Run) (bool, error) {
	if err := r.fails(); err != nil {
		return false, err
	}
	return r.reader.IsPending(run, rec)
}

func (r *brokenReader) NextPending(k record.Key) (*record.Pending, string, error) {
	if err := r.fails(); err != nil {
		return nil, "", err
	}
	return r.reader.NextPending(k)
}

func (r *brokenReader) Definition(pipeline, hash string) (*plan.Plan, error) {
	if err := r.fails(); err != nil {
		return nil, err
	}
	return r.reader.Definition(pipeline, hash)
}

func (r *brokenReader) Plan(run string, rec *record.Run) (*plan.Plan, error) {
	if err := r.fails(); err != nil {
		return nil, err
	}
	return r.reader.Plan(run, rec)
}

func (r *brokenReader) Run(id string) (*record.RunState, error) {
	if err := r.fails(); err != nil {
		return nil, err
	}
	return r.reader.Run(id)
}

func (r *brokenReader) Work(k record.Key, resourceID string) (*record.Work, error) {
	if err := r.fails(); err != nil {
		return nil, err
	}
	return r.reader.Work(k, resourceID)
}

func (r *brokenReader) Signal(run, name string, taken func(string) bool) (store.Record, error) {
	if err := r.fails(); err != nil {
		return store.Record{}, err
	}
	return r.reader.Signal(run, name, taken)
}

func (r *brokenReader) RevisionKeys(k record.Key) ([]string, error) {
	if err := r.fails(); err != nil {
		return nil, err
	}
	return r.reader.RevisionKeys(k)
}

func (r *brokenReader) Slots(pipeline string) (map[int64]bool, error) {
	if err := r.fails(); err != nil {
		return nil, err
	}
	return r.reader.Slots(pipeline)
}

func (r *brokenReader) Leftovers(run string) ([]string, bool, error) {
	if err := r.fails(); err != nil {
		return nil, false, err
	}
	return r.reader.Leftovers(run)
}

// TestReadErrorLeavesNoTrace fails each read of a decision in turn. The decision returns the error, changes nothing, and is the
// same when it is made again.
func TestReadErrorLeavesNoTrace(t *testing.T) {
	timed := listOf("a")
	timed.Timeout = document.Duration(time.Minute)
	call := []record.Step{{State: plan.Running, Attempt: 1, Started: start}}
	retries := func(newest bool) func(w *world) (*heldRun, run.Input) {
		return func(w *world) (*heldRun, run.Input) {
			w.savePipeline("p", timed)
			w.endedRun("old", timed, nil, record.Step{State: plan.Failed, Attempt: 1})
			return w.queuedRun("p", record.Retried, func(rec *record.Run, _ *record.Resource) { rec.Of, rec.Newest = "old", newest }), run.Input{}
		}
	}
	for _, c := range []struct {
		name  string
		setup func(w *world) (*heldRun, run.Input)
		reads int // at least
	}{
		{"a run begins", func(w *world) (*heldRun, run.Input) {
			w.savePipeline("p", timed)
			return w.queuedRun("p", record.Created), run.Input{}
		}, 3},
		{"a run begins whose steps are to be planned", func(w *world) (*heldRun, run.Input) {
			w.savePipeline("p", &plan.Plan{}, func(rec *record.Pipeline) { rec.Planned = true })
			return w.queuedRun("p", record.Created), run.Input{}
		}, 3},
		{"a run begins before another", func(w *world) (*heldRun, run.Input) {
			w.savePipeline("p", timed)
			w.put(record.PendingKey(resource, 1), &record.Pending{Run: "next", Generation: 1, Cause: record.Updated})
			return w.queuedRun("p", record.Created, func(_ *record.Run, head *record.Resource) { head.Queued, head.LastPosition = 1, 1 }), run.Input{}
		}, 4},
		{"a run waits behind another", func(w *world) (*heldRun, run.Input) {
			w.put(record.PendingKey(resource, 1), &record.Pending{Run: "run0001", Generation: 1, Cause: record.Updated})
			return w.queuedRun("p", record.Created, func(rec *record.Run, head *record.Resource) {
				rec.Position, head.Pending, head.Queued, head.LastPosition = 1, "other", 1, 1
			}), run.Input{}
		}, 2},
		{"a retry begins", retries(false), 3},
		{"a retry begins along the newest definition", retries(true), 4},
		{"a deletion begins", func(w *world) (*heldRun, run.Input) {
			w.savePipeline("p", timed)
			return w.queuedRun("p", record.Deleted), run.Input{}
		}, 3},
		{"a deletion ends", func(w *world) (*heldRun, run.Input) {
			k := w.activeRun(listOf("a").Backwards(nil), call)
			k.leftovers = true
			return k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, 0, done)}}
		}, 3},
		{"a queued run is canceled", func(w *world) (*heldRun, run.Input) {
			w.savePipeline("p", timed)
			return w.queuedRun("p", record.Created), stops(cancelIt)
		}, 2},
		{"a signal comes", func(w *world) (*heldRun, run.Input) {
			return w.activeRun(listOf("a"), []record.Step{{State: plan.Waiting, Attempt: 1, Again: true, Await: "go"}}), run.Input{}
		}, 1},
		{"the steps of a retry were planned", func(w *world) (*heldRun, run.Input) {
			w.endedRun("old", timed, nil, record.Step{State: plan.Failed, Attempt: 1})
			p := (&plan.Plan{}).Unplanned("p")
			k := w.activeRun(p, call, func(rec *record.Run, _ *record.Resource) { rec.Of, rec.Newest = "old", true })
			whole := *p
			whole.Steps = append(append([]plan.Step{}, p.Steps...), listOf("a", "b").Steps...)
			return k, run.Input{Outcomes: []*run.Outcome{w.outcome(k, 0, func(o *run.Outcome) { o.Kind, o.Plan = run.Planned, &whole })}}
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.host.register("a", "b", plan.PlannerName("p"))
			k, given := c.setup(w)
			w.load(k)
			k.state.Run.Key()
			in, before, free := w.input(k, given), cloneState(&k.state), w.host.workers
			for reads := 0; ; reads++ {
				tr, err := run.Next(&k.state, in, &brokenReader{w.ledger.View(ctx), reads}, w.host, w.limits)
				w.host.Release()
				tr.Recycle()
				k.state.Head, k.state.Rev = nil, 0
				require.Equal(t, before, cloneState(&k.state))
				require.Equal(t, free, w.host.workers)
				if err == nil {
					require.GreaterOrEqual(t, reads, c.reads)
					break
				}
				require.ErrorIs(t, err, errBroken)
			}
			w.commit(k, in, w.next(k, in))
		})
	}
}

func TestReadErrorOfPipelineLeavesNoTrace(t *testing.T) {
	w := newWorld(t)
	w.savePipeline("p", listOf("a"))
	w.write(store.Put(record.PipelineKey("p"), []byte("damaged")))
	k := w.queuedRun("p", record.Created)
	w.load(k)
	tr, err := run.Next(&k.state, w.input(k, run.Input{}), w.ledger.View(ctx), w.host, w.limits)
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.Nil(t, tr.Head())
	tr.Recycle()
}
