package conveyor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// journey is an unfinished run as the scheduler holds it. Between two things that happen to it, only this remains in
// memory; its records are read again when it goes on.
//
// All that happens to a run goes through drive: messages are put into its inbox, and whoever finds it idle works the
// inbox off. So its records are changed by one goroutine at a time, without a lock being held while they are written.
type journey struct {
	id  string
	key Key

	// Guarded by scheduler.mu.
	queued   bool
	due      instant // in the heap of due times; 0 when it is not
	heapAt   int
	waitsFor []*driver // whose queues it is in
	promises []*driver // that keep a slot for it
	blocked  []string  // drivers it waits for that are not registered

	mu      sync.Mutex // guards what follows, up to the next blank line
	inbox   []message
	busy    bool
	flying  []*attempt // recorded as started, outcome not recorded
	outputs map[string]json.RawMessage
	log     *runLog

	// Owned by whoever set busy. nil when they must be read from the store.
	run    *runState
	object *Object // as pinned
	head   *resourceRecord
	rev    store.Revision // of head
}

// message is something that happened to a run. The zero message is a mere "look again".
type message struct {
	outcome *outcome
	stop    *stopRequest
}

// stopRequest asks that a run end. The answer is nil when that is on record.
type stopRequest struct {
	kind   stopKind
	reason string
	cause  error
	answer chan<- error // size 1, so that nobody waits to answer
}

// drive hands a message to a run and, unless somebody else is about it, does all that can be done. For a worker it
// returns the attempt to go on with, if there is one; other attempts get workers of their own.
func (s *scheduler) drive(j *journey, m message, worker bool) (mine *attempt) {
	j.mu.Lock()
	j.inbox = append(j.inbox, m)
	if j.busy {
		j.mu.Unlock()
		return nil
	}
	j.busy = true
	for len(j.inbox) > 0 {
		inbox := j.inbox
		j.inbox = nil
		j.mu.Unlock()
		spare := worker && mine == nil
		for _, a := range s.advance(j, inbox, &spare) {
			if worker && mine == nil && !spare {
				mine = a // the first attempt is the one that took the caller's place
			} else {
				s.employ(a)
			}
		}
		j.mu.Lock()
	}
	j.busy = false
	j.mu.Unlock()
	s.returnPromises(j)
	return mine
}

// advance records what messages say and what may start because of it. It does not give up before that is on record,
// however often the store fails, unless the scheduler stops.
func (s *scheduler) advance(j *journey, inbox []message, spare *bool) []*attempt {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		d, err := s.draft(j, inbox, spare)
		if err == nil {
			err = s.commit(d)
		}
		if err == nil {
			return s.adopt(d)
		}
		d.undo(spare)
		switch {
		case errors.Is(err, errEnded):
			s.answer(inbox, fmt.Errorf("%w: run %s has ended", ErrConflict, j.id))
			s.forget(j)
			return nil
		case errors.Is(err, store.ErrConflict):
			if s.changed(j) {
				pause = firstPause / 2
				continue
			}
			s.lose(j, err)
			s.answer(inbox, err)
			return nil
		case errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrClosed):
			s.opts.Logger.Error("run cannot go on", "run", j.id, "resource", j.key.String(), "error", err)
			s.answer(inbox, err)
			return nil
		}
		s.opts.Logger.Warn("store failed; trying again", "run", j.id, "error", err, "after", pause)
		if !s.pause(pause) {
			s.answer(inbox, ErrClosed)
			return nil
		}
	}
}

// pause waits, and reports false if the scheduler stops first.
func (s *scheduler) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-s.done:
		return false
	}
}

