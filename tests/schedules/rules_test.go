package schedules_test

import (
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

// runChanged checks what a commit has made of a run. The steps in the same commit come later.
func (x *explorer) runChanged(l *lifetime, r *runSeen, before *runRecord) {
	if before.State.Final() {
		x.fault("run %s was %s, and is changed", r.alias, before.State)
	}
	if r.rec.State != before.State || r.rec.Stop != before.Stop {
		x.note(note{life: l.number, what: "record", whose: r.alias, more: r.rec.State.String() + " " + r.rec.Stop, numbered: "generation", number: int(r.rec.Generation)})
	}
	if r.rec.Started != 0 && before.Started == 0 && r.plan == nil {
		x.begins(r)
	}
	if r.rec.Outcome != before.Outcome && before.Outcome != conveyor.StateUnset {
		x.fault("run %s: its outcome was %s and becomes %s", r.alias, before.Outcome, r.rec.Outcome)
	}
	if r.rec.Stop == "timeout" && before.Stop == "" {
		x.see(sawRunTimeout)
		if r.rec.Deadline == 0 || x.now() < r.rec.Deadline && r.rec.Outcome == conveyor.StateUnset {
			x.fault("run %s is out of time %s before its deadline", r.alias, x.since(r.rec.Deadline)-x.since(x.now()))
		}
	}
	if r.rec.CutShort && !before.CutShort {
		x.see(sawCleanupTimeout)
	}
	if r.rec.Stop == "supersede" && before.Stop == "" {
		x.see(sawSuperseded)
		if head := x.resource(r.key).head; head.Generation <= r.rec.Generation {
			x.fault("run %s of generation %d is superseded, and there is no newer one", r.alias, r.rec.Generation)
		}
	}
}

// begins checks the moment at which a run becomes the one at work.
func (x *explorer) begins(r *runSeen) {
	plan := r.rec.Hash
	if plan == "" {
		plan = r.id
	}
	r.plan = x.plans[plan]
	if r.plan == nil {
		x.fault("run %s begins without a plan", r.alias)
		r.plan = new(planRecord)
	}
	for range r.plan.all {
		r.steps = append(r.steps, &stepBook{attempt: 1})
	}
	res := x.resource(r.key)
	if res.at != nil {
		x.fault("rule 2: run %s begins while run %s of the same resource is at work", r.alias, res.at.alias)
	}
	res.at = r
	if r.id <= res.begun {
		x.fault("rule 3: run %s begins after a younger one", r.alias)
	}
	res.begun = r.id
	head := res.head
	policy := x.policies[r.rec.Pipeline]
	if policy != conveyor.Queue && !res.gone && r.rec.Generation != head.Generation {
		x.fault("rule 3: run %s takes up generation %d, and %d is the newest", r.alias, r.rec.Generation, head.Generation)
	}
	if r.plan.Timeout > 0 && !r.plan.Finalize && r.rec.Deadline != r.rec.Started+int64(r.plan.Timeout) {
		x.fault("run %s: its deadline is %s after its start, and its timeout %s", r.alias, time.Duration(r.rec.Deadline-r.rec.Started), r.plan.Timeout)
	}
	if r.plan.Independent {
		x.see(sawListeners)
	}
	x.checkRoom(r)
}

// limitSeen is how many runs of a pipeline may be at work, from some time on.
type limitSeen struct {
	since int64
	most  int // 0 for any number
}

// checkRoom counts the runs at work of a pipeline. The limit is one that was on record while the run was looked at, or
// shortly before: who applies reads it first.
func (x *explorer) checkRoom(r *runSeen) {
	atWork := 0
	for _, o := range x.open {
		if o.begun() && o.over == 0 && o.rec.Pipeline == r.rec.Pipeline {
			atWork++
		}
	}
	if r.rec.Pipeline == "" {
		return
	}
	most := 0
	limits := x.limits[r.rec.Pipeline]
	looked := r.rec.Started - 8*int64(x.slow)
	for i, l := range limits {
		if i+1 == len(limits) || limits[i+1].since >= looked {
			if l.most == 0 {
				return
			}
			most = max(most, l.most)
		}
	}
	if atWork == most {
		x.see(sawFullRoom)
	}
	if atWork > most {
		x.fault("run %s begins as number %d of pipeline %s, and %d may be at work", r.alias, atWork, r.rec.Pipeline, most)
	}
}

// stepsChanged reads what a commit says of steps, and then checks them, so that an outcome and the start that follows
// from it may be in one commit.
func (x *explorer) stepsChanged(l *lifetime, ops []store.Op) {
	var run *runSeen
	var changed []int
	var were []stepRecord
	for _, op := range ops {
		if !op.Writes() || !strings.HasPrefix(op.Key(), "stp/") || op.Removes() {
			continue
		}
		id, step, _ := runOf(op.Key())
		run = x.runs[id]
		if run == nil || run.plan == nil || run.plan.position(step[1:]) < 0 {
			x.fault("step %s is written of a run that has none", op.Key())
			return
		}
		i := run.plan.position(step[1:])
		book := run.steps[i]
		changed, were = append(changed, i), append(were, book.rec)
		book.rec = stepRecord{}
		mustDecode(op.Value(), &book.rec)
		run.changes = append(run.changes, change{l.number, step[1:], book.rec.State, book.rec.Attempt})
	}
	for k, i := range changed {
		x.stepChanged(l, run, i, &were[k])
	}
}

func (x *explorer) stepChanged(l *lifetime, r *runSeen, i int, was *stepRecord) {
	book := r.steps[i]
	now := &book.rec
	id := r.plan.all[i].ID
	x.note(note{life: l.number, what: "step", whose: r.alias, more: id + " " + was.State.String() + " -> " + now.State.String(), numbered: "attempt", number: now.Attempt})
	if was.State.Final() {
		x.fault("run %s step %s was %s, and becomes %s", r.alias, id, was.State, now.State)
	}
	if n := len(now.Waits); n > 0 && now.Waits[n-1].To != 0 && (len(was.Waits) < n || was.Waits[n-1].To == 0) {
		last, atOnce := now.Waits[n-1], was.State == conveyor.StateRunning // the wait and its end are one commit
		switch {
		case last.TimedOut:
			x.see(sawSignalTimeout)
			if last.To < was.Due {
				x.fault("run %s step %s has waited in vain %s too shortly", r.alias, id, time.Duration(was.Due-last.To))
			}
		case atOnce:
			x.see(sawEarlySignal)
		default:
			x.see(sawLateSignal)
		}
		if atOnce {
			was = &stepRecord{State: conveyor.StateWaiting, Await: "go", Attempt: was.Attempt}
			if book.last != nil {
				book.last.settled = true
			}
		}
	}
	switch now.State {
	case conveyor.StateRunning:
		x.stepStarts(l, r, i, was)
	case conveyor.StateBlocked:
		x.see(sawBlocked)
		_, held := x.paused(r, r.plan.all[i].Driver, x.mayHaveHeld)
		if !held && l.registered[r.plan.all[i].Driver] != 0 && l.registered[r.plan.all[i].Driver] < x.now()-8*int64(x.slow) {
			x.fault("run %s step %s is blocked, and its driver is registered", r.alias, id)
		}
	case conveyor.StateUnset, conveyor.StateQueued, conveyor.StateRetrying, conveyor.StateWaiting:
	case conveyor.StateSucceeded, conveyor.StateSkipped, conveyor.StateFailed, conveyor.StateCanceled, conveyor.StateSuperseded:
	}
	if was.State == conveyor.StateRunning && now.State != conveyor.StateRunning {
		x.checkOutcome(l, r, i, now)
	}
	if was.State == conveyor.StateUnset && now.State.Final() && !r.plan.Finalize {
		if r.rec.Cause != conveyor.CauseRetried {
			x.fault("run %s step %s is %s before it has begun", r.alias, id, now.State)
		}
		book.kept = true
		x.see(sawKeptStep)
	}
}

// stepStarts checks the moment at which a start is on record.
func (x *explorer) stepStarts(l *lifetime, r *runSeen, i int, was *stepRecord) {
	now := &r.steps[i].rec
	id := r.plan.all[i].ID
	if r.rec.State != conveyor.StateRunning {
		x.fault("run %s step %s starts, and the run is %s", r.alias, id, r.rec.State)
	}
	for _, b := range r.plan.before[i] {
		if !r.passed(b) && (i < len(r.plan.Steps) || !r.steps[b].rec.State.Final()) {
			x.fault("rule 1: run %s step %s starts, and step %s before it is %s", r.alias, id, r.plan.all[b].ID, r.steps[b].rec.State)
		}
	}
	if i < len(r.plan.Steps) {
		if r.rec.Stop != "" || r.rec.Outcome != conveyor.StateUnset || !r.plan.Independent && r.failed() {
			x.fault("rule 6: run %s step %s starts, and the run shall end: stop %q, outcome %s", r.alias, id, r.rec.Stop, r.rec.Outcome)
		}
	} else {
		if r.rec.Outcome == conveyor.StateUnset || r.rec.CutShort {
			x.fault("rule 6: run %s cleanup %s starts: outcome %s, cut short %v", r.alias, id, r.rec.Outcome, r.rec.CutShort)
		}
		for k := range r.plan.Steps {
			if r.state(l, k) == conveyor.StateRunning {
				x.fault("rule 6: run %s cleanup %s starts, and step %s is running", r.alias, id, r.plan.all[k].ID)
			}
		}
	}
	x.checkPaused(r, i, was)
	if r.rec.Deadline != 0 && now.Started >= r.rec.Deadline {
		x.fault("run %s step %s starts after the run's deadline", r.alias, id)
	}
	waited := was.State == conveyor.StateRetrying || was.State == conveyor.StateWaiting
	if waited && was.Await == "" && now.Started < was.Due {
		x.fault("run %s step %s starts %s before it is due", r.alias, id, time.Duration(was.Due-now.Started))
	}
	want := was.Attempt
	if was.State == conveyor.StateUnset || was.State == conveyor.StateRetrying {
		want++
	}
	if want != now.Attempt && !(was.State == conveyor.StateBlocked || was.State == conveyor.StateQueued) {
		x.fault("run %s step %s: attempt %d starts after attempt %d, which was %s", r.alias, id, now.Attempt, was.Attempt, was.State)
	}
	if was.State == conveyor.StateRunning && (!now.Resumed || r.steps[i].startedIn == l.number) {
		x.fault("run %s step %s starts a second time", r.alias, id)
	}
	if was.State == conveyor.StateBlocked {
		x.see(sawUnblocked)
	}
	if waited && r.steps[i].startedIn != l.number {
		x.see(sawDueAcrossLives)
	}
	r.steps[i].startedIn = l.number
	x.started(l, r, i, was)
}

// started remembers a start, and since when it could have been.
func (x *explorer) started(l *lifetime, r *runSeen, i int, was *stepRecord) {
	s := startSeen{run: r, step: i, at: r.steps[i].rec.Started}
	unbounded := !x.stops && x.driverSetup(r.plan.all[i].Driver).concurrency == 0 && !x.strayed[r.key] && r.plan.strict
	switch {
	case !unbounded:
	case was.Due != 0 && was.Await == "" && (was.State == conveyor.StateRetrying || was.State == conveyor.StateWaiting) && was.Due > l.began:
		s.ready = was.Due
	case r.alone && x.slow == 0 && i == 0 && was.State == conveyor.StateUnset && r.rec.Cause != conveyor.CauseRetried && !x.limited(r.rec.Pipeline) && r.born > l.began:
		s.ready, s.birth = r.born, true
	}
	x.starts = append(x.starts, s)
}

// limited says that a pipeline has had a limit to its runs.
func (x *explorer) limited(pipeline string) bool {
	return slices.ContainsFunc(x.limits[pipeline], func(l limitSeen) bool { return l.most > 0 })
}

// passed says that the record has a success, a skip or a tolerated failure of a step.
func (r *runSeen) passed(i int) bool {
	switch r.steps[i].rec.State {
	case conveyor.StateSucceeded, conveyor.StateSkipped:
		return true
	default:
		return r.steps[i].rec.State == conveyor.StateFailed && r.plan.all[i].ContinueOnError
	}
}

// failed says that a step has failed whose failure is not tolerated.
func (r *runSeen) failed() bool {
	for i := range r.plan.Steps {
		if r.steps[i].rec.State == conveyor.StateFailed && !r.plan.all[i].ContinueOnError {
			return true
		}
	}
	return false
}

// runEnded checks the last commit of a run.
func (x *explorer) runEnded(l *lifetime, r *runSeen) {
	r.over = x.now()
	x.open = slices.DeleteFunc(x.open, func(o *runSeen) bool { return o == r })
	res := x.resource(r.key)
	if res.at == r {
		res.at = nil
	}
	if res.head.Active == r.id || res.head.Pending == r.id {
		x.fault("run %s has ended, and its resource still has it", r.alias)
	}
	if r.plan == nil {
		if r.rec.Stop == "cancel" {
			x.see(sawCancelOfQueued)
		}
		return
	}
	for i, b := range r.steps {
		if r.state(l, i) == conveyor.StateRunning {
			x.fault("run %s ends, and its step %s is running", r.alias, r.plan.all[i].ID)
		}
		if i >= len(r.plan.Steps) && !r.rec.CutShort && !b.rec.State.Final() {
			x.fault("rule 6: run %s ends, and its cleanup %s is %s", r.alias, r.plan.all[i].ID, b.rec.State)
		}
	}
	if want := r.expectedEnd(); r.rec.State != want {
		x.fault("run %s ends as %s, and should as %s", r.alias, r.rec.State, want)
	}
	if len(r.plan.Finally) > 0 {
		switch r.rec.Outcome {
		case conveyor.StateFailed:
			x.see(sawCleanupOfFailure)
		case conveyor.StateCanceled:
			x.see(sawCleanupOfCancel)
		default:
			x.see(sawCleanup)
		}
	}
}

// expectedEnd says how a run ends whose steps are as recorded.
func (r *runSeen) expectedEnd() conveyor.State {
	outcome := conveyor.StateSucceeded
	switch {
	case r.rec.Outcome != conveyor.StateUnset && r.rec.Outcome != conveyor.StateSucceeded:
		return r.rec.Outcome // on which the cleanup cannot improve
	case r.rec.Stop == "cancel":
		return conveyor.StateCanceled
	case r.rec.Stop == "supersede":
		return conveyor.StateSuperseded
	case r.rec.Stop == "timeout", r.failed(), r.rec.CutShort:
		outcome = conveyor.StateFailed
	}
	for i := len(r.plan.Steps); i < len(r.plan.all); i++ {
		if r.steps[i].rec.State == conveyor.StateFailed && !r.plan.all[i].ContinueOnError {
			outcome = conveyor.StateFailed
		}
	}
	for i := range r.plan.Steps {
		if outcome == conveyor.StateSucceeded && !r.passed(i) && r.rec.Stop != "halt" {
			return conveyor.StateRunning // it has not ended
		}
	}
	return outcome
}
