package conveyor

import (
	"errors"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/store"
)

// newRun commits a new run together with the change that the run is for. The same commit starts the run if the run can
// start at once.
func (e *Engine) newRun(k record.Key, want *submission, rev store.Revision) (_ *Run, err error) {
	s, next := e.sched, want.next
	now := clock.Now()
	id := e.ids.Next(now)
	rec := enqueueNewRun(k, id, now, want)
	lane := laneOf(next.Pipeline, k)
	r := s.createRunner(id, k, lane, rec)
	ownWorker := next.Active == "" && next.Pending == id && s.pool.Reserve()
	d := s.newDecision(r, nil, ownWorker)
	d.t, err = run.New(&r.held, &run.Wanted{
		Head: next, Rev: rev, Pipeline: want.pipeline, Spec: want.spec, Extra: want.extra, Start: ownWorker,
	}, &d.in, s.view, &d.host, s.limits)
	if err == nil {
		err = d.commit()
	}
	var first *attempt
	var created *Run
	if err == nil {
		created, first = e.dispatchNewRun(d, want, now)
	} else {
		d.host.Release()
		s.forget(r)
		r.unload() // otherwise a message that came in the meantime would be handled as if the run existed
	}
	ownWorker = d.host.ownWorker
	d.recycle()
	if first != nil {
		s.startWorker(first)
	}
	if ownWorker {
		s.pool.Release() // no attempt needs the reserved worker
	}
	s.endCreation(r)
	if err == nil && next.Deleted != 0 && next.Pending != "" && next.Pending != id {
		s.enqueue(s.take(next.Pending, k, lane)) // it must end without beginning, because of the deletion behind it
	}
	if errors.Is(err, store.ErrUnknown) {
		s.enqueue(s.take(id, k, lane)) // the run may be recorded
	}
	return created, err
}

// enqueueNewRun returns the record of a new run, and makes the run the newest one in the resource's record want.next.
// It adds to want.extra what must be written for this.
func enqueueNewRun(k record.Key, id string, now time.Time, want *submission) record.Run {
	next := want.next
	next.LastRun++
	rec := record.Run{
		Type: k.Type, Name: k.Name, ResourceID: next.ID, Cause: want.cause, State: plan.Queued,
		Generation: next.Generation, Pipeline: next.Pipeline, Created: record.TimeOf(now),
		Of: want.repeat.Of, From: want.repeat.From, Newest: want.repeat.Newest,
		Number: next.LastRun,
	}
	want.extra = append(want.extra, next.EnqueuePending(k, id, &rec, want.fixGeneration)...)
	want.extra = append(want.extra, next.CancelResync(k)...)
	next.Status.Phase, next.Status.Run, next.Status.Message = plan.Queued, id, ""
	return rec
}

// createRunner makes the runner of a run that is about to be committed. The pool knows the runner before the commit, so
// that everybody who sees the run in the store finds the runner. The runner is busy until endCreation is called.
func (s *scheduler) createRunner(id string, k record.Key, lane string, rec record.Run) *runner {
	r := s.take(id, k, lane)
	r.mu.Lock()
	r.busy, r.leftovers = true, 0
	r.log, r.outputs = runlog.New(id, 0, s.opts.Limits.LogLines), map[string]stepOutput{}
	r.mu.Unlock()
	r.held.Run = &record.RunState{ID: id, Rec: rec}
	return r
}

// dispatchNewRun carries out the committed transition of a new run. It returns the run, and the attempt that needs the
// worker which the caller has reserved, or nil.
func (e *Engine) dispatchNewRun(d *decision, want *submission, now time.Time) (created *Run, first *attempt) {
	created = runOf(d.runner.held.Run, nil)
	*want.next = *d.t.Head()
	if want.write {
		e.events.publish(Event{Time: now, Kind: EventResource, Resource: Key(d.runner.Key)})
	}
	if !d.t.Begun() {
		e.events.publish(runEvent(d.runner, d.t.Rec()))
	}
	return created, d.dispatch()
}

// endCreation ends the time in which a runner is busy with the creation of its run, and has the messages handled that
// came in the meantime.
func (s *scheduler) endCreation(r *runner) {
	r.mu.Lock()
	r.busy = false
	again := len(r.inbox) > 0
	r.mu.Unlock()
	if !again || s.background.Go(func() { s.drive(r, message{}, false) }) {
		return
	}
	r.mu.Lock()
	inbox := r.inbox
	r.inbox = nil
	r.mu.Unlock()
	s.answer(inbox, ErrClosed) // otherwise a caller of Cancel would wait for ever
}
