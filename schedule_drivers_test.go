package conveyor_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor"
)

// explorerDriver is a driver of the explorer. Those that finalize are explorerFinalizers.
type explorerDriver struct {
	x    *explorer
	life *lifetime
	name string
}

func (d *explorerDriver) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return d.x.work(ctx, d.life, d.name, req)
}

type explorerFinalizer struct{ explorerDriver }

func (d *explorerFinalizer) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	d.x.mu.Lock()
	d.x.see(sawFinalized)
	d.x.mu.Unlock()
	return d.x.work(ctx, d.life, d.name, req)
}

// stepBook is what is known of one step of a run: what is recorded, and what its drivers have seen.
type stepBook struct {
	rec       stepRecord
	startedIn int // the life that has recorded the newest start
	kept      bool

	calls   int
	last    *visit // the newest
	done    bool   // it is not to be called again
	attempt int    // that its next call has
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

type answerKind int

const (
	answerSuccess answerKind = iota
	answerSkip
	answerHalt
	answerRequeue
	answerAwait
	answerError // and those after it
	answerRetryAfter
	answerPermanent
	answerPanic
	answerGoexit
	answerContext // what the context said
)

var answerNames = [...]string{"success", "skip", "halt", "requeue", "await", "error", "retry after", "permanent", "panic", "goexit", "context"}

func (a answerKind) failed() bool { return a >= answerError }

// work is a call of a driver: what it does follows from the seed, the run, the step and how often that was called.
func (x *explorer) work(ctx context.Context, l *lifetime, name string, req *conveyor.Request) (result conveyor.Result, err error) {
	v, d := x.called(ctx, l, name, req)
	if v == nil {
		return conveyor.Result{}, errors.New("the process is dead")
	}
	v.answer = answerGoexit
	stop := context.AfterFunc(ctx, func() { x.contextOver(v, context.Cause(ctx)) })
	defer func() {
		if stop(); ctx.Err() != nil {
			x.contextOver(v, context.Cause(ctx))
		}
		x.returned(v)
	}()
	if d.oneIn(12) {
		x.readsItself(l, req)
	}
	if answer := x.spendTime(ctx, v, &d); answer != nil {
		v.answer = answerContext
		return conveyor.Result{}, answer
	}
	return x.answers(v, &d)
}

// spendTime is the time that a call takes. It returns an error if the context ended meanwhile and the driver minds.
func (x *explorer) spendTime(ctx context.Context, v *visit, d *dice) error {
	length := pick(d, 0, d.upTo(time.Millisecond), d.upTo(50*time.Millisecond), d.upTo(time.Second), d.upTo(8*time.Second))
	if x.storm {
		length = pick(d, d.upTo(10*time.Millisecond), d.upTo(300*time.Millisecond))
	}
	minds := pick(d, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 10, 10, 5, 1) // of 20
	lag := time.Duration(0)                                                        // after the end of its context
	switch minds {
	case 10:
		lag = d.upTo(4 * time.Second) // it has something to put right
	case 5:
		length = d.between(6*time.Second, 20*time.Second) // it does not look at its context
	case 1:
		lag = 0
	}
	if x.isCalm() {
		length, minds, lag = d.upTo(20*time.Millisecond), 20, 0
	}
	over := ctx.Done()
	if minds == 5 {
		over = nil
	}
	if length > 0 || ctx.Err() != nil {
		timer := time.NewTimer(length)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-v.life.gone:
			return errors.New("the process is dead")
		case <-over:
		}
		if lag > 0 {
			select {
			case <-time.After(lag):
			case <-v.life.gone:
			}
		}
		if minds == 1 {
			return nil // it was as good as done
		}
		return context.Cause(ctx)
	}
	return nil
}

