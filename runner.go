package conveyor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/store"
)

// runner is an unfinished run as the scheduler holds it. While nothing happens to the run, only the runner remains in
// memory. The records of the run are read again when the run continues.
//
// Everything that happens to a run goes through scheduler.drive. Each caller of drive puts its message into the inbox.
// A caller that finds the runner idle handles all messages in the inbox. The records of a run are therefore changed by
// one goroutine at a time, and no lock is held while the records are written.
type runner struct {
	task

	mu        sync.Mutex // guards what follows, up to the next blank line, and what loaded says
	busy      bool       // a goroutine handles the messages, or creates the run
	gone      bool       // the run is not of this engine any more, and another runner may be made for it
	diedAlone bool       // the earlier process ended while a step of this run was the only one at work
	leftovers int32      // counts the signals and checkpoints to delete when the run ends; 0 if there is none for certain
	*loaded              // nil while nothing happens to the run

	clockSet atomic.Int64 // by how many nanoseconds the clock was set since the last decision that was committed
}

// loaded is what is in memory of a run while something happens to it. A run that waits has none: very many runs can wait.
type loaded struct {
	// runner.mu guards what follows, up to the next blank line.
	inbox      []message
	spareInbox []message                  // an inbox whose messages were handled, for the next messages
	inFlight   []*attempt                 // attempts whose start is recorded and whose outcome is not
	over       bool                       // this engine has recorded the end of the run
	outputs    map[string]json.RawMessage // by step id
	log        *runlog.Log

	// held is owned by the goroutine that set busy. Its Run is nil if the run must be read from the store.
	held run.State
}

// loadedRuns holds values for reuse, because every run that waits gives its own up.
var loadedRuns = sync.Pool{New: func() any { return new(loaded) }}

// wakeLocked makes room for what is in memory of a run while something happens to it.
func (r *runner) wakeLocked() {
	if r.loaded == nil {
		r.loaded = loadedRuns.Get().(*loaded)
	}
}

// restLocked gives up what wakeLocked has made, unless something still happens to the run or its records stay in memory.
func (r *runner) restLocked() {
	l := r.loaded
	if l == nil || r.busy || l.held.Run != nil || len(l.inbox)+len(l.inFlight) > 0 {
		return
	}
	r.loaded = nil
	*l = loaded{inbox: l.inbox[:0], spareInbox: l.spareInbox[:0], inFlight: l.inFlight[:0]}
	loadedRuns.Put(l)
}

// isAtWork reports whether an attempt is under way, whose outcome changes the records of the run, so that the engine finds out then whether
// the run is still its own; or whether the engine has ended the run and is about to tell who waits.
func (r *runner) isAtWork() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.gone && r.loaded != nil && (r.over || len(r.inFlight) > 0)
}

// message is something that happened to a run. The zero message only asks to decide again what can start.
type message struct {
	outcome *outcome
	stop    *stopRequest
	found   string       // the key of the entry by which the run, which had no owner, was found
	refresh bool         // somebody has changed the record of the run
	yield   bool         // the run has waited for long for a worker, which another engine may have
	handled chan<- error // receives a value when the message was handled; size 1, so that the sender never blocks; can be nil
}

// stopRequest asks that a run end. answer receives nil when the request is recorded, or an error.
type stopRequest struct {
	run.StopRequest
	answer chan<- error // size 1, so that the sender never blocks
}

// drive puts a message into the inbox of a runner. If no other goroutine handles the inbox, drive handles it until it
// is empty. If the caller is a worker, drive returns the attempt that the caller must make next, or nil. All other
// attempts are given to other workers.
func (s *scheduler) drive(r *runner, m message, worker bool) (next *attempt) {
	r.mu.Lock()
	r.wakeLocked()
	r.inbox = append(r.inbox, m)
	if r.busy {
		r.mu.Unlock()
		return nil
	}
	r.busy = true
	for len(r.inbox) > 0 {
		inbox := r.inbox
		r.inbox, r.spareInbox = r.spareInbox[:0], nil
		gone := r.gone
		r.mu.Unlock()
		if gone {
			s.answer(inbox, errForeign)
		} else if a := s.advance(r, inbox, worker && next == nil); a != nil {
			next = a
		}
		clear(inbox)
		r.mu.Lock()
		r.spareInbox = inbox
	}
	r.busy = false
	r.restLocked()
	r.mu.Unlock()
	return next
}

