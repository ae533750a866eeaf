package schedules_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor"
)

// stepBook is what is known of one step of a run: what is recorded, and what its drivers have seen.
type stepBook struct {
	rec       stepRecord
	startedIn int // the life that has recorded the newest start
	kept      bool

	calls   int
	last    *visit // the newest
	done    bool   // it is not to be called again
	attempt int    // that its next call has
	cleared int    // attempts before the series of failures that counts: a requeue or a wait came after them
	resumed bool
}

// visit is one call of a driver.
type visit struct {
	life     *lifetime
	run      *runSeen
	step     int
	driver   string
	attempt  int
	began    int64
	deadline int64 // when its context ends by itself; 0 for never

	ended     int64 // 0 while it is under way
	answer    answerKind
	delay     time.Duration
	wait      string
	ctxOver   int64 // when its context ended; 0 if it has not
	cause     error
	dead      bool // its process has died under it
	settled   bool // it is on record what became of it
	concluded bool // it is known what must come after it
}

// late says that a call was given up before it returned.
func (v *visit) late() bool {
	return v.ctxOver != 0 && (v.ended == 0 || v.ended > v.ctxOver+int64(patienceOfEngine))
}

// patienceOfEngine is how long a call may take to return after its context has ended.
const patienceOfEngine = 5 * time.Second

// called takes note of a call and checks that it may be made.
func (x *explorer) called(ctx context.Context, l *lifetime, name string, req *conveyor.Request) (*visit, dice) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l.over {
		return nil, 0
	}
	r := x.runs[req.Run]
	if r == nil || r.plan == nil {
		x.fault("rule 8: a driver is called for run %s, which is not on record", req.Run)
		return nil, 0
	}
	i := r.plan.position(req.Step.ID)
	v := &visit{life: l, run: r, step: i, driver: name, attempt: req.Attempt, began: x.now()}
	book := r.steps[i]
	book.calls++
	x.see(sawCalls)
	x.note(note{life: l.number, what: "call", whose: r.alias, more: req.Step.ID + " by " + name, numbered: "attempt", number: req.Attempt})
	x.checkPromise(l, v, req)
	x.checkOverlap(l, v)
	x.checkAttempt(l, v, req)
	v.deadline = x.deadlineOf(v)
	book.last = v
	l.active = append(l.active, v)
	return v, x.dice.on("call").on(r.alias).on(req.Step.ID).at(book.calls)
}

// checkPromise compares a call with what is on record at this moment.
func (x *explorer) checkPromise(_ *lifetime, v *visit, req *conveyor.Request) {
	r, now := v.run, x.now()
	rec := &r.steps[v.step].rec
	where := func() string { return fmt.Sprintf("run %s step %s attempt %d", r.alias, req.Step.ID, req.Attempt) }
	if rec.State != conveyor.StateRunning || rec.Attempt != req.Attempt || rec.Resumed != req.Resumed || r.over != 0 {
		x.fault("rule 8: %s (resumed %v) is called, and on record is attempt %d (resumed %v), %s", where(), req.Resumed, rec.Attempt, rec.Resumed, rec.State)
	}
	for _, b := range r.plan.before[v.step] {
		last := r.steps[b].last
		if !r.steps[b].kept && !r.plan.Finalize && (last == nil || last.ended == 0) {
			x.fault("rule 1: %s is called, and step %s has not returned", where(), r.plan.all[b].ID)
		}
	}
	if r.canceled != 0 && now > r.canceled && v.step < len(r.plan.Steps) {
		x.fault("%s is called %s after the run was canceled", where(), time.Duration(now-r.canceled))
	}
	if r.rec.Deadline != 0 && now > r.rec.Deadline {
		x.fault("%s is called %s after the run's deadline", where(), time.Duration(now-r.rec.Deadline))
	}
	if v.step >= len(r.plan.Steps) != (req.Outcome != conveyor.StateUnset) {
		x.fault("%s is told the outcome %s", where(), req.Outcome)
	}
	key := req.IdempotencyKey()
	if owner, known := x.keys[key]; known && owner != (stepOf{r, v.step}) {
		x.fault("%s has the key %s of run %s", where(), key, owner.run.alias)
	}
	x.keys[key] = stepOf{r, v.step}
	if old := x.keyOf[stepOf{r, v.step}]; old != "" && old != key {
		x.fault("%s has the key %s, and had %s", where(), key, old)
	}
	x.keyOf[stepOf{r, v.step}] = key
	spec, known := x.resource(r.key).specs[r.rec.Generation]
	if req.Resource.Generation != r.rec.Generation || known && string(req.Resource.Spec) != spec {
		x.fault("rule 7: %s has generation %d with spec %s, and the run pinned generation %d with %s", where(), req.Resource.Generation, req.Resource.Spec, r.rec.Generation, spec)
	}
}

