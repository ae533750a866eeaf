package run

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Ask returns the writes by which anybody asks that a run of a shared store end. It returns none if there is nothing to ask,
// because the run is ending already.
func Ask(r *record.RunState, stop *StopRequest, limits Limits) []store.Op {
	t := &Transition{run: r, rec: r.Rec, plan: r.Plan, limits: limits}
	t.requestStop(stop)
	if !t.rewrite {
		return nil
	}
	put, call := store.Put(r.Key(), record.Encode(&t.rec)).If(r.Rev), wake(r.ID, &t.rec)
	if r.Rec.Owner != "" || r.Plan == nil {
		return []store.Op{put, call}
	}
	is := *r
	is.Rec = t.rec
	after := needs(&is)
	if !slices.Contains(after, call.Key()) {
		after = append(after, call.Key())
	}
	return append(moveEntries(needs(r), after), put)
}

// Send returns the writes by which anybody sends a signal to a run of a shared store. put is the write of the signal. The record
// of the run is written too, so that who becomes the owner of the run meanwhile reads the signals again.
func Send(id string, rec record.Run, rev store.Revision, put store.Op) []store.Op {
	rec.Signals++
	ops := []store.Op{put, store.Put(record.RunKey(id), record.Encode(&rec)).If(rev)}
	if rec.Owner == "" && rec.State == plan.Queued {
		return ops // it is found when it begins
	}
	return append(ops, wake(id, &rec))
}

// wake returns the write that makes somebody look at a run: its owner, or any engine if it has none.
func wake(id string, rec *record.Run) store.Op {
	if rec.Owner != "" {
		return store.Put(record.AskKey(rec.Owner, id), nil)
	}
	return store.Put(record.ReadyKey(record.Ready{Lane: record.Urgent, Run: id}), nil)
}