// part is how much one decision about a run takes of what there is to decide.
type part struct {
	changes   int  // of steps, and outcomes of attempts; 0 means any number
	divisible bool // a smaller part can be taken
	logFirst  bool // the log is written in commits of its own before
}

// errTooMuch means that the commit of a decision is larger than the store accepts, and that a smaller part can be decided.
var errTooMuch = errors.New("conveyor: the commit of a decision is too large for the store")

// smaller returns the part to take after errTooMuch: the same without the log, or half of it.
func (p part) smaller(logged bool) part {
	if logged && !p.logFirst {
		p.logFirst = true
		return p
	}
	p.changes = max(p.changes/2, 1)
	p.divisible = p.changes > 1
	return p
}

// of returns the first of the messages, those that the part has room for.
func (p part) of(inbox []message) []message {
	outcomes := 0
	for i, m := range inbox {
		if m.outcome == nil {
			continue
		}
		if outcomes++; p.changes > 0 && outcomes > p.changes {
			return inbox[:i]
		}
	}
	return inbox
}

// advance records what the messages report, and the starts that follow from it. If the store fails, advance tries
// again until everything is recorded or the scheduler stops retrying. ownWorker reports whether the caller is a worker
// that can make an attempt itself.
//
// If a store bounds its commits, one decision takes a part of the messages and of what follows. The next one follows at once.
func (s *scheduler) advance(r *runner, inbox []message, ownWorker bool) (next *attempt) {
	p := part{changes: s.limits.Changes, divisible: s.limits.Changes > 1}
	for pause := firstDelay; ; pause = min(2*pause, longestDelay) {
		d := s.newDecision(r, p.of(inbox), ownWorker && next == nil)
		d.part = p
		err := d.refresh()
		if err == nil {
			err = d.decide()
		}
		if err == nil {
			err = d.commit()
		}
		if err == nil {
			inbox = inbox[len(d.inbox):]
			again := d.t.More() || len(inbox) > 0
			if a := d.dispatch(again); a != nil {
				next = a
			}
			d.recycle()
			if !again {
				return next
			}
			pause, p.logFirst = firstDelay/2, false
			continue
		}
		if errors.Is(err, errTooMuch) {
			p = p.smaller(d.t.Logged() > 0)
			d.host.Release()
			d.recycle()
			pause = firstDelay / 2
			continue
		}
		d.host.Release()
		d.recycle()
		switch {
		case errors.Is(err, errForeign):
			s.answer(inbox, err)
			s.dropForeign(r)
			return next
		case errors.Is(err, ErrUnsupported) && s.fleet != nil:
			s.answer(inbox, err)
			s.fleet.claimer().leaveToNewer(r.ID, err)
			s.dropForeign(r)
			return next
		case errors.Is(err, errEnded):
			s.answer(inbox, fmt.Errorf("%w: run %s has ended", ErrConflict, r.ID))
			s.forget(r)
			s.upkeep.deleteLeftovers(r.ID) // the runner may have been woken by a signal that was recorded as the run ended
			return next
		case errors.Is(err, store.ErrConflict) && s.fleet != nil:
			explained, why := s.fleet.requests().conflict(r)
			switch {
			case errors.Is(why, errForeign), errors.Is(why, errEnded):
				s.answer(inbox, errForeign)
				s.dropForeign(r)
				return next
			case explained:
				pause = firstDelay / 2
				continue
			case why != nil: // records that were read while others wrote them can seem to be damaged
				err = why
			}
		case errors.Is(err, store.ErrConflict):
			if s.changed(r) {
				pause = firstDelay / 2
				continue
			}
			s.loseOwnership(r, err)
			s.answer(inbox, err)
			return next
		case ledger.Permanent(err) && r.held.Rev != 0 && s.changed(r):
			// A record that the resource's record refers to, such as that of a pending run, was gone when it was read.
			// The reason is that the resource's record had changed in the meantime.
			pause = firstDelay / 2
			continue
		case ledger.Permanent(err):
			s.cannotGoOn(r, inbox, err)
			return next
		}
		s.log.Warn("store failed; trying again", "run", r.ID, "error", err, "after", pause)
		if !s.sleep(pause) {
			s.answer(inbox, ErrClosed)
			if r.hasUnrecorded(inbox) {
				s.mu.Lock()
				s.unrecordedRuns = append(s.unrecordedRuns, unrecordedRun{r, err})
				s.mu.Unlock()
			}
			return next
		}
	}
}