type stepOf struct {
	run  *runSeen
	step int
}

// checkOverlap looks for calls that are under way and must not be.
func (x *explorer) checkOverlap(l *lifetime, v *visit) {
	all, of := 1+x.working(l), 1
	for _, o := range l.active {
		if o.driver == v.driver {
			of++
		}
		if o.run.key != v.run.key {
			continue
		}
		plan := v.run.plan
		switch {
		case o.run != v.run:
			x.fault("rule 2: run %s is called while run %s of the same resource is", v.run.alias, o.run.alias)
		case o.step == v.step:
			x.fault("rule 2: run %s step %s is called twice at once", v.run.alias, plan.all[v.step].ID)
		case plan.strict || o.step >= len(plan.Steps) || v.step >= len(plan.Steps) || plan.precedes(o.step, v.step) || plan.precedes(v.step, o.step):
			x.fault("rule 2: run %s steps %s and %s are called at once", v.run.alias, plan.all[o.step].ID, plan.all[v.step].ID)
		default:
			x.see(sawSiblings)
		}
	}
	if all > x.workers {
		x.fault("%d calls are under way, and there are %d workers", all, x.workers)
	}
	if all == x.workers {
		x.see(sawFullWorkers)
	}
	limit := x.driverSetup(v.driver).concurrency
	if limit > 0 && of > limit {
		x.fault("%d calls of driver %s are under way, and its concurrency is %d", of, v.driver, limit)
	}
	if of == limit {
		x.see(sawFullSlots)
	}
}

// checkAttempt compares the number of an attempt with what came before, by what the drivers themselves have answered.
func (x *explorer) checkAttempt(l *lifetime, v *visit, req *conveyor.Request) {
	b := v.run.steps[v.step]
	ok := !b.done && req.Attempt == b.attempt && req.Resumed == b.resumed
	if last := b.last; !ok && (last == nil || last.life != l) && l.number > 1 {
		// What was on the way when the former process ended may be on record or not: the outcome of its last call, and
		// the start of another call that was never made.
		ok = !b.done && req.Attempt == b.attempt && req.Resumed
		if last != nil && l.number > 1 && (x.lives[last.life.number-1].hasty || last.dead || last.late()) {
			ok = ok || req.Attempt == last.attempt && req.Resumed
		}
		if last == nil {
			ok = ok || req.Attempt == 1 && req.Resumed
		}
	}
	if b.last != nil && b.last.life != l {
		b.cleared = b.rec.Settled // whether the former process has recorded its last answer is not known otherwise
	}
	if !ok {
		x.fault("run %s step %s is called with attempt %d (resumed %v), and the next is %d (resumed %v), done %v",
			v.run.alias, req.Step.ID, req.Attempt, req.Resumed, b.attempt, b.resumed, b.done)
	}
	if req.Resumed {
		x.see(sawResumed)
	}
	b.attempt, b.resumed, b.done = req.Attempt, true, false // until it returns
}

// deadlineOf is when the context of a call ends by itself.
func (x *explorer) deadlineOf(v *visit) int64 {
	step := &v.run.plan.all[v.step]
	limit := time.Duration(step.Timeout)
	if limit == 0 {
		limit = x.driverSetup(v.driver).timeout
	}
	if limit == 0 {
		limit = x.timeout
	}
	at := int64(0)
	if limit > 0 {
		at = v.run.steps[v.step].rec.Started + int64(limit)
	}
	if end := v.run.rec.Deadline; end != 0 && (at == 0 || end < at) {
		at = end
	}
	return at
}