const (
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

var errEnded = errors.New("conveyor: the run has ended")

func (s *scheduler) answer(inbox []message, err error) {
	for _, m := range inbox {
		if m.stop != nil {
			m.stop.answer <- err
		}
	}
}

// changed reports, after a conflict, whether the resource's record explains it: the program applied something. Then
// everything is decided anew, on the record as it is now.
func (s *scheduler) changed(j *journey) bool {
	before := j.rev
	j.head, j.rev = nil, 0
	head, rev, err := s.ledger.resource(s.base, j.key)
	if err != nil {
		return true // read again, and fail there
	}
	j.head, j.rev = head, rev
	return before == 0 || rev != before
}

// lose gives up a run that somebody else has changed: another engine on the same store.
func (s *scheduler) lose(j *journey, err error) {
	s.opts.Logger.Error("run was changed by somebody else; leaving it alone", "run", j.id, "resource", j.key.String(), "error", err)
	j.mu.Lock()
	flying := slices.Clone(j.flying)
	j.mu.Unlock()
	for _, a := range flying {
		a.cancel(fmt.Errorf("%w: run %s was changed by somebody else", ErrConflict, j.id))
		s.disown(a)
	}
	j.run, j.object, j.head, j.rev = nil, nil, nil, 0
	s.forget(j)
}

// open reads the records of a run into its journey, unless they are there.
func (s *scheduler) open(j *journey) error {
	if j.run != nil {
		return nil
	}
	run, err := s.ledger.run(s.base, j.id)
	if errors.Is(err, ErrNotFound) {
		return errEnded
	}
	if err != nil {
		return err
	}
	if run.rec.State.Final() {
		return errEnded
	}
	log := &runLog{run: j.id, kept: map[string]int{}}
	outputs := map[string]json.RawMessage{}
	if run.plan != nil {
		if log.seq, err = s.ledger.lastLine(s.base, j.id); err != nil {
			return err
		}
		if j.object, err = s.pinned(run); err != nil {
			return err
		}
		for i := range run.steps {
			rec := &run.steps[i].rec
			id := run.plan.Steps[i].ID
			log.kept[id] = rec.Lines
			if len(rec.Output) > 0 {
				outputs[id] = rec.Output
			}
			if rec.State == StateRunning {
				// No attempt of this process: the one that made the record died. The record is put right when
				// the step goes on; until then it says what it said.
				rec.interrupt()
				rec.Crashes++
			}
		}
	}
	j.run = run
	j.mu.Lock()
	j.log, j.outputs = log, outputs
	j.mu.Unlock()
	return nil
}

// pinned puts the resource together as it was when the run started.
func (s *scheduler) pinned(run *runState) (*Object, error) {
	rec := &run.rec
	revision, err := s.ledger.revision(s.base, rec.key(), rec.Generation)
	if err != nil {
		return nil, err
	}
	return rec.object(revision.Spec), nil
}

func (r *runRecord) object(spec json.RawMessage) *Object {
	return &Object{Spec: spec, Meta: Meta{
		ID: r.ResourceID, Name: r.Name, Type: r.Type, Pipeline: r.Pipeline, Metadata: r.Metadata, Version: r.Version,
		Generation: r.Generation, CreatedAt: r.MadeAt.time(), UpdatedAt: r.UpdatedAt.time(),
	}}
}

// output is [Request.Output] for the attempts of this run.
func (j *journey) output(step string) (json.RawMessage, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	data, ok := j.outputs[step]
	if !ok {
		return nil, fmt.Errorf("%w: output of step %q", ErrNotFound, step)
	}
	return data, nil
}

// A draft is the next change of a run: what would be on record after it, and what it needs. It becomes true when it
// is committed, and leaves no trace otherwise.
type draft struct {
	s   *scheduler
	j   *journey
	now instant

	rec     runRecord
	plan    *plan
	object  *Object
	begun   bool // the run starts in this draft
	created bool // the run itself is new; extra holds the writes that go with it
	extra   []store.Op
	rewrite bool // rec differs from what is recorded

	states   []State
	steps    []stepChange
	attempts []store.Op
	head     *resourceRecord // changed copy, or nil
	rev      store.Revision  // that head replaces

	starts  []start
	turn    bool  // a step may start as soon as a worker is free
	stop    error // cause for the attempts under way, when they shall end
	over    bool
	logged  int64 // last line among the writes
	logging bool
	settled []*attempt // whose outcome this records
	answers []chan<- error
}

type stepChange struct {
	index int
	rec   stepRecord
}

// start is a step that this draft starts, with what was taken for it.
type start struct {
	index  int
	driver *driver
	spare  bool // runs in the place of the worker that made the draft
}

// draft works out what messages change. On an error the draft must be undone.
func (s *scheduler) draft(j *journey, inbox []message, spare *bool) (*draft, error) {
	d := &draft{s: s, j: j, now: toInstant(time.Now())}
	if err := s.open(j); err != nil {
		return d, err
	}
	d.rec, d.plan, d.object = j.run.rec, j.run.plan, j.object
	d.readStates(j.run.steps)
	for _, m := range inbox {
		if m.outcome != nil {
			d.settle(m.outcome)
		}
	}
	for _, m := range inbox {
		if m.stop != nil {
			d.requestStop(m.stop)
		}
	}
	if d.rec.State == StateQueued && d.rec.Stop == stopNone && !s.draining() {
		if proceed, err := d.begin(); err != nil || !proceed {
			return d, err
		}
	}
	return d, d.goOn(spare)
}

func (d *draft) readStates(steps []stepState) {
	d.states = make([]State, len(steps))
	for i := range steps {
		rec := &steps[i].rec
		d.states[i] = rec.State
		if (rec.State == StateRetrying || rec.State == StateWaiting) && rec.Due <= d.now {
			d.states[i] = StateQueued
		}
	}
}

// step returns the draft's copy of a step's record, to be changed.
func (d *draft) step(i int) *stepRecord {
	for k := range d.steps {
		if d.steps[k].index == i {
			return &d.steps[k].rec
		}
	}
	c := stepChange{index: i}
	if !d.begun {
		c.rec = d.j.run.steps[i].rec
	}
	d.steps = append(d.steps, c)
	return &d.steps[len(d.steps)-1].rec
}

// settle takes up the outcome of an attempt.
func (d *draft) settle(o *outcome) {
	a := o.attempt
	limits := d.s.opts.Limits
	rec := d.step(a.index)
	policy := retryPolicy(a.step.Retry, d.plan.Retry, a.driver.opts.retry, d.s.opts.Retry)
	stop := d.rec.Stop
	if stop == stopNone && d.late() {
		stop = stopTimeout // goOn records it, unless the run turns out to be done
	}
	failed := rec.settle(o, policy, stop, limits)
	rec.Lines = d.j.log.lines(a.step.ID)
	d.states[a.index] = rec.State
	d.settled = append(d.settled, a)
	if failed != nil {
		d.attempts = append(d.attempts, store.Put(attemptKey(d.j.id, a.step.ID, a.number), encode(failed)))
		if old := a.number - limits.Attempts; old > 0 {
			d.attempts = append(d.attempts, store.Delete(attemptKey(d.j.id, a.step.ID, old)))
		}
	}
	if o.err == nil && o.result.kind == resultHalt && d.rec.Stop == stopNone {
		d.rec.Stop, d.rec.StopReason, d.rewrite = stopHalt, rec.Reason, true
	}
}

func (d *draft) requestStop(r *stopRequest) {
	d.answers = append(d.answers, r.answer)
	if d.rec.Stop == stopCancel {
		return
	}
	d.rec.Stop, d.rec.StopReason, d.rewrite = r.kind, cut(r.reason, d.s.opts.Limits.ErrorText), true
	d.stop = r.cause
}

// begin pins what the run will do. It says no when the resource has another run at work; that one's end wakes this.
func (d *draft) begin() (proceed bool, err error) {
	if err := d.readHead(); err != nil {
		return false, err
	}
	head := d.head
	if head == nil || head.ID != d.rec.ResourceID || head.Pending != d.j.id {
		return true, d.finishWith(StateFailed, "the resource no longer has this run")
	}
	if head.Active != "" {
		return false, nil
	}
	revision, err := d.s.ledger.revision(d.s.base, d.j.key, head.Generation)
	if err != nil {
		return false, err
	}
	return true, d.pin(revision.Spec)
}

// readHead copies the record of the run's resource into the draft; it is nil if there is none.
func (d *draft) readHead() error {
	if d.head != nil {
		return nil
	}
	j := d.j
	if j.rev == 0 {
		head, rev, err := d.s.ledger.resource(d.s.base, j.key)
		if err != nil {
			return err
		}
		j.head, j.rev = head, rev
	}
	if j.head != nil {
		c := *j.head
		d.head, d.rev = &c, j.rev
	}
	return nil
}

// pin starts the run on the resource as head describes it.
func (d *draft) pin(spec json.RawMessage) error {
	head := d.head
	d.begun, d.rewrite = true, true
	d.rec.State, d.rec.Started, d.rec.Cause = StateRunning, d.now, head.Cause
	d.rec.Generation, d.rec.Pipeline = head.Generation, head.Pipeline
	d.rec.Metadata, d.rec.Version, d.rec.MadeAt, d.rec.UpdatedAt = head.Metadata, head.Version, head.Created, head.Updated
	head.Active, head.Pending, head.Cause = d.j.id, "", 0
	head.Status.Phase, head.Status.Run, head.Status.Message = StateRunning, d.j.id, ""
	d.object = d.rec.object(spec)
	if head.Pipeline == "" {
		return d.pinListeners()
	}
	pipeline, _, err := d.s.ledger.pipeline(d.s.base, head.Pipeline)
	switch {
	case errors.Is(err, ErrNotFound):
		return d.finishWith(StateFailed, fmt.Sprintf("pipeline %q was deleted", head.Pipeline))
	case err != nil:
		return err
	case pipeline.Resource != d.j.key.Type:
		return d.finishWith(StateFailed, fmt.Sprintf("pipeline %q is now for resources of type %q", head.Pipeline, pipeline.Resource))
	}
	d.rec.Hash = pipeline.Hash
	if d.plan, err = d.s.ledger.plan(d.s.base, d.j.id, &d.rec); err != nil {
		return err
	}
	if d.plan.Timeout > 0 {
		d.rec.Deadline = d.now + instant(d.plan.Timeout)
	}
	d.states = make([]State, len(d.plan.Steps))
	return nil
}

func (d *draft) pinListeners() error {
	names := d.s.listeners(d.j.key.Type)
	limit := d.s.opts.Limits.Steps
	switch {
	case len(names) == 0:
		d.extra = append(d.extra, store.Put(unheardKey(d.j.key), []byte("{}")))
		return d.finishWith(StateSkipped, fmt.Sprintf("no driver listens to resources of type %q", d.j.key.Type))
	case len(names) > limit:
		return d.finishWith(StateFailed, fmt.Sprintf("%d drivers listen to resources of type %q, more than the limit of %d", len(names), d.j.key.Type, limit))
	}
	d.plan = listenersPlan(names)
	d.extra = append(d.extra, store.Put(planKey(d.j.id), encode(d.plan)), store.Delete(unheardKey(d.j.key)))
	d.states = make([]State, len(d.plan.Steps))
	return nil
}

// goOn starts what may start, or ends the run.
func (d *draft) goOn(spare *bool) error {
	if d.over {
		return nil
	}
	if d.plan == nil {
		if d.rec.Stop != stopNone {
			return d.finish()
		}
		return nil
	}
	starts, over := d.plan.next(d.states, d.rec.Stop != stopNone)
	if !d.done() && d.rec.Stop == stopNone && d.late() {
		limit := time.Duration(d.rec.Deadline - d.rec.Started)
		d.rec.Stop, d.rec.StopReason, d.rewrite = stopTimeout, fmt.Sprintf("the run took longer than %s", limit), true
		starts, over = d.plan.next(d.states, true)
	}
	if over {
		return d.finish()
	}
	if d.s.draining() {
		return nil
	}
	for _, i := range starts {
		if failed := d.start(i, spare); failed {
			return d.goOn(spare)
		}
	}
	return nil
}

// late says that the run has had its time.
func (d *draft) late() bool { return d.rec.Deadline != 0 && d.now >= d.rec.Deadline }

// done says that every step has succeeded or was skipped.
func (d *draft) done() bool {
	return !slices.ContainsFunc(d.states, func(s State) bool { return s != StateSucceeded && s != StateSkipped })
}

// start takes what a step needs to start, or notes what it waits for. It reports true if the step failed instead.
func (d *draft) start(i int, spare *bool) (failed bool) {
	s, step := d.s, d.plan.Steps[i]
	if d.interruptedTooOften(i) {
		return true
	}
	driver := s.driver(step.Driver, d.j)
	if driver == nil {
		d.block(i, fmt.Sprintf("driver %q is not registered", step.Driver))
		return false
	}
	if s.hold(d.j) {
		return false
	}
	onSpare := *spare
	if !onSpare && !s.reserve() {
		d.turn = true
		return false
	}
	*spare = false
	if !s.takeSlot(driver, d.j) {
		if onSpare {
			*spare = true
		} else {
			s.vacate()
		}
		return false
	}
	d.starts = append(d.starts, start{index: i, driver: driver, spare: onSpare})
	d.step(i).begin(d.now)
	d.states[i] = StateRunning
	return false
}

// block records that a step waits for something to be mended, unless that is recorded already.
func (d *draft) block(i int, reason string) {
	if !d.begun && d.j.run.steps[i].rec.State == StateBlocked {
		return
	}
	rec := d.step(i)
	rec.State, rec.Reason, rec.Due = StateBlocked, reason, 0
	d.states[i] = StateBlocked
}

// interruptedTooOften fails a step under which the process keeps dying, so that it does not take the others along
// for ever.
func (d *draft) interruptedTooOften(i int) bool {
	limit := d.s.opts.Limits.Interruptions
	if d.begun || d.j.run.steps[i].rec.Crashes <= limit {
		return false
	}
	rec := d.step(i)
	rec.State, rec.Ended, rec.Resumed, rec.Again = StateFailed, d.now, false, false
	rec.Reason = fmt.Sprintf("interrupted %d times by the death of the process, more than the limit of %d", rec.Crashes, limit)
	d.attempts = append(d.attempts, store.Put(attemptKey(d.j.id, d.plan.Steps[i].ID, rec.Attempt),
		encode(&attemptRecord{Started: rec.Started, Ended: d.now, Error: rec.Reason, Kind: kindInterrupt})))
	d.states[i] = StateFailed
	return true
}

// finish ends the run as its steps and its stop say.
func (d *draft) finish() error {
	if d.plan == nil { // it never began
		end := StateCanceled
		if d.rec.Stop == stopSupersede {
			end = StateSuperseded
		}
		return d.finishWith(end, d.rec.StopReason)
	}
	end, failed := d.plan.outcome(d.states, d.rec.Stop)
	reason := ""
	if d.rec.Stop != stopNone {
		reason = d.rec.StopReason
	}
	if failed >= 0 {
		d.rec.FailedStep = d.plan.Steps[failed].ID
		if d.rec.Stop != stopTimeout {
			reason = cut(fmt.Sprintf("step %s (driver %s): %s", d.rec.FailedStep, d.plan.Steps[failed].Driver, d.reasonOf(failed)), d.s.opts.Limits.ErrorText)
		}
	}
	return d.finishWith(end, reason)
}

func (d *draft) reasonOf(i int) string {
	for _, c := range d.steps {
		if c.index == i {
			return c.rec.Reason
		}
	}
	return d.j.run.steps[i].rec.Reason
}

func (d *draft) finishWith(end State, reason string) error {
	if err := d.readHead(); err != nil {
		return err
	}
	d.over, d.rewrite = true, true
	d.rec.State, d.rec.Ended, d.rec.Reason = end, d.now, reason
	if d.plan == nil {
		d.rec.Started = 0 // it has pinned no steps, so it has not begun
	}
	head := d.head
	if head == nil || head.ID != d.rec.ResourceID {
		d.head = nil
		return nil
	}
	if head.Active == d.j.id {
		head.Active = ""
	}
	if head.Pending == d.j.id {
		head.Pending, head.Cause = "", 0
	}
	if head.Status.Run == d.j.id {
		head.Status.Phase, head.Status.Message = end, ""
		if end != StateSucceeded {
			head.Status.Message = reason
		}
	}
	head.Status.ObservedGeneration = max(head.Status.ObservedGeneration, d.rec.Generation)
	return nil
}

// idle says that the draft pins a run that could not start anything yet: it stays queued, so that it still takes up
// what is applied meanwhile.
func (d *draft) idle() bool {
	return d.begun && !d.over && len(d.starts) == 0 && len(d.steps) == 0
}

// commit writes the draft: all of it or nothing.
//
// A crash before it leaves what the last commit said, and a step recorded as running there is called again with
// Resumed set. A crash after it finds the starts recorded and their drivers perhaps not called, which is the same.
func (s *scheduler) commit(d *draft) error {
	ops := d.ops()
	if len(ops) == 0 {
		return nil
	}
	rev, err := s.ledger.commit(s.base, ops)
	for pause := firstPause; errors.Is(err, store.ErrUnknown); pause = min(2*pause, longestPause) {
		if !s.pause(pause) {
			return err
		}
		rev, err = s.ledger.findOut(s.base, ops, err)
	}
	if err != nil {
		return err
	}
	d.apply(rev)
	return nil
}

// ops lists the writes. The first is conditional, from which an unknown outcome is told.
func (d *draft) ops() (ops []store.Op) {
	id := d.j.id
	log := d.j.log
	idle := d.idle()
	if !idle {
		for i := range d.steps {
			c := &d.steps[i]
			ops = append(ops, store.Put(stepKey(id, d.stepID(c.index)), encode(&c.rec)).If(d.stepRevision(c.index)))
		}
		if d.head != nil {
			ops = append(ops, store.Put(resourceKey(d.j.key), encode(d.head)).If(d.rev))
		}
		if d.rewrite {
			ops = append(ops, store.Put(runKey(id), encode(&d.rec)).If(d.j.run.rev))
		}
		ops = append(ops, d.attempts...)
		ops = append(ops, d.extra...)
		if d.over && !d.created {
			ops = append(ops, store.Delete(activeKey(id)))
		}
	}
	if log != nil {
		lines, last := log.ops()
		if len(lines) > 0 {
			d.logged, d.logging = last, true
			ops = append(ops, lines...)
		}
	}
	// Every change of a run is a compare-and-set on its record. Where that record itself stays the same it is only
	// compared: to rewrite it at every step would double the bytes of a transition and keep out nobody more, since
	// whoever takes a run over has to write it.
	if len(ops) > 0 && (idle || !d.rewrite) {
		ops = append(ops, store.Check(runKey(id), d.j.run.rev))
	}
	return ops
}

func (d *draft) stepID(i int) string { return d.plan.Steps[i].ID }

func (d *draft) stepRevision(i int) store.Revision {
	if d.begun {
		return 0
	}
	return d.j.run.steps[i].rev
}

// apply makes the journey show what was committed.
func (d *draft) apply(rev store.Revision) {
	j, run := d.j, d.j.run
	if d.logging {
		j.log.written(d.logged)
	}
	if d.idle() {
		return
	}
	if d.head != nil {
		j.head, j.rev = d.head, rev
	}
	if d.rewrite {
		run.rec, run.rev = d.rec, rev
	}
	if d.begun {
		run.plan, run.steps = d.plan, make([]stepState, len(d.states))
		j.object = d.object
	}
	for i := range d.steps {
		c := &d.steps[i]
		run.steps[c.index] = stepState{rec: c.rec, rev: rev}
	}
}

// adopt carries out what was committed, and returns the attempts to be made, that of the caller's place first.
func (s *scheduler) adopt(d *draft) []*attempt {
	j := d.j
	j.mu.Lock()
	for _, a := range d.settled {
		j.flying = slices.DeleteFunc(j.flying, func(f *attempt) bool { return f == a })
	}
	for i := range d.steps {
		if output := d.steps[i].rec.Output; len(output) > 0 {
			j.outputs[d.stepID(d.steps[i].index)] = output
		}
	}
	var attempts []*attempt
	for _, st := range d.starts {
		a := s.newAttempt(j, d.plan, st.index, d.step(st.index), st.driver, d.rec.Deadline)
		j.flying = append(j.flying, a)
		attempts = append(attempts, a)
		s.watch(a)
	}
	flying := slices.Clone(j.flying)
	j.mu.Unlock()

	s.events.publish(d.tell()...)
	if d.stop != nil {
		for _, a := range flying {
			a.cancel(d.stop)
		}
	}
	for _, answer := range d.answers {
		answer <- nil
	}
	s.park(d, len(flying) > 0)
	return attempts
}

// park sees to it that the run is looked at when it can go on, and keeps in memory only what is being worked on.
func (s *scheduler) park(d *draft, flying bool) {
	j := d.j
	if d.over {
		s.forget(j)
		if d.head != nil && d.head.Pending != "" {
			s.enqueue(s.take(d.head.Pending, j.key))
		}
		return
	}
	s.schedule(j, d.nextDue())
	if d.turn {
		s.enqueue(j)
	}
	if !flying && !d.turn {
		j.run, j.object, j.head, j.rev = nil, nil, nil, 0
		j.mu.Lock()
		j.log, j.outputs = nil, nil
		j.mu.Unlock()
	}
}

// nextDue leaves out a deadline that is past: it was acted upon.
func (d *draft) nextDue() instant {
	due := d.j.run.nextDue()
	if due != 0 && due <= d.now && d.rec.Stop != stopNone {
		return 0
	}
	return due
}

// undo gives back what the draft has taken.
func (d *draft) undo(spare *bool) {
	for _, st := range d.starts {
		d.s.releaseSlot(st.driver)
		if st.spare {
			*spare = true
		} else {
			d.s.vacate()
		}
	}
	d.starts = nil
}

// tell lists what happened, for those who watch.
func (d *draft) tell() (events []Event) {
	if d.idle() {
		return nil
	}
	now := time.Now()
	run := d.j.run
	if d.begun && d.plan != nil {
		started := d.rec
		started.State, started.Reason = StateRunning, ""
		events = append(events, runEvent(now, run.id, &started))
	}
	for i := range d.steps {
		events = append(events, stepEvent(now, run, d.stepID(d.steps[i].index), &d.steps[i].rec))
	}
	if d.over {
		events = append(events, runEvent(now, run.id, &d.rec))
	}
	return events
}

// stopRun asks a run to end and waits until that is on record.
func (s *scheduler) stopRun(ctx context.Context, run *runState, kind stopKind, cause error, reason string) error {
	answer := make(chan error, 1)
	j := s.take(run.id, run.rec.key())
	s.drive(j, message{stop: &stopRequest{kind: kind, reason: reason, cause: cause, answer: answer}}, false)
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