// cannotGoOn gives a run up because of an error that trying again cannot mend.
func (s *scheduler) cannotGoOn(r *runner, inbox []message, err error) {
	s.log.Error("run cannot go on", "run", r.ID, "resource", r.Key.String(), "error", err)
	s.pool.GiveUp(&r.task) // otherwise it could hold up its pipeline for ever
	s.answer(inbox, err)
	if errors.Is(err, store.ErrClosed) {
		s.failWaiters(r)
	}
}

// refresh reads the run again if somebody else has changed its record.
func (d *decision) refresh() error {
	f := d.host.s.fleet
	if f == nil {
		return nil
	}
	for _, m := range d.inbox {
		if m.found != "" {
			d.in.Found = m.found
		}
		d.host.yields = d.host.yields || m.yield
		if m.refresh {
			if err := f.requests().reread(d.runner); err != nil {
				return err
			}
		}
	}
	return nil
}

// decide computes the transition that follows from the messages. If decide returns an error, the caller must release
// what d.host has taken.
func (d *decision) decide() (err error) {
	s := d.host.s
	r := d.runner
	if err := s.load(r); err != nil {
		return err
	}
	for _, m := range d.inbox {
		if m.outcome != nil && !m.outcome.attempt.recorded() {
			d.outcomes = append(d.outcomes, m.outcome.value(s.opts.Retry))
			d.in.Outcomes = append(d.in.Outcomes, &d.outcomes[len(d.outcomes)-1])
		}
		if m.stop != nil {
			d.in.Stops = append(d.in.Stops, &m.stop.StopRequest)
		}
	}
	if r.log != nil {
		d.in.Lines = r.log
		if err := d.prepareLog(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	d.leftovers = r.leftovers
	r.mu.Unlock()
	d.in.Leftovers = d.leftovers > 0 || r.held.Run.Rec.Signals > 0 // of which another engine may have sent the last one just now
	limits := s.limits
	limits.Changes = d.part.changes
	d.t, err = run.Next(&r.held, &d.in, s.view, &d.host, limits)
	return err
}

// prepareLog prepares the writes of the lines that were logged so far, for the commit of the decision. What the commit has no
// room for is written before. So the lines of a step are on record before its outcome.
//
// A crash between these commits leaves the first lines on record.
func (d *decision) prepareLog() error {
	s, l := d.host.s, d.runner.log
	if !l.Unprepared() {
		return nil
	}
	for newest := l.Newest(); ; {
		if err := l.Prepare(s.ledger.View(s.base)); err != nil {
			return err
		}
		ops, last := l.Ops()
		if len(ops) == 0 || last >= newest && !d.part.logFirst {
			return nil
		}
		state := d.runner.held.Run
		if _, err := s.ledger.Commit(s.base, append(slices.Clip(ops), store.Check(state.Key(), state.Rev))); err != nil {
			return err
		}
		if l.Written(last); last >= newest {
			return nil
		}
	}
}

// commit writes a transition. Either the whole transition is written, or nothing.
//
// A crash before the commit leaves the records of the previous commit. A step that is running in these records is
// called again with Resumed set. A crash after the commit leaves the starts recorded, although their drivers may not
// have been called. These steps are called again in the same way.
func (d *decision) commit() error {
	s := d.host.s
	s.pool.Decided(&d.runner.task)
	ops := d.t.Ops()
	if len(ops) == 0 {
		return nil
	}
	if (d.part.divisible || d.t.Logged() > 0) && s.accepts != (store.Limits{}) && s.accepts.Check(ops) != nil {
		return errTooMuch
	}
	rev, now, err := d.write(ops)
	if err != nil {
		return err
	}
	if last := d.t.Logged(); last > 0 {
		d.runner.log.Written(last)
	}
	d.t.Committed(rev)
	if now != nil {
		d.asked = askedStop(d.t.Rec(), &now.Rec)
		d.runner.hold(now)
	}
	return nil
}

// write makes the commit of a transition, and tries until it knows the outcome or the engine stops. now is the run as it is on record,
// if the run was written again since, and nil otherwise.
func (d *decision) write(ops []store.Op) (rev store.Revision, now *record.RunState, err error) {
	s := d.host.s
	rev, err = s.ledger.Commit(s.base, ops)
	for pause := firstDelay; ; pause = min(2*pause, longestDelay) {
		if s.fleet != nil && errors.Is(err, store.ErrConflict) {
			now, err = s.fleet.requests().settled(d, err)
		}
		if !errors.Is(err, store.ErrUnknown) || ledger.Permanent(err) || !s.sleep(pause) {
			return rev, now, err
		}
		rev, err = s.ledger.FindOut(s.base, ops, err)
	}
}

// dispatch carries out a committed transition, and gives the attempts that start to workers. If the caller is a worker
// that must make one of these attempts itself, dispatch returns this attempt instead. again reports whether another decision about
// the run follows at once.
func (d *decision) dispatch(again bool) (next *attempt) {
	s := d.host.s
	t := d.t
	stopped, inFlight := d.updateRunner()
	if s.ending.Load() {
		for _, a := range d.made {
			a.Cancel(ErrShutdown)
		}
	}
	if s.fleet.fenced() { // during the commit
		for _, a := range d.made {
			a.Cancel(ErrLeaseLost)
		}
	}

	s.events.publish(d.listEvents()...)
	d.log()
	for _, a := range stopped {
		a.End(t.Stop())
	}
	if d.asked != nil {
		for _, a := range d.runner.underWay() {
			a.End(d.asked)
		}
	}
	d.suspend(inFlight, again)
	s.answer(d.inbox, nil) // after suspend, so that a caller that gets its answer finds the run where it now belongs
	d.notifyOthers()
	for k, a := range d.made {
		if d.host.taken[k].ownWorker {
			next = a
		} else {
			s.startWorker(a)
		}
	}
	return next
}

// updateRunner makes the runner match a committed transition. It removes the attempts whose outcomes are
// recorded, keeps the outputs of the steps, and adds the attempts that start. If the transition stops the running
// attempts, updateRunner returns them. It reports whether an attempt is in flight now.
func (d *decision) updateRunner() (stopped []*attempt, inFlight bool) {
	s := d.host.s
	r, t := d.runner, d.t
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range d.inbox {
		if m.outcome != nil {
			done := m.outcome.attempt
			r.inFlight = slices.DeleteFunc(r.inFlight, func(f *attempt) bool { return f == done })
		}
	}
	for step, output := range t.Outputs {
		r.outputs[step] = output
	}
	r.over = t.Over()
	if t.Stop() != nil {
		stopped = slices.Clone(r.inFlight)
	}
	r.clockSet.Add(-int64(d.in.ClockSet))
	var end time.Time
	if deadline := t.Rec().Deadline; deadline != 0 {
		end = d.moment.Add(time.Duration(deadline - d.in.Now))
	}
	for k, i := range t.Starts() {
		a := s.newAttempt(r, t.Plan(), i, t.Step(i), d.host.taken[k].driver, d.moment, end)
		r.inFlight = append(r.inFlight, a)
		d.made = append(d.made, a)
		a.Watch()
	}
	return stopped, len(r.inFlight) > 0
}

// notifyOthers starts what a committed transition makes possible outside of its run.
func (d *decision) notifyOthers() {
	s := d.host.s
	r, t := d.runner, d.t
	if t.Over() && t.Head() != nil {
		s.upkeep.resyncAt(t.Head().Resync)
		if r.clockSet.Load() != 0 { // during the commit
			s.upkeep.clockSet()
		}
	}
	if by := t.Preempts(); by != nil && s.fleet == nil { // on a shared store it is asked in the commit that makes this run wait
		s.preempt(r.Key, by)
	}
	if s.fleet != nil && slices.ContainsFunc(d.in.Outcomes, func(o *run.Outcome) bool { return o.Stray }) {
		s.fleet.requests().strayReturned(r.Key) // perhaps during the commit
	}
	if t.Over() && t.Rec().State == plan.Skipped && t.Rec().Pipeline == "" {
		// A search that followed the registration of a driver may have come before the commit, and has not found this run.
		s.upkeep.reconcileUnlistened(r.Key.Type)
	}
}

// suspend removes the runner of a run that has ended. Otherwise suspend arranges that the runner is driven again when
// the run can continue, and unloads the records if nobody works on the run.
func (d *decision) suspend(inFlight, again bool) {
	s := d.host.s
	r, t := d.runner, d.t
	if t.Over() {
		for _, w := range s.drop(r, t.Rec().State) {
			w <- runFromMemory(r.held.Run)
		}
		r.unload() // otherwise a message that comes now would end the run a second time
		r.mu.Lock()
		late := r.leftovers != d.leftovers // a leftover was added after the decision
		r.mu.Unlock()
		if t.LeavesLeftovers() || late {
			s.upkeep.deleteLeftovers(r.ID)
		}
		if head := t.Head(); head != nil && head.Pending != "" {
			s.enqueue(s.take(head.Pending, r.Key, record.Lane(head.Pipeline, r.Key)))
		}
		s.upkeep.prune(r.Key)
		s.fleet.lookIfLeft()
		return
	}
	if s.fleet != nil && !again && !s.fleet.owns(&r.held.Run.Rec) && !d.standsInLine() {
		d.discardFound()
		s.fleet.leaveRun()
		s.dropForeign(r) // nothing of a run that was released is under way, but this engine can be marked dead at any time
		return
	}
	switch {
	case r.held.Run.Rec.State == plan.Queued:
		s.pool.Stay(&r.task, d.host.keepsRoom())
	case t.Begun():
		s.pool.Began(&r.task)
	}
	due, deadline := t.NextDue()
	state := r.held.Run.State()
	if state == plan.Queued && t.Paused() != "" {
		state = plan.Blocked
		if d.host.newlyHeld {
			s.reportHeld(d)
		}
	}
	s.schedule(r, due, deadline, state, len(d.made), d.host.waitsFor)
	if t.NeedsWorker() || d.host.yielded || r.clockSet.Load() != 0 { // the clock was set during the commit, when the run waited for no time
		s.enqueue(r)
	}
	if !inFlight && !again && (!t.NeedsWorker() || s.crowded() || s.fleet != nil && !s.fleet.owns(&r.held.Run.Rec)) {
		r.unload()
	}
}

// discardFound removes the entry by which a run without an owner was found, if the run has begun and nothing is to be done for it: a
// signal came for which no step waits.
func (d *decision) discardFound() {
	s, held := d.host.s, d.runner.held.Run
	key := d.in.Found
	if key == "" || held.Plan == nil || held.Rec.Owner != "" || d.t.Keeps(key) {
		return
	}
	rev, id := held.Rev, d.runner.ID
	s.background.goBefore(sched.Draining, func() {
		r, err := s.ledger.Store.Get(s.fleet.ctx, key)
		if err == nil { // what comes later is put together with a change of the record of the run
			_, _ = s.ledger.Commit(s.fleet.ctx, []store.Op{store.Delete(key).If(r.Revision), store.Check(record.RunKey(id), rev)})
		}
	})
}

// standsInLine reports whether a run that has not begun waits here for its turn, although any engine can begin it meanwhile.
func (d *decision) standsInLine() bool {
	h, s := &d.host, d.host.s
	return d.runner.held.Run.Rec.State == plan.Queued && s.pool.Phase() != sched.New && !h.held &&
		(h.waits || h.noRoom || len(h.pauses) > 0 || d.t.NeedsWorker())
}

// maxLoaded bounds the runs that stay loaded while they wait for a worker. All others are read again when they
// continue.
const maxLoaded = 1_024

// crowded reports whether more than maxLoaded runs wait for a worker.
func (s *scheduler) crowded() bool { return s.pool.Waiting() > maxLoaded }

// unload drops what is loaded of a run. It is read from the store again when the run continues.
func (r *runner) unload() {
	r.held = run.State{}
	r.mu.Lock()
	r.log, r.outputs = nil, nil
	r.mu.Unlock()
}

// load reads the records of a run into the runner, unless they are loaded already. It returns errEnded if the run has
// ended or is not recorded.
func (s *scheduler) load(r *runner) error {
	if r.held.Run != nil {
		return nil
	}
	state, err := s.ledger.Run(s.base, r.ID)
	if errors.Is(err, ErrNotFound) {
		return errEnded
	}
	if err != nil {
		return err
	}
	if state.Rec.State.Final() {
		return errEnded
	}
	if err := s.fleet.claims(&state.Rec); err != nil {
		return err
	}
	if m := s.events.mirror; m != nil {
		m.takenUp(state)
	}
	outputs := map[string]json.RawMessage{}
	last, died := int64(0), false
	if state.Plan != nil {
		if last, err = s.ledger.LastLine(s.base, r.ID); err != nil {
			return err
		}
		revision, err := s.ledger.Revision(s.base, state.Rec.Key(), state.Rec.Generation)
		if err != nil {
			return err
		}
		r.held.Spec = revision.Spec
		if died, err = s.loadSteps(r, state, outputs); err != nil {
			return err
		}
	}
	log := s.newLog(r.ID, record.FirstLine(last, state.LogEpoch))
	for i := range state.Steps {
		log.SetKept(state.Plan.Step(i).ID, state.Steps[i].Rec.Lines)
	}
	if died && last > 0 {
		log.Recount()
	}
	r.held.Run = state
	r.mu.Lock()
	r.log, r.outputs = log, outputs
	r.mu.Unlock()
	return nil
}

// newLog returns the log of a run whose lines are numbered after last.
func (s *scheduler) newLog(run string, last int64) *runlog.Log {
	l := runlog.New(run, last, s.opts.Limits.LogLines)
	l.Within(s.logRoom)
	return l
}

// loadSteps collects the outputs of the steps that were read, and corrects the steps during which an earlier process has
// died. It reports whether there are any. Such steps are corrected in the store when they continue, and stay as they are
// there until then.
func (s *scheduler) loadSteps(r *runner, state *record.RunState, outputs map[string]json.RawMessage) (died bool, err error) {
	for i := range state.Steps {
		rec := &state.Steps[i].Rec
		id := state.Plan.Step(i).ID
		state.LogEpoch = max(state.LogEpoch, rec.LogEpoch)
		if len(rec.Output) > 0 {
			outputs[id] = rec.Output
		}
		if rec.State == plan.Running { // no attempt of this process is running
			died = true
			rec.Interrupt()
			if err := s.countCrash(r, id, &state.Steps[i]); err != nil {
				return died, err
			}
		}
	}
	if died {
		state.LogEpoch++
	}
	return died, nil
}

// countCrash counts the death of the earlier process against a step that was running, if the step can be its cause. While
// several steps are at work, none of them is held to be the cause. A checkpoint or a log line shows progress, and the
// count begins anew.
func (s *scheduler) countCrash(r *runner, id string, step *record.StepState) error {
	r.mu.Lock()
	alone := r.diedAlone
	r.mu.Unlock()
	if !alone {
		return nil
	}
	progressed, err := s.ledger.Progressed(s.base, r.ID, id, step.Rev)
	if err != nil {
		return err
	}
	if progressed {
		step.Rec.Crashes = 0
	}
	step.Rec.Crashes++
	return nil
}

// output returns the output of a step, and whether there is one.
func (r *runner) output(step string) (json.RawMessage, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded == nil { // the call was abandoned, and the run has gone on without it
		return nil, false
	}
	output, ok := r.outputs[step]
	return output, ok
}

// hold takes the records of the run as somebody has read them: a commit that this engine did not know of can have changed them. It is
// called by the goroutine that handles the inbox.
func (r *runner) hold(now *record.RunState) {
	now.LogEpoch = max(now.LogEpoch, r.held.Run.LogEpoch)
	r.held = run.State{Run: now, Spec: r.held.Spec}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range now.Steps {
		if output := now.Steps[i].Rec.Output; len(output) > 0 && r.outputs != nil {
			r.outputs[now.Plan.Step(i).ID] = output
		}
	}
}

// underWay returns the attempts whose start is recorded and whose outcome is not.
func (r *runner) underWay() []*attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded == nil {
		return nil
	}
	return slices.Clone(r.inFlight)
}

// noteLeftovers notes that the run has another record that must be deleted when the run ends.
func (r *runner) noteLeftovers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leftovers++
}