// contextOver takes note of the end of a call's context, which must come in time and for a reason.
func (x *explorer) contextOver(v *visit, cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if v.ctxOver != 0 || v.ended != 0 || v.life.over {
		return
	}
	now := x.now()
	v.ctxOver, v.cause = now, cause
	where := fmt.Sprintf("run %s step %s: its context ended with %q", v.run.alias, v.run.plan.all[v.step].ID, cause)
	x.note(note{life: v.life.number, what: "context", whose: v.run.alias, more: cause.Error()})
	stop := v.run.rec.Stop
	switch {
	case errors.Is(cause, conveyor.ErrTimeout):
		x.see(sawAttemptTimeout)
		if now != v.deadline {
			x.fault("%s, %s before its deadline", where, time.Duration(v.deadline-now))
		}
	case errors.Is(cause, conveyor.ErrCanceled):
		x.see(sawCancelOfCall)
		if stop != "cancel" && !v.run.rec.CutShort {
			x.fault("%s, and nobody has canceled it", where)
		}
	case errors.Is(cause, conveyor.ErrSuperseded):
		if stop != "supersede" && stop != "cancel" {
			x.fault("%s, and the run is not superseded", where)
		}
	case errors.Is(cause, conveyor.ErrShutdown):
		if !v.life.closing {
			x.fault("%s, and nobody shuts down", where)
		}
	default:
		x.fault("%s, which is no reason", where)
	}
}

// returned takes note of the end of a call, and works out what must come next.
func (x *explorer) returned(v *visit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	defer x.look()
	v.ended = x.now()
	v.life.active = slices.DeleteFunc(v.life.active, func(o *visit) bool { return o == v })
	if v.life.over {
		v.dead = true
		return
	}
	x.note(note{life: v.life.number, what: "return", whose: v.run.alias, more: v.run.plan.all[v.step].ID + " " + answerNames[v.answer], lastsText: "delay", lasts: v.delay})
	if v.deadline != 0 && v.ended > v.deadline && (v.ctxOver == 0 || v.ctxOver > v.deadline) {
		x.fault("run %s step %s goes on %s after its deadline, and its context has not ended", v.run.alias, v.run.plan.all[v.step].ID, time.Duration(v.ended-v.deadline))
	}
	if v.late() {
		x.see(sawAbandoned)
		x.strayed[v.run.key] = true
	} else if v.ctxOver != 0 && !v.answer.failed() {
		x.see(sawIgnored)
	}
	x.conclude(v)
	x.seeAnswer(v)
}

// conclude works out what must come after a call that has returned, or was given up.
func (x *explorer) conclude(v *visit) {
	if v.concluded {
		return
	}
	v.concluded = true
	b := v.run.steps[v.step]
	failed := v.answer.failed() || v.late()
	switch {
	case !failed && (v.answer == answerRequeue || v.answer == answerAwait):
		b.resumed, b.cleared = false, v.attempt-1
	case !failed:
		b.done, b.resumed = true, false
	case errors.Is(v.cause, conveyor.ErrShutdown):
		b.resumed = true
		x.see(sawInterrupted)
	case errors.Is(v.cause, conveyor.ErrSuperseded), errors.Is(v.cause, conveyor.ErrCanceled):
		b.done = true
	case v.answer == answerPermanent && !v.late(), x.exhausted(v):
		b.done = true
	default:
		b.attempt, b.resumed = v.attempt+1, false
	}
}

func (x *explorer) seeAnswer(v *visit) {
	x.see(map[answerKind]string{
		answerSuccess: sawSuccess, answerSkip: sawSkip, answerHalt: sawHalt, answerRequeue: sawRequeue, answerAwait: sawAwait,
		answerError: sawError, answerRetryAfter: sawRetryAfter, answerPermanent: sawPermanent, answerPanic: sawPanic,
		answerGoexit: sawGoexit, answerContext: "calls that minded their context",
	}[v.answer])
}

// follow takes what is on record of a call that a shutdown has given up for what became of it.
func (x *explorer) follow(v *visit, state conveyor.State) {
	v.concluded = true
	b := v.run.steps[v.step]
	b.attempt, b.resumed, b.done = v.attempt, true, false
	switch state {
	case conveyor.StateQueued:
	case conveyor.StateRetrying:
		b.attempt, b.resumed = v.attempt+1, false
	default:
		b.done = true
	}
}
