package schedules_test

import (
	"context"
	"errors"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// act does one of the things that a program does. Most can be refused, at the wrong moment, which is fine.
func (x *explorer) act(ctx context.Context, who string, n int) {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	d := x.dice.on("act").on(who).at(n)
	k := x.resources[d.n(len(x.resources))]
	l := x.life()
	stop := x.dice.on("stop").on(who).at(n)
	if x.stopOrGoOn(ctx, l, &stop, k) {
		x.look()
		return
	}
	what := d.n(100)
	if x.storm && what < 90 {
		what = 0
		if d.oneIn(2) {
			k = x.resources[0] // the quiet one
		}
	}
	var err error
	name := ""
	switch {
	case what < 45:
		name, err = "apply", x.apply(ctx, l, k, d.n(4))
	case what < 52:
		name = "trigger"
		_, err = l.engine.Trigger(ctx, k)
	case what < 64:
		name, err = "cancel", x.cancel(ctx, l, x.recent(k, d.n(4)))
	case what < 68:
		name = "delete"
		_, err = l.engine.Delete(ctx, k)
	case what < 80:
		if r := x.recent(k, 0); r != nil {
			name, err = "signal", l.engine.Signal(ctx, r.id, "go", n)
		}
	case what < 88:
		if r := x.recent(k, d.n(3)); r != nil {
			name = "retry"
			from := conveyor.RetryFrom{Newest: d.oneIn(2), Start: d.oneIn(4)}
			_, err = l.engine.Retry(ctx, r.id, from)
		}
	case what < 94:
		name, err = "edit", x.edit(ctx, l, &d)
	default:
		x.registerLate(l)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if name != "" {
		more := "nil"
		if err != nil {
			more = err.Error()
		}
		x.note(note{life: l.number, what: name, whose: k.Name, more: "by " + who + ": " + more})
	}
	if errors.Is(err, context.DeadlineExceeded) && !l.over {
		x.fault("%s by %s has not returned in an hour", name, who)
	}
	x.look()
}

func (x *explorer) apply(ctx context.Context, l *lifetime, k conveyor.Key, spec int) error {
	o := &conveyor.Object{Meta: conveyor.Meta{Type: k.Type, Name: k.Name, Pipeline: x.along[k]}, Spec: rig.JSON(spec)}
	before := int64(0)
	x.mu.Lock()
	before = x.resource(k).head.Generation
	x.mu.Unlock()
	run, err := l.engine.Apply(ctx, o)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if l.over {
		return nil
	}
	res := x.resource(k)
	if old, known := res.specs[o.Generation]; known && old != string(o.Spec) {
		x.fault("generation %d of %s is acknowledged for spec %s and for %s", o.Generation, k.Name, old, o.Spec)
	}
	res.specs[o.Generation] = string(o.Spec)
	queue := x.policies[x.along[k]] == conveyor.Queue
	res.acked = append(res.acked, ack{o.ID, o.Generation, queue})
	switch r := x.runs[run.ID]; {
	case r == nil:
		x.fault("apply of %s answered run %s, which is not on record", k.Name, run.ID)
	case o.Generation == before:
		x.see(sawUnchanged)
	case r.over == 0 && r.rec.State == conveyor.StateQueued && queue:
		x.see(sawQueued)
	case r.over == 0 && r.rec.State == conveyor.StateQueued && r.rec.Generation < o.Generation:
		x.see(sawCoalesced)
	}
	return nil
}

func (x *explorer) cancel(ctx context.Context, l *lifetime, r *runSeen) error {
	if r == nil {
		return nil
	}
	x.mu.Lock()
	for _, b := range r.steps {
		if r.over == 0 && (b.rec.State == conveyor.StateRetrying || b.rec.State == conveyor.StateWaiting) {
			x.see(sawCancelOfWait)
		}
	}
	x.mu.Unlock()
	err := l.engine.Cancel(ctx, r.id, "not needed")
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.canceled == 0 {
		r.canceled = x.now()
	}
	if r.rec.Stop != "cancel" && !r.rec.CutShort && r.rec.Outcome == conveyor.StateUnset && r.over == 0 {
		x.fault("run %s: Cancel has returned, and it is not on record", r.alias)
	}
	return nil
}

// recent returns one of the last runs of a resource.
func (x *explorer) recent(k conveyor.Key, back int) *runSeen {
	x.mu.Lock()
	defer x.mu.Unlock()
	runs := x.resource(k).runs
	if len(runs) == 0 {
		return nil
	}
	return runs[max(0, len(runs)-1-back)]
}

// edit saves a pipeline with other steps, another limit or other policies. Its way with changes stays.
func (x *explorer) edit(ctx context.Context, l *lifetime, d *dice) error {
	i := d.n(len(x.pipelines))
	name := x.pipelines[i].Name
	p := x.pipeline(d, name)
	p.OnChange = x.policies[name]
	if x.storm {
		return nil
	}
	err := l.engine.SavePipeline(ctx, p)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err == nil && !l.over {
		x.see(sawEdit)
	}
	return err
}

// registerLate registers the next of the drivers that come late.
func (x *explorer) registerLate(l *lifetime) {
	for _, d := range x.drivers {
		x.mu.Lock()
		there := l.registered[d.name] != 0
		x.mu.Unlock()
		if !there {
			x.register(l, d)
			return
		}
	}
}