// answers chooses what a driver says. The longer a step goes on, the sooner it is done.
func (x *explorer) answers(v *visit, d *dice) (conveyor.Result, error) {
	x.mu.Lock()
	calm := x.calm || v.run.steps[v.step].calls > 8
	x.mu.Unlock()
	v.delay = pick(d, 0, d.upTo(time.Millisecond), d.upTo(time.Second), d.upTo(10*time.Second))
	switch n := d.n(100); {
	case calm || n < 50:
	case n < 56:
		v.answer = answerSkip
		return conveyor.Skip("not needed"), nil
	case n < 57:
		v.answer = answerHalt
		return conveyor.Halt("enough"), nil
	case n < 76:
		v.answer = answerError
		return conveyor.Result{}, errBoom
	case n < 80:
		v.answer = answerRetryAfter
		return conveyor.Result{}, conveyor.RetryAfter(v.delay, errBoom)
	case n < 82:
		v.answer = answerPermanent
		return conveyor.Result{}, conveyor.Permanent(errBoom)
	case n < 90:
		v.answer = answerRequeue
		return conveyor.RequeueAfter(v.delay), nil
	case n < 96:
		v.answer, v.wait = answerAwait, "go"
		if d.oneIn(3) {
			v.delay = 0 // for ever
		}
		return conveyor.Await(v.wait, v.delay), nil
	case n < 98:
		v.answer = answerPanic
		panic("ouch")
	case n < 99:
		runtime.Goexit()
	}
	v.answer = answerSuccess
	if d.oneIn(2) {
		return conveyor.Done(), nil
	}
	x.mu.Lock()
	x.see(sawOutput)
	x.mu.Unlock()
	return conveyor.DoneWith(v.run.alias), nil
}