// errEnded reports that the run of a runner has ended.
var errEnded = errors.New("conveyor: the run has ended")

// answer sends err to every caller whose message asks that the run end, or that waits until its message was handled.
func (s *scheduler) answer(inbox []message, err error) {
	for _, m := range inbox {
		if m.stop != nil {
			m.stop.answer <- err
		}
		if m.handled != nil {
			m.handled <- err
		}
	}
}

// changed reads the resource's record again after a conflict. It reports whether the record explains the conflict,
// because the program has applied something. If so, the caller must decide again, with the record as it is now.
func (s *scheduler) changed(r *runner) bool {
	before := r.held.Rev
	r.held.Head, r.held.Rev = nil, 0
	head, rev, err := s.ledger.Resource(s.base, r.Key)
	if err != nil {
		return true // the next decision reads the record again, and returns the error
	}
	r.held.Head, r.held.Rev = head, rev
	return rev != before
}

// loseOwnership gives up a run whose records were changed by another engine on the same store. The running calls of the
// run are canceled and abandoned.
func (s *scheduler) loseOwnership(r *runner, err error) {
	s.log.Error("run was changed by somebody else; leaving it alone", "run", r.ID, "resource", r.Key.String(), "error", err)
	for _, a := range r.underWay() {
		a.Cancel(fmt.Errorf("%w: run %s was changed by somebody else", ErrConflict, r.ID))
		a.abandonCall()
	}
	s.forget(r)
	r.unload()
}

