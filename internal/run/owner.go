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
	// Unpaused is a condition that holds as long as the pauses are those that the engine knows. Whatever starts a step for the first
	// time has it. The zero Op is no condition.
	Unpaused store.Op
}

// settleOwner decides who owns the run after the transition, and appends to extra what makes the index show it. It is called
// once, when everything else is decided, and does nothing unless the store is shared.
//
// A transition that changes nothing of a run without an owner leaves it so: a claim starts a step, ends the run, or releases it
// with other needs, or is not made.
func (t *Transition) settleOwner() {
	m, was := t.member, t.rec.Owner
	if m == nil || t.Idle() {
		return
	}
	release := t.releases()
	if !t.writes() && !(was == m.ID && release) {
		return
	}
	switch {
	case t.over || release:
		t.rec.Owner = ""
	case t.rec.State != plan.Queued: // a queued run can be begun by whoever has what it needs
		t.rec.Owner = m.ID
	}
	if was != m.ID && t.rec.State != plan.Queued {
		t.rec.Claims++
		t.rewrite = true
	}
	if t.over {
		t.leaveSlot()
	}
	t.rewrite = t.rewrite || t.rec.Owner != was
	if t.rewrite && (t.rec.Owner == m.ID || was == m.ID) {
		t.rec.Turn++
	}
	t.moveEntries()
	switch {
	case t.rec.Owner == m.ID && was != m.ID:
		t.extra = append(t.extra, m.Live)
	case t.over && was == m.ID:
		t.extra = append(t.extra, store.Delete(record.AskKey(was, t.run.ID)))
	}
	if m.Unpaused.Key() != "" && t.startsAnew() {
		t.extra = append(t.extra, m.Unpaused)
	}
}

// moveEntries appends to extra what makes the index show the run as it is after the transition. The entry by which the run was found goes
// if it is for nothing. It can be gone since, when another engine has had the run in between, so it never stands for one that must be there.
func (t *Transition) moveEntries() {
	before, after := t.entriesBefore(), t.entriesAfter()
	t.extra = append(t.extra, moveEntries(before, after)...)
	if t.found != "" && !slices.Contains(before, t.found) && !slices.Contains(after, t.found) {
		t.extra = append(t.extra, store.Delete(t.found))
	}
}

// startsAnew reports whether the transition starts a step that a pause could hold.
func (t *Transition) startsAnew() bool {
	return slices.ContainsFunc(t.starts, func(i int) bool { return t.canBeHeld(i) && !t.was(i).Rec.Called() })
}

// writes reports whether the transition writes anything but lines of the log.
func (t *Transition) writes() bool {
	return t.rewrite || t.head != nil || len(t.steps)+len(t.attempts)+len(t.extra) > 0
}

// releases reports whether the run is given up, because the next steps need drivers that this engine has not, and nothing of the
// run is under way here or can go on here by itself.
func (t *Transition) releases() bool {
	if len(t.elsewhere)+len(t.nowhere) == 0 || len(t.starts) > 0 || t.more || t.host.Stray() {
		return false
	}
	here, open := false, t.firstOpen() // here: something goes on here by itself
	for i, state := range t.states {
		switch {
		case state == plan.Running:
			return false
		case slices.Contains(t.elsewhere, i), slices.Contains(t.nowhere, i):
		case i >= open && (state == plan.Retrying || state == plan.Waiting || state == plan.Queued):
			here = true
		}
	}
	return len(t.elsewhere) > 0 || !here
}

// entriesBefore returns the keys of the entries that the run has on record, and those of the first pending run of the resource.
func (t *Transition) entriesBefore() (keys []string) {
	if t.created {
		return pendingEntry(t.before)
	}
	return entries(t.run.ID, &t.run.Rec, t.state.Head, func() *record.RunState { return t.run })
}

// entriesAfter returns what entriesBefore returns after the transition.
func (t *Transition) entriesAfter() (keys []string) {
	head := t.state.Head
	switch {
	case t.removed:
		head = nil
	case t.head != nil:
		head = t.head
	}
	return entries(t.run.ID, &t.rec, head, func() *record.RunState {
		is := &record.RunState{ID: t.run.ID, Rec: t.rec, Plan: t.plan, Steps: make([]record.StepState, len(t.states))}
		for i := range is.Steps {
			is.Steps[i].Rec = *t.recorded(i)
		}
		return is
	})
}

// Keeps reports whether the run, after the transition, is found by an entry.
func (t *Transition) Keeps(key string) bool { return slices.Contains(t.entriesAfter(), key) }

// entries returns the keys under which an unfinished run is found, and that of the first pending run of the resource, given the
// record of the resource. state returns the run; it is called only if the run has begun and has no owner.
func entries(id string, rec *record.Run, head *record.Resource, state func() *record.RunState) (keys []string) {
	switch {
	case rec.State.Final(), rec.State == plan.Queued: // a queued run is the first pending one, or stands in line
	case rec.Owner != "":
		keys = append(keys, record.OwnedKey(rec.Owner, id))
	default:
		keys = needs(state())
	}
	return append(keys, pendingEntry(head)...)
}

// pendingEntry returns the key of the entry of the first pending run of a resource. It returns none if there is no such run, or if
// an active run comes before it.
func pendingEntry(head *record.Resource) []string {
	if head == nil || head.Active != "" || head.Pending == "" {
		return nil
	}
	lane := head.Lane
	if head.Deleted != 0 {
		lane = record.Urgent // any engine can end a run that the deletion cancels, and a deletion needs other drivers than its lane
	}
	return []string{record.ReadyKey(record.Ready{Lane: lane, Run: head.Pending})}
}

// moveEntries returns the writes that make the entries before those after.
func moveEntries(before, after []string) (ops []store.Op) {
	for _, key := range before {
		if !slices.Contains(after, key) {
			ops = append(ops, store.Delete(key))
		}
	}
	for _, key := range after {
		if !slices.Contains(before, key) {
			ops = append(ops, store.Put(key, nil))
		}
	}
	return ops
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
	switch due := r.Rec.Deadline; {
	case len(keys) == 0: // a run that only has to end needs no driver
		return []string{record.ReadyKey(record.Ready{Lane: record.Urgent, Run: r.ID})}
	case due != 0:
		keys = append(keys, record.ReadyKey(record.Ready{Lane: record.Urgent, Due: due, Run: r.ID}))
	}
	return keys
}

// TakeOver returns the writes that make a run of an engine that is marked dead the run of another engine. The commit must have the
// condition by.Live besides.
func TakeOver(r *record.RunState, by *Member) []store.Op {
	rec := r.Rec
	from := rec.Owner
	rec.Owner, rec.Claims, rec.Turn = by.ID, rec.Claims+1, rec.Turn+1
	return []store.Op{
		store.Put(record.RunKey(r.ID), record.Encode(&rec)).If(r.Rev),
		store.Delete(record.OwnedKey(from, r.ID)), store.Put(record.OwnedKey(by.ID, r.ID), nil), store.Delete(record.AskKey(from, r.ID)),
	}
}

// MoveEntry returns the writes that move the entry of the first pending run of a resource when a change that the run takes up gives
// the resource another lane. before is the record of the resource that the commit replaces.
func MoveEntry(before, after *record.Resource) []store.Op {
	return moveEntries(pendingEntry(before), pendingEntry(after))
}
