package run

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Member is the engine that decides, if the store is shared. The run of a transition that begins, or goes on, is then owned by
// the engine, and only the owner may write the record of the run, but for requests.
//
// Invariant: every unfinished run (a) has an owner, and is listed under it; or (b) has no owner, and is in the index of ready
// runs; or (c) has not begun, and stands in line behind another run of its resource. Each transition keeps the invariant in its
// own commit: it writes the difference between the entries of the run before and after.
type Member struct {
	ID   string
	Live store.Op // a condition that holds unless the engine is marked dead
}

// changesOwner reports whether the transition writes anything but lines of the log, or gives the run up.
func (t *Transition) changesOwner() bool {
	return t.created || t.begun || t.over || t.rewrite || t.head != nil || len(t.steps)+len(t.attempts)+len(t.extra) > 0 ||
		t.rec.Owner == t.member.ID && t.releases()
}

// settleOwner decides who owns the run after the transition, and appends the changes of the index to ops.
//
// A transition that changes nothing of a run without an owner leaves it so: a claim starts a step, ends the run, or releases it
// with other needs, or is not made.
func (t *Transition) settleOwner(m *Member) {
	before := t.entriesBefore()
	was := t.rec.Owner
	switch {
	case t.over:
		t.rec.Owner = ""
	case t.rec.State == plan.Queued:
		// It can be begun by whoever has what it needs.
	case t.releases():
		t.rec.Owner = ""
	default:
		t.rec.Owner = m.ID
	}
	if was != m.ID && t.rec.State != plan.Queued {
		t.rec.Claims++
		t.rewrite = true
	}
	if t.rec.Owner != was {
		t.rewrite = true
	}
	if t.rewrite && (t.rec.Owner == m.ID || was == m.ID) {
		t.rec.Turn++
	}
	after := t.entriesAfter()
	for _, key := range before {
		if !slices.Contains(after, key) {
			t.index = append(t.index, store.Delete(key))
		}
	}
	for _, key := range after {
		if !slices.Contains(before, key) {
			t.index = append(t.index, store.Put(key, nil))
		}
	}
	switch {
	case t.rec.Owner == m.ID && was != m.ID:
		t.index = append(t.index, m.Live)
	case t.over && was == m.ID:
		t.index = append(t.index, store.Delete(record.AskKey(was, t.run.ID)))
	}
}

// releases reports whether the run is given up, because the next steps need drivers that this engine has not, and nothing of the
// run is under way here or can go on here by itself.
func (t *Transition) releases() bool {
	if len(t.elsewhere)+len(t.nowhere) == 0 || len(t.starts) > 0 || t.more {
		return false
	}
	here := false // something goes on here by itself
	for i, state := range t.states {
		switch {
		case state == plan.Running:
			return false
		case slices.Contains(t.elsewhere, i), slices.Contains(t.nowhere, i):
		case i >= t.firstOpen() && (state == plan.Retrying || state == plan.Waiting || state == plan.Queued):
			here = true
		}
	}
	return len(t.elsewhere) > 0 || !here
}

// entriesBefore returns the keys of the entries that the run has on record, and those of the first pending run of the resource.
func (t *Transition) entriesBefore() (keys []string) {
	if t.created {
		return nil
	}
	keys = entries(t.run.ID, &t.run.Rec, t.headBefore(), t.run)
	return append(keys, otherPending(t.run.ID, t.headBefore())...)
}

// entriesAfter returns what entriesBefore returns after the transition.
func (t *Transition) entriesAfter() (keys []string) {
	head := t.headBefore()
	switch {
	case t.removed:
		head = nil
	case t.head != nil:
		head = t.head
	}
	is := &record.RunState{ID: t.run.ID, Rec: t.rec, Plan: t.plan, Steps: make([]record.StepState, len(t.states))}
	if t.plan != nil {
		for i := range is.Steps {
			is.Steps[i].Rec = *t.recorded(i)
		}
	}
	keys = entries(t.run.ID, &t.rec, head, is)
	if t.created {
		return keys // whoever was pending before is so still
	}
	return append(keys, otherPending(t.run.ID, head)...)
}