// unrecordedRun is a run of which something could not be recorded.
type unrecordedRun struct {
	runner *runner
	err    error // last error of the store
}

// hasUnrecorded reports whether something has happened to the run that is not recorded: an outcome or a log line. A
// start that would be possible does not count.
func (r *runner) hasUnrecorded(inbox []message) bool {
	return r.log != nil && len(r.log.Unwritten()) > 0 || slices.ContainsFunc(inbox, func(m message) bool { return m.outcome != nil })
}

const (
	firstDelay   = 50 * time.Millisecond
	longestDelay = 5 * time.Second
)

// sleep waits for d and returns true. It returns false if the scheduler stops retrying first.
func (s *scheduler) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-s.stopRetrying:
		return false
	}
}

// preempt ends the active run of a resource for the sake of the run that is pending behind it. preempt does not wait
// for the end, because a store that fails would delay the caller, whose own change is recorded already. When the active
// run has ended, the pending run is woken.
func (s *scheduler) preempt(k record.Key, by *run.Preemption) {
	stop := stopRequest{by.Stop, make(chan error, 1)}
	s.background.Go(func() { s.drive(s.take(by.Run, k, ""), message{stop: &stop}, false) })
}

// stopRun asks a run to end, and waits until the request is recorded.
func (s *scheduler) stopRun(ctx context.Context, of *record.RunState, stop run.StopRequest) error {
	answer := make(chan error, 1)
	r := s.take(of.ID, of.Rec.Key(), record.Lane(of.Rec.Pipeline, of.Rec.Key()))
	ask := message{stop: &stopRequest{stop, answer}}
	if !s.background.Go(func() { s.drive(r, ask, false) }) {
		return ErrClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// runEvent returns the event for the current state of a run.
func runEvent(id string, rec *record.Run, now time.Time) Event {
	return Event{
		Time: now, Kind: EventRun, Resource: Key(rec.Key()), Pipeline: rec.Pipeline, Run: id, Cause: Cause(rec.Cause), By: rec.By,
		State: State(rec.State), Reason: rec.Reason,
	}
}
