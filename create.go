package conveyor

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/store"
)

// newRun commits a new run along with what it is for, started if that can be.
func (e *Engine) newRun(k record.Key, want *submission, rev store.Revision) (_ *Run, err error) {
	s := e.sched
	next := want.next
	now := time.Now()
	id := e.ids.Next(now)
	rec := record.Run{
		Type: k.Type, Name: k.Name, ResourceID: next.ID, Cause: want.cause, State: plan.Queued,
		Generation: next.Generation, Pipeline: next.Pipeline, Created: record.TimeOf(now),
		Of: want.of.Of, From: want.of.From, Newest: want.of.Newest,
	}
	want.extra = append(want.extra, next.EnqueuePending(k, id, &rec, want.keep)...)
	want.extra = append(want.extra, next.CancelResync(k)...)
	next.Status.Phase, next.Status.Run, next.Status.Message = plan.Queued, id, ""

	// The journey is known before the commit, so that whoever sees the run on record finds it. It is busy until this
	// call is done with it.
	lane := laneOf(next.Pipeline, k)
	r := s.take(id, k, lane)
	r.mu.Lock()
	r.busy, r.leftovers = true, 0
	r.log, r.outputs = runlog.New(id, 0), map[string]json.RawMessage{}
	r.mu.Unlock()
	r.held.Run = &record.RunState{ID: id, Rec: rec}
	spare := next.Active == "" && next.Pending == id && s.pool.Reserve()
	d := s.newDecision(r, nil, spare)
	d.t, err = run.New(&r.held, &run.Wanted{
		Head: next, Rev: rev, Pipeline: want.along, Spec: want.spec, Extra: want.extra, Start: spare,
	}, &d.in, s.view, &d.host, s.limits)
	if err == nil {
		err = d.commit()
	}
	var first *attempt
	var made *Run
	if err == nil {
		made = runOf(r.held.Run, nil)
		*want.next = *d.t.Head()
		if want.write {
			s.events.publish(Event{Time: now, Kind: EventResource, Resource: Key(k)})
		}
		if !d.t.Begun() {
			s.events.publish(runEvent(r, d.t.Rec()))
		}
		first = d.dispatch()
	} else {
		d.host.Release()
		s.forget(r)
		r.unload() // or else what has woken it meanwhile would take it for a run
	}
	spare = d.host.ownWorker
	d.recycle()
	if first != nil {
		s.startWorker(first)
	}
	if spare {
		s.pool.Release() // nothing took the place
	}
	s.leave(r)
	if err == nil && want.next.Deleted != 0 && want.next.Pending != "" && want.next.Pending != id {
		s.enqueue(s.take(want.next.Pending, k, lane)) // it is not to begin any more
	}
	if errors.Is(err, store.ErrUnknown) {
		s.enqueue(s.take(id, k, lane)) // it may be on record
	}
	return made, err
}

// leave ends the time in which the journey was busy with its own creation, and does what came up meanwhile.
func (s *scheduler) leave(r *runner) {
	r.mu.Lock()
	r.busy = false
	again := len(r.inbox) > 0
	r.mu.Unlock()
	if !again || s.goBackground(func() { s.drive(r, message{}, false) }) {
		return
	}
	r.mu.Lock()
	inbox := r.inbox
	r.inbox = nil
	r.mu.Unlock()
	s.answer(inbox, ErrClosed) // or else who wants it canceled would wait for ever
}
