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
	j := s.take(id, k, lane)
	j.mu.Lock()
	j.busy, j.strewn = true, 0
	j.log, j.outputs = runlog.New(id, 0), map[string]json.RawMessage{}
	j.mu.Unlock()
	j.held.Run = &record.RunState{ID: id, Rec: rec}
	spare := next.Active == "" && next.Pending == id && s.pool.Reserve()
	d := s.newDecision(j, nil, spare)
	d.t, err = run.New(&j.held, &run.Wanted{
		Head: next, Rev: rev, Pipeline: want.along, Spec: want.spec, Extra: want.extra, Start: spare,
	}, &d.in, s.view, &d.host, s.limits)
	if err == nil {
		err = s.commit(d)
	}
	var first *attempt
	var made *Run
	if err == nil {
		made = runOf(j.held.Run, nil)
		*want.next = *d.t.Head()
		if want.write {
			s.events.publish(Event{Time: now, Kind: EventResource, Resource: Key(k)})
		}
		if !d.t.Begun() {
			s.events.publish(runEvent(j, d.t.Rec()))
		}
		first = s.adopt(d)
	} else {
		d.host.Release()
		s.forget(j)
		j.unload() // or else what has woken it meanwhile would take it for a run
	}
	spare = d.host.spare
	d.recycle()
	if first != nil {
		s.employ(first)
	}
	if spare {
		s.pool.Release() // nothing took the place
	}
	s.leave(j)
	if err == nil && want.next.Deleted != 0 && want.next.Pending != "" && want.next.Pending != id {
		s.enqueue(s.take(want.next.Pending, k, lane)) // it is not to begin any more
	}
	if errors.Is(err, store.ErrUnknown) {
		s.enqueue(s.take(id, k, lane)) // it may be on record
	}
	return made, err
}

// leave ends the time in which the journey was busy with its own creation, and does what came up meanwhile.
func (s *scheduler) leave(j *journey) {
	j.mu.Lock()
	j.busy = false
	again := len(j.inbox) > 0
	j.mu.Unlock()
	if !again || s.beside(func() { s.drive(j, message{}, false) }) {
		return
	}
	j.mu.Lock()
	inbox := j.inbox
	j.inbox = nil
	j.mu.Unlock()
	s.answer(inbox, ErrClosed) // or else who wants it canceled would wait for ever
}