// headBefore returns the record of the resource before the transition, or nil if the transition does not depend on it.
func (t *Transition) headBefore() *record.Resource { return t.state.Head }

// entries returns the keys under which an unfinished run is found, given the record of its resource.
func entries(id string, rec *record.Run, head *record.Resource, is *record.RunState) []string {
	switch {
	case rec.State.Final():
		return nil
	case rec.Owner != "":
		return []string{record.OwnedKey(rec.Owner, id)}
	case rec.State == plan.Queued:
		if head == nil || head.ID != rec.ResourceID || head.Pending != id || head.Active != "" {
			return nil // it stands in line
		}
		return []string{pendingEntry(id, head)}
	}
	return needs(is)
}

// otherPending returns the entry of the first pending run of a resource, unless that is the given run or an active run comes
// before it.
func otherPending(id string, head *record.Resource) []string {
	if head == nil || head.Active != "" || head.Pending == "" || head.Pending == id {
		return nil
	}
	return []string{pendingEntry(head.Pending, head)}
}

// pendingEntry returns the key of the entry of a run that is the first pending run of its resource while no run is active.
func pendingEntry(id string, head *record.Resource) string {
	return record.ReadyKey(record.Ready{Lane: head.Lane, Run: id})
}

// needs returns the entries of a run that has begun and has no owner: one for each driver that a step which can start needs,
// with the time at which it can start, and one for the deadline of the run.
func needs(r *record.RunState) (keys []string) {
	states := make([]plan.State, len(r.Steps))
	for i := range r.Steps {
		if states[i] = r.Steps[i].Rec.State; !states[i].Final() {
			states[i] = plan.Queued // a wait ends some time
		}
	}
	starts, _ := r.Plan.Next(states, r.Rec.Stop != plan.StopNone, r.Rec.CutShort)
	lane := record.Lane(r.Rec.Pipeline, r.Rec.Key())
	for _, i := range starts {
		e := record.Ready{Driver: r.Plan.Step(i).Driver, Lane: lane, Run: r.ID}
		if s := &r.Steps[i].Rec; s.State == plan.Retrying || s.State == plan.Waiting {
			if e.Due = s.Due; e.Due == 0 {
				e.Due = record.Never
			}
		}
		if key := record.ReadyKey(e); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	if due := r.Rec.Deadline; due != 0 || len(keys) == 0 { // a run that only has to end needs no driver
		keys = append(keys, record.ReadyKey(record.Ready{Lane: record.Urgent, Due: due, Run: r.ID}))
	}
	return keys
}

// TakeOver returns the writes that make a run of an engine that is marked dead the run of another engine.
func TakeOver(r *record.RunState, by *Member) []store.Op {
	rec := r.Rec
	from := rec.Owner
	rec.Owner, rec.Claims, rec.Turn = by.ID, rec.Claims+1, rec.Turn+1
	return []store.Op{
		store.Put(record.RunKey(r.ID), record.Encode(&rec)).If(r.Rev), by.Live,
		store.Delete(record.OwnedKey(from, r.ID)), store.Put(record.OwnedKey(by.ID, r.ID), nil), store.Delete(record.AskKey(from, r.ID)),
	}
}

// MoveEntry returns the writes that move the entry of the first pending run of a resource when a change that the run takes up gives
// the resource another lane. before is the record of the resource that the commit replaces.
func MoveEntry(before, after *record.Resource) (ops []store.Op) {
	from, to := otherPending("", before), otherPending("", after)
	if slices.Equal(from, to) {
		return nil
	}
	for _, key := range from {
		ops = append(ops, store.Delete(key))
	}
	for _, key := range to {
		ops = append(ops, store.Put(key, nil))
	}
	return ops
}
