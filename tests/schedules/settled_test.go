package schedules_test

import (
	"context"
	"slices"
	"testing/synctest"
	"time"

	"github.com/conveyor-go/conveyor"
)

// watch looks at the engine whenever it is settled: every goroutine of the bubble waits for something, and none waits in
// the store. Then nothing more will happen before a time comes or a driver returns, so that whatever could be going on
// and is not has been lost. It looks after each thing that happens, and just after each time that something is due, so
// that no later wake-up can make good what was lost before.
func (x *explorer) watch(ended <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ended:
			return
		case <-x.looks:
		case <-timer.C:
		}
		synctest.Wait()
		x.mu.Lock()
		next := x.lookAround()
		x.mu.Unlock()
		timer.Reset(next)
	}
}

// lookAround returns the time until it should look again.
func (x *explorer) lookAround() time.Duration {
	now := x.now()
	next := now + int64(time.Hour)
	for _, r := range x.open {
		for _, b := range r.steps {
			if b.rec.Due > now {
				next = min(next, b.rec.Due)
			}
		}
		if r.rec.Deadline > now {
			next = min(next, r.rec.Deadline)
		}
	}
	for _, res := range x.seenResources {
		if res.head.Resync > now {
			next = min(next, res.head.Resync)
		}
	}
	l := x.lives[len(x.lives)-1]
	if l.began != 0 && !l.closing && x.inStore == 0 {
		x.see(sawSettled)
		x.checkSettled(l)
	}
	return time.Duration(next - now + 1)
}

// checkSettled says what must be true of a settled engine.
func (x *explorer) checkSettled(l *lifetime) {
	st, err := l.engine.Stats(context.Background())
	if err != nil {
		x.fault("stats: %v", err)
	}
	if st.Busy != x.working(l) {
		x.fault("%d workers are busy, and %d calls are under way that were not given up", st.Busy, x.working(l))
	}
	if st.Ready > 0 && st.Busy < x.workers {
		x.fault("lost wake-up: %d runs are ready, and %d of %d workers are busy", st.Ready, st.Busy, x.workers)
	}
	// A run that ends while it is signaled, or recovered by Start, is taken for unfinished until a worker looks at it.
	ghosts := st.Busy == x.workers
	if st.Unfinished < len(x.open) || st.Unfinished > len(x.open) && !ghosts {
		x.fault("the engine knows %d unfinished runs, and %d are on record", st.Unfinished, len(x.open))
	}
	for name, slots := range st.Slots {
		if n := l.callsOf(name); slots.Busy != n {
			x.fault("%d slots of driver %s are busy, and %d calls are under way", slots.Busy, name, n)
		}
	}
	rooms := map[string]int{}
	for _, r := range x.open {
		if r.begun() {
			rooms[r.rec.Pipeline]++
		}
	}
	for name, p := range st.Pipelines {
		if p.AtWork < rooms[name] || p.AtWork > rooms[name] && !ghosts {
			x.fault("%d runs of pipeline %s count as at work, and %d are", p.AtWork, name, rooms[name])
		}
	}
	for _, v := range l.active {
		if v.mustEnd() && v.ctxOver == 0 {
			x.fault("run %s step %s is called, its run is stopped, and its context has not ended", v.run.alias, v.run.plan.all[v.step].ID)
		}
	}
	for k, res := range x.seenResources {
		x.checkResource(l, k, res)
	}
	for _, r := range x.open {
		if what := x.idle(l, r, rooms); what != "" {
			x.fault("lost wake-up: run %s: %s, with %d of %d workers busy", r.alias, what, x.working(l), x.workers)
		}
	}
}

// mustEnd says that a call is to be told to end.
func (v *visit) mustEnd() bool {
	if v.step >= len(v.run.plan.Steps) {
		return v.run.rec.CutShort
	}
	return v.run.rec.Stop == "cancel" || v.run.rec.Stop == "supersede"
}