// readsItself has a driver read its own run: that it is called must be on record, and what it comes after too.
func (x *explorer) readsItself(l *lifetime, req *conveyor.Request) {
	run, err := l.engine.GetRun(context.Background(), req.Run)
	x.mu.Lock()
	defer x.mu.Unlock()
	if l.over {
		return
	}
	x.see(sawGetRun)
	if err != nil {
		x.fault("a driver cannot read its own run: %v", err)
		return
	}
	r := x.runs[req.Run]
	i := r.plan.position(req.Step.ID)
	if s := run.Steps[i]; s.State == conveyor.StateRunning && s.Attempt != req.Attempt || s.State == conveyor.StateUnset {
		x.fault("run %s step %s attempt %d is called, and reads that attempt %d is %s", r.alias, req.Step.ID, req.Attempt, s.Attempt, s.State)
	}
	for _, b := range r.plan.before[i] {
		if s := run.Steps[b].State; !s.Final() {
			x.fault("rule 1: run %s step %s is called, and reads that step %s before it is %s", r.alias, req.Step.ID, r.plan.all[b].ID, s)
		}
	}
}

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
	all, of := 1, 1
	for _, o := range l.active {
		all++
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
		b.resumed = false
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

// policyOf combines the retry policies that apply to a call.
func (x *explorer) policyOf(v *visit) conveyor.RetryPolicy {
	plan := v.run.plan
	var p conveyor.RetryPolicy
	for _, level := range []*conveyor.RetryPolicy{
		plan.all[v.step].Retry, plan.Retry, &x.driverSetup(v.driver).retry, &x.retry,
		{MaxAttempts: 3, Initial: conveyor.Duration(time.Second), Max: conveyor.Duration(time.Minute), Multiplier: 2, Jitter: 0.2},
	} {
		if level == nil {
			continue
		}
		if p.MaxAttempts == 0 {
			p.MaxAttempts = level.MaxAttempts
		}
		if p.Initial == 0 {
			p.Initial = level.Initial
		}
		if p.Max == 0 {
			p.Max = level.Max
		}
		if p.Multiplier == 0 {
			p.Multiplier = level.Multiplier
		}
		if p.Jitter == 0 {
			p.Jitter = level.Jitter
		}
	}
	return p
}

func (x *explorer) exhausted(v *visit) bool {
	most := x.policyOf(v).MaxAttempts
	return most > 0 && v.attempt >= most
}

// delayBounds are the least and the most that may lie between the end of a failed call and its repetition.
func (x *explorer) delayBounds(v *visit) (least, most time.Duration) {
	if v.answer == answerRetryAfter && !v.late() {
		return v.delay, v.delay
	}
	p := x.policyOf(v)
	delay := min(float64(p.Initial)*math.Pow(p.Multiplier, float64(v.attempt-1)), float64(p.Max))
	if delay == float64(p.Max) {
		x.see(sawMaxDelay)
	}
	if p.Jitter < 0 {
		x.see(sawNoJitter)
		return time.Duration(delay), time.Duration(delay)
	}
	x.see(sawJitter)
	return time.Duration(delay * (1 - p.Jitter)), time.Duration(delay*(1+p.Jitter)) + 1
}

// checkOutcome compares what is recorded of a call with what its driver answered.
func (x *explorer) checkOutcome(l *lifetime, r *runSeen, i int, now *stepRecord) {
	v := r.steps[i].last
	if v == nil || v.life != l || v.attempt != now.Attempt || v.settled {
		// The call was never made: its context had ended before, or the process.
		if now.State == conveyor.StateSucceeded || now.State == conveyor.StateSkipped || now.State == conveyor.StateWaiting {
			x.fault("run %s step %s is %s, and was not called", r.alias, r.plan.all[i].ID, now.State)
		}
		return
	}
	v.settled = true
	ended := v.ended
	late := v.late() || v.ended == 0
	where := outcomeOf{v, late}
	if late {
		ended = v.ctxOver + int64(patienceOfEngine)
		if l.closing && (v.ctxOver == 0 || x.now() < ended) {
			x.follow(v, now.State)
			return // when it is given up is the shutdown's to say
		}
		defer x.conclude(v)
		if v.ended == 0 && v.ctxOver == 0 {
			x.fault("%s: it is under way, and recorded as %s", where, now.State)
			return
		}
		if x.now() < ended {
			x.fault("%s: given up %s too early", where, time.Duration(ended-x.now()))
		}
	}
	answer := v.answer
	if late {
		answer = answerContext
	}
	if v.answer == answerAwait && now.State == conveyor.StateQueued {
		return // the signal was there, and no worker
	}
	if l.closing && errors.Is(v.cause, conveyor.ErrShutdown) && now.State == conveyor.StateQueued {
		x.follow(v, now.State) // it was given up at the instant at which it returned
		return
	}
	// Of an outcome and a stop that come together the outcome is first.
	if want := x.expectedState(r, v, answer, &r.was); now.State != want && now.State != x.expectedState(r, v, answer, &r.rec) {
		x.fault("%s, is recorded as %s, and should be %s", where, now.State, want)
		return
	}
	switch now.State {
	case conveyor.StateRetrying:
		least, most := x.delayBounds(v)
		if gap := time.Duration(now.Due - ended); gap < least || gap > most {
			x.fault("%s: it is due %s after its end, which is not between %s and %s", where, gap, least, most)
		}
	case conveyor.StateWaiting:
		due := ended + int64(v.delay)
		if v.answer == answerAwait && v.delay == 0 {
			due = 0
		}
		if now.Due != due || now.Await != v.wait {
			x.fault("%s: it is due %s after its end and awaits %q, and it asked for %s and %q", where, time.Duration(now.Due-ended), now.Await, v.delay, v.wait)
		}
	case conveyor.StateFailed:
		if r.plan.all[i].ContinueOnError {
			x.see(sawTolerated)
		}
		if x.exhausted(v) {
			x.see(sawExhausted)
		}
	default:
	}
}

// outcomeOf names the outcome of a call.
type outcomeOf struct {
	*visit
	tooLate bool
}

func (o outcomeOf) String() string {
	s := fmt.Sprintf("run %s step %s attempt %d, which answered %s", o.run.alias, o.run.plan.all[o.step].ID, o.attempt, answerNames[o.answer])
	if o.tooLate {
		s += " too late"
	}
	return s
}

// expectedState says what an answer makes of a step of a run.
func (x *explorer) expectedState(r *runSeen, v *visit, answer answerKind, rec *runRecord) conveyor.State {
	ownStop := rec.Stop // for the steps; a cleanup has its own
	if v.step >= len(r.plan.Steps) {
		ownStop = ""
		if rec.CutShort {
			ownStop = "cancel"
		}
	}
	timeUp := r.was.Deadline != 0 && x.now() >= r.was.Deadline
	switch {
	case answer == answerSuccess, answer == answerHalt:
		return conveyor.StateSucceeded
	case answer == answerSkip:
		return conveyor.StateSkipped
	case answer == answerRequeue, answer == answerAwait:
		return conveyor.StateWaiting
	case errors.Is(v.cause, conveyor.ErrShutdown), errors.Is(v.cause, conveyor.ErrSuperseded):
		return conveyor.StateQueued
	case ownStop == "cancel" || ownStop == "supersede":
		if r.steps[v.step].rec.State == conveyor.StateFailed && timeUp {
			return conveyor.StateFailed
		}
		return conveyor.StateCanceled
	case answer == answerPermanent, x.exhausted(v), ownStop != "", timeUp && r.steps[v.step].rec.State == conveyor.StateFailed:
		return conveyor.StateFailed
	default:
		return conveyor.StateRetrying
	}
}
