package schedules_test

import (
	"context"
	"errors"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// pauseSeen is what is known of the pause of a target.
type pauseSeen struct {
	asked    bool  // a Pause is under way: it holds before it is on record
	recorded bool  // it is on record
	removed  int64 // when its record was removed
	firm     bool  // its Pause has returned, in this life or before, and no Resume was called since
}

// stopOrGoOn pauses a target, or resumes one, in the seeds in which the line is stopped at times. It reports whether it did.
func (x *explorer) stopOrGoOn(ctx context.Context, l *lifetime, d *dice, k conveyor.Key) bool {
	if !x.stops || !d.oneIn(6) {
		return false
	}
	targets := []conveyor.Target{{All: true}, {Type: k.Type}, {Resource: k}, {Driver: x.drivers[d.n(len(x.drivers))].name}}
	if p := x.along[k]; p != "" {
		targets = append(targets, conveyor.Target{Pipeline: p})
	}
	t := targets[d.n(len(targets))]
	select {
	case x.stopping <- struct{}{}: // one at a time, so that it is known what holds
		defer func() { <-x.stopping }()
	case <-ctx.Done():
		return true
	}
	if d.oneIn(2) {
		x.resume(ctx, l, t)
		return true
	}
	x.mu.Lock()
	x.pauseOf(t).asked = true
	x.mu.Unlock()
	err := l.engine.Pause(ctx, t, "stop")
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pauseOf(t).asked = false
	x.note(note{life: l.number, what: "pause", whose: t.String(), more: textOf(err)})
	if err == nil && !l.over {
		x.see(sawPause)
		p := x.pauseOf(t)
		p.firm = true
		if !p.recorded {
			x.fault("Pause of %s has returned, and it is not on record", t)
		}
	}
	return true
}

func (x *explorer) resume(ctx context.Context, l *lifetime, t conveyor.Target) {
	x.mu.Lock()
	x.pauseOf(t).firm = false
	x.mu.Unlock()
	err := l.engine.Resume(ctx, t)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.note(note{life: l.number, what: "resume", whose: t.String(), more: textOf(err)})
	if p := x.pauseOf(t); !l.over && p.recorded && (err == nil || errors.Is(err, conveyor.ErrNotFound)) {
		x.fault("Resume of %s has returned %v, and the pause is on record", t, err)
	}
}

// resumeAll ends the pauses that are on record.
func (x *explorer) resumeAll(ctx context.Context, l *lifetime) {
	for p, err := range l.engine.Pauses(ctx) {
		x.must("list the pauses", err)
		x.resume(ctx, l, p.Target)
	}
}

func textOf(err error) string {
	if err == nil {
		return "nil"
	}
	return err.Error()
}

// pauseOf returns what is known of a target; x.mu is held.
func (x *explorer) pauseOf(t conveyor.Target) *pauseSeen {
	if x.pauses[t] == nil {
		x.pauses[t] = new(pauseSeen)
	}
	return x.pauses[t]
}

// pauseCommitted notes that the record of a pause was written or removed.
func (x *explorer) pauseCommitted(key string, removed bool) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(key, "pse/"), "/")
	var t conveyor.Target
	switch kind {
	case "all":
		t.All = true
	case "type":
		t.Type = name
	case "pipeline":
		t.Pipeline = name
	case "driver":
		t.Driver = name
	case "resource":
		t.Resource.Type, t.Resource.Name, _ = strings.Cut(name, "/")
	}
	p := x.pauseOf(t)
	if p.recorded = !removed; removed {
		p.removed = x.now()
	}
}

// pausesOutlive makes firm what is on record when a process starts.
func (x *explorer) pausesOutlive() {
	for _, p := range x.pauses {
		p.firm = p.recorded
	}
}

// paused returns the target that holds a step with a driver, among those for which holds returns true. An empty driver stands
// for any.
func (x *explorer) paused(r *runSeen, driver string, holds func(*pauseSeen) bool) (conveyor.Target, bool) {
	for t, p := range x.pauses {
		of := t.All || t.Type == r.key.Type || t.Pipeline != "" && t.Pipeline == r.rec.Pipeline || t.Resource == r.key ||
			t.Driver != "" && (driver == "" || t.Driver == driver)
		if of && holds(p) {
			return t, true
		}
	}
	return conveyor.Target{}, false
}

func isFirm(p *pauseSeen) bool     { return p.firm }
func isRecorded(p *pauseSeen) bool { return p.recorded }

// mayHaveHeld reports whether a pause can have been in force when what is recorded now was decided.
func (x *explorer) mayHaveHeld(p *pauseSeen) bool {
	return p.recorded || p.asked || p.removed != 0 && p.removed >= x.now()-8*int64(x.slow)
}

// checkPaused looks at a step that starts.
func (x *explorer) checkPaused(r *runSeen, i int, was *stepRecord) {
	if i >= len(r.plan.Steps) || r.plan.Finalize || was.Attempt > 0 {
		return
	}
	if t, held := x.paused(r, r.plan.all[i].Driver, isFirm); held {
		x.fault("run %s step %s starts, and %s is paused", r.alias, r.plan.all[i].ID, t)
	}
}

// holdsBegin reports whether a pause may keep a run from beginning.
func (x *explorer) holdsBegin(r *runSeen) bool {
	if r.rec.Cause == conveyor.CauseDeleted {
		return false
	}
	_, held := x.paused(r, "", isRecorded)
	if held {
		x.see(sawHeldRun)
	}
	return held
}

// holdsStep reports whether a pause keeps a step from starting.
func (x *explorer) holdsStep(r *runSeen, i int) bool {
	if i >= len(r.plan.Steps) || r.plan.Finalize || r.steps[i].rec.Attempt > 0 {
		return false
	}
	_, held := x.paused(r, r.plan.all[i].Driver, isRecorded)
	if held {
		x.see(sawHeldStep)
	}
	return held
}