// checkResource says what must be true of a resource when the engine is settled.
func (x *explorer) checkResource(l *lifetime, k conveyor.Key, res *resourceSeen) {
	if res.head.Resync != 0 && res.head.Resync < x.now() {
		x.fault("lost wake-up: %s was to be run again at %s", k.Name, x.since(res.head.Resync))
	}
	r := res.at
	if r == nil || r.rec.Cause == conveyor.CauseDeleted || r.rec.Outcome != conveyor.StateUnset || r.rec.Stop != "" {
		return
	}
	if res.changedIn != l.number && x.working(l) == x.workers {
		return // a former life has left it to a worker of this one
	}
	if res.head.Deleted != 0 {
		x.fault("rule 14: run %s is at work, and the deletion of its resource does not end it", r.alias)
	}
	if x.policies[x.along[k]] == conveyor.Supersede && res.head.Generation > r.rec.Generation {
		x.fault("rule 3: run %s is at generation %d, and generation %d does not supersede it", r.alias, r.rec.Generation, res.head.Generation)
	}
}

// working counts the calls that hold a worker. One that is given up, five seconds after the end of its context, has
// another in its place.
func (x *explorer) working(l *lifetime) (n int) {
	for _, v := range l.active {
		if !v.settled && (v.ctxOver == 0 || x.now() < v.ctxOver+int64(patienceOfEngine)) {
			n++
		}
	}
	return n
}

func (l *lifetime) callsOf(driver string) (n int) {
	for _, v := range l.active {
		if v.driver == driver {
			n++
		}
	}
	return n
}

// idle says what a run should be doing and is not; nothing if all is well.
func (x *explorer) idle(l *lifetime, r *runSeen, rooms map[string]int) string {
	free := x.working(l) < x.workers
	if !r.begun() {
		return x.idleInLine(l, r, rooms, free)
	}
	now := x.now()
	for i := range r.steps {
		if r.state(l, i) == conveyor.StateRunning && !slices.ContainsFunc(l.active, func(v *visit) bool { return v.run == r && v.step == i && !v.settled }) {
			return "step " + r.plan.all[i].ID + " is running, and its driver is not called"
		}
	}
	late := r.rec.Deadline != 0 && now > r.rec.Deadline
	if r.rec.Outcome == conveyor.StateUnset {
		return x.idleSteps(l, r, late, free)
	}
	if late && free && !r.rec.CutShort && r.cleanupWaits(l) {
		return "its cleanup is out of time"
	}
	for i := len(r.plan.Steps); i < len(r.steps); i++ {
		switch state := r.state(l, i); {
		case state == conveyor.StateRunning:
			return ""
		case state.Final() || r.rec.CutShort:
			continue
		case x.startable(l, r, i) && free:
			return "cleanup " + r.plan.all[i].ID + " could start"
		default:
			return ""
		}
	}
	if !free {
		return "" // another life has left it so
	}
	return "its cleanup is done, and it has not ended"
}

// waitsForSlot says that a run which has not begun may wait for a slot: of the driver of any step that it may be given.
func (x *explorer) waitsForSlot(l *lifetime, r *runSeen) bool {
	plans := []*planRecord{x.plans[x.hashes[r.rec.Pipeline]]}
	if of := x.runs[r.rec.Of]; of != nil {
		plans = append(plans, of.plan)
	}
	if r.rec.Cause == conveyor.CauseDeleted { // it finalizes what an earlier run had
		for _, of := range x.resource(r.key).runs {
			plans = append(plans, of.plan)
		}
	}
	return slices.ContainsFunc(x.drivers, func(d *driverSetup) bool {
		uses := slices.Contains(d.listen, r.key.Type) || slices.ContainsFunc(plans, func(p *planRecord) bool { return p != nil && p.uses(d.name) })
		return uses && d.concurrency > 0 && l.callsOf(d.name) >= d.concurrency
	})
}

// holders counts the other runs of a pipeline that may hold a place in its room while they wait for a slot.
func (x *explorer) holders(l *lifetime, r *runSeen) (n int) {
	for _, o := range x.runs {
		if o != r && o.over == 0 && !o.begun() && o.rec.Pipeline == r.rec.Pipeline && x.waitsForSlot(l, o) {
			n++
		}
	}
	return n
}

