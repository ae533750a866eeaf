package run

import (
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Idle says that the draft pins a run that could not start anything yet: it stays queued, so that it still takes up
// what is applied meanwhile.
func (t *Transition) Idle() bool {
	return t.begun && !t.over && len(t.starts) == 0 && len(t.steps) == 0
}

// Ops returns the writes. The first is conditional and of a record that nobody else writes, from which an unknown outcome
// is told.
func (t *Transition) Ops() (ops []store.Op) {
	id := t.run.ID
	ops = t.ops[:0]
	idle := t.Idle()
	if !idle {
		for i := range t.steps {
			c := &t.steps[i]
			if c.key = t.was(c.index).Key; c.key == "" {
				c.key = record.StepKey(id, t.stepID(c.index))
			}
			ops = append(ops, t.put(c.key, &c.rec).If(t.was(c.index).Rev))
		}
		if t.rewrite {
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
	// Every change of a run is a compare-and-set on its record. Where that record itself stays the same it is only
	// compared: to rewrite it at every step would double the bytes of a transition and keep out nobody more, since
	// whoever takes a run over has to write it.
	if len(ops) > 0 && (idle || !t.rewrite) {
		ops = append(ops, store.Check(t.run.Key(), t.run.Rev))
	}
	t.ops = ops
	return ops
}

// put is a write of a record.
func (t *Transition) put(key string, rec record.Appender) store.Op {
	from := len(t.values)
	t.values = rec.AppendJSON(t.values)
	return store.Put(key, t.values[from:len(t.values):len(t.values)])
}

// Committed makes the state show what was committed, at a revision.
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
