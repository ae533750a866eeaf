package run

import (
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Idle reports whether the run would begin without starting a step or changing one. Then the run stays queued and
// nothing but lines of its log is recorded, so that the run still takes up the changes that are applied before it begins.
func (t *Transition) Idle() bool {
	return t.begun && !t.over && len(t.starts) == 0 && len(t.steps) == 0 && !t.rec.Copying && !t.removing
}

// Ops returns the writes. The first write with a condition is on a record of this run or of one of its steps, which
// nobody else writes. If the outcome of the commit is unknown, this record shows whether the commit has happened. On a shared store
// another engine can write the same record of a step at the same moment, but not the same record of the run, which names its owner.
func (t *Transition) Ops() (ops []store.Op) {
	id := t.run.ID
	ops = t.ops[:0]
	idle := t.Idle()
	if !idle {
		if t.rewrite && t.member != nil {
			ops = append(ops, t.put(t.run.Key(), &t.rec).If(t.run.Rev))
		}
		for i := range t.steps {
			c := &t.steps[i]
			if c.key = t.was(c.index).Key; c.key == "" {
				c.key = record.StepKey(id, t.stepID(c.index))
			}
			ops = append(ops, t.put(c.key, &c.rec).If(t.was(c.index).Rev))
		}
		if t.rewrite && t.member == nil {
			ops = append(ops, t.put(t.run.Key(), &t.rec).If(t.run.Rev))
		}
		switch {
		case t.removed:
			ops = append(ops, store.Delete(record.ResourceKey(t.key)).If(t.rev))
		case t.head != nil:
			ops = append(ops, t.put(record.ResourceKey(t.key), t.head).If(t.rev))
		}
		ops = append(ops, t.attempts...)
		ops = append(ops, t.extra...)
		if t.over && !t.created {
			ops = append(ops, store.Delete(record.ActiveKey(id)))
		}
	}
	if t.lines != nil {
		lines, last := t.lines.Ops()
		if len(lines) > 0 {
			t.logged = last
			ops = append(ops, lines...)
		}
	}
	// Every change of a run is a compare-and-set on the record of the run. A record that stays the same is only
	// compared. Writing it at every step would double the bytes of a transition and would exclude nobody else, because
	// an engine that takes over a run must write this record.
	if len(ops) > 0 && (idle || !t.rewrite) {
		ops = append(ops, store.Check(t.run.Key(), t.run.Rev))
	}
	t.ops = ops
	return ops
}

// put returns the write of a record. The value is kept in the memory of the transition.
func (t *Transition) put(key string, rec record.Appender) store.Op {
	from := len(t.values)
	t.values = rec.AppendJSON(t.values)
	return store.Put(key, t.values[from:len(t.values):len(t.values)])
}

// Committed makes the state show the transition, which was committed with a revision.
func (t *Transition) Committed(rev store.Revision) {
	if t.Idle() {
		return
	}
	s, run := t.state, t.run
	if t.head != nil {
		s.Head, s.Rev = t.head, rev
	}
	if t.rewrite {
		run.Rec, run.Rev = t.rec, rev
	}
	if t.begun || t.extended {
		run.Plan, run.Steps = t.plan, append(make([]record.StepState, 0, len(t.states)), run.Steps[:min(len(run.Steps), 1)]...)
		run.Steps = run.Steps[:len(t.states)]
		s.Spec = t.spec
	}
	for i := range t.steps {
		c := &t.steps[i]
		run.Steps[c.index] = record.StepState{Rec: c.rec, Rev: rev, Key: c.key}
	}
}