// idleInLine is the same for a run that has not begun.
func (x *explorer) idleInLine(l *lifetime, r *runSeen, rooms map[string]int, free bool) string {
	res := x.resource(r.key)
	first := slices.IndexFunc(res.runs, func(o *runSeen) bool { return o.over == 0 })
	if res.runs[first] != r || !free || l.strays(r.key) {
		return "" // one is before it
	}
	// It stays in the line until its first step can start, whichever that is.
	if x.waitsForSlot(l, r) || x.holdsBegin(r) {
		return ""
	}
	limits := x.limits[r.rec.Pipeline]
	if n := len(limits); n > 0 && limits[n-1].most > 0 && rooms[r.rec.Pipeline]+x.holders(l, r) >= limits[n-1].most {
		return ""
	}
	return "it could begin"
}

// idleSteps is the same for a run that is at its steps.
func (x *explorer) idleSteps(l *lifetime, r *runSeen, late, free bool) string {
	n := len(r.plan.Steps)
	if late || r.rec.Stop != "" || !r.plan.Independent && r.failed() {
		if r.active(l, 0, n) || !free {
			return ""
		}
		return "it shall end, and nothing of it is running"
	}
	alive := r.active(l, 0, n)
	for i := range n {
		state := r.state(l, i)
		alive = alive || state == conveyor.StateRetrying || state == conveyor.StateWaiting || state == conveyor.StateBlocked
		if !x.ready(l, r, i) {
			continue
		}
		alive = true
		if free && x.startable(l, r, i) {
			return "step " + r.plan.all[i].ID + " could start"
		}
	}
	if !alive && free {
		return "its steps are done, and it has not ended"
	}
	return ""
}

// active says that some of its steps are running.
func (r *runSeen) active(l *lifetime, from, to int) bool {
	for i := from; i < to; i++ {
		if r.state(l, i) == conveyor.StateRunning {
			return true
		}
	}
	return false
}

// cleanupWaits says that the time of the cleanup runs on although none of its steps is called: it waits for something of
// its own making.
func (r *runSeen) cleanupWaits(l *lifetime) bool {
	for i := len(r.plan.Steps); i < len(r.steps); i++ {
		switch state := r.state(l, i); {
		case state.Final():
			continue
		case state == conveyor.StateRetrying, state == conveyor.StateWaiting:
			rec := &r.steps[i].rec
			return !rec.Refused && (rec.Due == 0 || rec.Due > r.rec.Deadline)
		default:
			return false
		}
	}
	return false
}

// state is that of a step as this life must take it: what a former one has started shall begin again.
func (r *runSeen) state(l *lifetime, i int) conveyor.State {
	if b := r.steps[i]; b.rec.State != conveyor.StateRunning || b.startedIn == l.number {
		return b.rec.State
	}
	return conveyor.StateQueued
}

// ready says that a step waits for nothing but its turn, its driver and a slot.
func (x *explorer) ready(l *lifetime, r *runSeen, i int) bool {
	for _, b := range r.plan.before[i] {
		if i < len(r.plan.Steps) && !r.passed(b) {
			return false
		}
	}
	rec := &r.steps[i].rec
	due := rec.Due != 0 && rec.Due < x.now()
	switch r.state(l, i) {
	case conveyor.StateUnset, conveyor.StateQueued, conveyor.StateBlocked:
		return true
	case conveyor.StateRetrying:
		return due
	case conveyor.StateWaiting:
		return due || rec.Await != "" && r.signals > 0
	default:
		return false
	}
}

// startable says that a step which is ready could be called.
func (x *explorer) startable(l *lifetime, r *runSeen, i int) bool {
	name := r.plan.all[i].Driver
	if !x.ready(l, r, i) || l.registered[name] == 0 || x.holdsStep(r, i) {
		return false
	}
	if limit := x.driverSetup(name).concurrency; limit > 0 && l.callsOf(name) >= limit {
		return false
	}
	return !l.strays(r.key)
}

// strays says that a call for a resource was given up and has not returned, which holds up all others.
func (l *lifetime) strays(k conveyor.Key) bool {
	return slices.ContainsFunc(l.active, func(v *visit) bool { return v.run.key == k && v.settled })
}
