package conveyor

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// decision is one decision about a run: the messages on which it is based, what it has taken from the host, and the
// transition that follows.
type decision struct {
	runner    *runner
	inbox     []message // what the decision handles
	part      part
	creates   bool // the run is new
	in        run.Input
	moment    time.Time     // of in.Now, for measuring what lasts
	outcomes  []run.Outcome // those that in refers to
	host      host
	made      []*attempt      // the attempts that start, in the order of t.Starts
	events    []Event         // returned by listEvents
	leftovers int32           // runner.leftovers when the decision was made
	t         *run.Transition // nil until the decision is made
	asked     error           // the cause with which attempts must end, if somebody has asked during the commit that the run end
}

// decisions holds decisions for reuse, because every step of every run needs a decision.
var decisions = sync.Pool{New: func() any { return new(decision) }}

// newDecision returns an empty decision about a run. ownWorker reports whether the caller is a worker that can make an
// attempt itself.
func (s *scheduler) newDecision(r *runner, inbox []message, ownWorker bool) *decision {
	d := decisions.Get().(*decision)
	d.runner, d.inbox = r, inbox
	for {
		set := r.clockSet.Load()
		d.in.Now, d.moment = s.now()
		d.in.ClockSet = time.Duration(set)
		if r.clockSet.Load() == set { // otherwise the clock was set before now was read
			break
		}
	}
	d.in.Member = s.fleet.member()
	d.host.nobody = d.in.Member == &nobody
	d.host.s, d.host.runner, d.host.ownWorker = s, r, ownWorker
	return d
}

// recycle makes d available for reuse. The caller must not use d any more.
func (d *decision) recycle() {
	if d.t != nil {
		d.t.Recycle()
	}
	clear(d.in.Outcomes)
	clear(d.outcomes)
	clear(d.in.Stops)
	clear(d.host.taken)
	clear(d.made)
	clear(d.events)
	*d = decision{
		events: d.events[:0], outcomes: d.outcomes[:0],
		in:   run.Input{Outcomes: d.in.Outcomes[:0], Stops: d.in.Stops[:0]},
		host: host{taken: d.host.taken[:0], pauses: d.host.pauses[:0]}, made: d.made[:0],
	}
	decisions.Put(d)
}

// listEvents returns the events of the transition.
func (d *decision) listEvents() []Event {
	changes := d.t.Changes()
	if len(changes) == 0 {
		return nil
	}
	now := clock.Now()
	for _, c := range changes {
		e := runEvent(d.runner.ID, d.t.Rec(), now)
		switch {
		case c.Removed:
			e = Event{Time: now, Kind: EventResource, Resource: e.Resource, By: e.By, Reason: "deleted"}
		case c.Step != "":
			e.Kind, e.Step, e.Driver, e.Attempt = EventStep, c.Step, c.Driver, c.Attempt
			fallthrough
		default:
			e.State, e.Reason = State(c.State), c.Reason
			e.ErrorKind, e.ErrorReason = ErrorKind(c.Failure.Class), c.Failure.Code
		}
		d.events = append(d.events, e)
	}
	return d.events
}

// log writes what a person must know of the transition to the log of the engine: what is blocked and what has failed. The
// texts of drivers are on record with the run, and never in the log.
func (d *decision) log() {
	s, t := d.host.s, d.t
	if s.log.Silent() || t.Idle() {
		return
	}
	of := []any{"run", d.runner.ID, "resource", d.runner.Key.String(), "pipeline", nameOf(t.Rec().Pipeline)}
	for _, o := range d.in.Outcomes {
		if o.Kind == run.Failed {
			d.logFailure(o, of)
		}
	}
	for _, c := range t.Changes() {
		switch {
		case c.Step != "" && c.State == plan.Blocked:
			reason := c.Reason + s.drivers.didYouMean(c.Driver)
			if nameOf(c.Driver) != c.Driver {
				reason = "its driver has no valid name on record"
			}
			s.log.Warn("run is blocked", append(slices.Clip(of), "step", nameOf(c.Step), "driver", nameOf(c.Driver), "reason", reason)...)
		case c.Step == "" && c.State == plan.Failed && c.Failure.Class == fault.ClassTimeout:
			s.log.Warn("run timed out", append(slices.Clip(of), "step", nameOf(t.Rec().FailedStep), "kind", string(c.Failure.Class))...)
		case c.Step == "" && c.State == plan.Failed:
			s.log.Warn("run failed", append(slices.Clip(of), "step", nameOf(t.Rec().FailedStep), "kind", string(c.Failure.Class), "code", c.Failure.Code)...)
		}
	}
}

// nameOf returns a name on record as the log may have it. In a damaged record anything can stand where a name was, also a text
// that must not be logged.
func nameOf(name string) string {
	if name != "" && text.NameFault(name) != "" {
		return "?"
	}
	return name
}

// logFailure writes a line for an attempt that has failed.
func (d *decision) logFailure(o *run.Outcome, of []any) {
	step, log := d.t.Plan().Step(o.Step), d.host.s.log
	of = append(slices.Clip(of), "step", nameOf(step.ID), "driver", nameOf(step.Driver), "attempt", o.Attempt, "kind", string(o.Failure.Class))
	if o.Failure.Kind == fault.KindPanic {
		log.Warn("attempt panicked", append(of, "frame", o.Failure.Frame)...)
	} else {
		log.Warn("attempt failed", append(of, "code", o.Failure.Code)...)
	}
}

// host grants what a decision about one run needs: for each step that starts, a worker and a place of the driver's
// semaphore, and for a run that begins, a place within the run limit of its pipeline. It is the [run.Host] of the run.
type host struct {
	s         *scheduler
	runner    *runner
	ownWorker bool // the worker that makes the decision can make an attempt
	taken     []grant
	pauses    []string // of the pauses that hold the run or its steps, as the pool knows them
	newlyHeld bool     // the run was not held by a pause before
	held      bool     // a step must wait for an abandoned call
	waits     bool     // a step must wait for a worker or for a place of its driver
	nobody    bool     // the engine was not one of those on record when the decision began
	yields    bool     // another engine that has a worker can go on with the run
	yielded   bool     // a step has not started for that reason
	noRoom    bool     // the run must wait for a place within the run limit of its pipeline
}

// grant is what was taken for one step that starts.
type grant struct {
	driver    *driver
	ownWorker bool // the worker that makes the decision makes the attempt
}

// Start takes a worker and a place of the driver's semaphore for a step.
func (h *host) Start(name string, finalize bool) run.Grant {
	s := h.s
	driver := s.drivers.driver(name, h.runner)
	switch {
	case driver == nil && s.fleet != nil && s.fleet.claimer().hasElsewhere(name):
		return run.Elsewhere
	case driver == nil:
		return run.NoDriver
	}
	if _, ok := driver.impl.(Finalizer); finalize && !ok {
		return run.NotNeeded
	}
	switch s.pool.Claim(driver.calls, &h.runner.task, h.ownWorker) {
	case sched.Held:
		h.held = true
		return run.Later
	case sched.InLine:
		h.waits = true
		return run.Later
	case sched.NoWorker:
		if h.yields && s.fleet.claimer().isFreeElsewhere(name) {
			h.yielded = true
			return run.Elsewhere
		}
		h.waits = true
		return run.NoWorker
	}
	h.taken = append(h.taken, grant{driver, h.ownWorker})
	h.ownWorker = false
	return run.Granted
}

// Paused returns why a pause holds the begin of the run, or a step with a driver, and has the run get its turn when the pause
// ends.
func (h *host) Paused(pipeline, driver string) (why string) {
	of, why, first := h.s.pauses.hold(h.runner, pipeline, driver)
	if why != "" {
		h.pauses = append(h.pauses, of)
		h.newlyHeld = h.newlyHeld || first
	}
	return why
}

// waitsFor reports whether the run still waits for a driver to be registered, or for a pause to end.
func (h *host) waitsFor(name string) bool {
	return slices.Contains(h.pauses, name) || h.runner.held.Run.IsBlockedBy(name)
}

// keepsRoom reports whether a run that cannot begin keeps its place within the run limit of its pipeline. A run that waits
// for a worker or for a place of a driver does. Otherwise the place would go to the next run, which would find the same,
// until all runs had been looked at. A run that waits for an abandoned call does not, because the call may never return.
func (h *host) keepsRoom() bool { return h.waits && !h.held }

// Enter takes a place within the run limit of a pipeline, and returns the record of the pipeline as it is now. A run that
// has a place from an earlier decision keeps it.
func (h *host) Enter(name string, rec *record.Pipeline) (entered bool, now *record.Pipeline, err error) {
	s := h.s
	if rec == nil {
		rec, _, err = s.ledger.Pipeline(s.base, name)
		if err != nil && !errors.Is(err, ErrNotFound) { // a run whose pipeline is not found ends at once
			return false, rec, err
		}
	}
	known, limit := rec != nil, 0
	var asOf int64
	if known {
		limit, asOf = rec.MaxRuns, int64(rec.Rev)
	}
	entered, first := s.pool.AcquireRun(name, known, limit, asOf, &h.runner.task)
	h.noRoom = !entered
	if first && known {
		// The pipeline may have been deleted since it was read. Its run limit and its Planner were then dropped. If the
		// pipeline is deleted after this point, the pool keeps both as long as this run is active.
		read := rec.Rev
		rec, _, err = s.ledger.Pipeline(s.base, name)
		switch {
		case errors.Is(err, ErrNotFound):
			s.pool.LimitRuns(name, 0, int64(read), true)
		case err != nil:
			return false, rec, err
		default:
			s.pool.LimitRuns(name, rec.MaxRuns, int64(rec.Rev), false)
		}
	}
	return entered, rec, nil
}

// Release gives back everything that was taken, but for the place within the run limit of the pipeline. The run keeps this
// place until it has begun, has ended, or stays queued without a claim to it (see Stay).
func (h *host) Release() {
	for _, p := range h.taken {
		h.s.pool.Done(p.driver.calls, 0, nil)
		if p.ownWorker {
			h.ownWorker = true
		} else {
			h.s.pool.Release()
		}
	}
	h.taken = h.taken[:0]
}

// Listeners returns the names of the drivers that listen to a type, sorted.
func (h *host) Listeners(kind string) ([]string, error) { return h.s.listeners(h.s.base, kind) }

// Stray reports whether a call for the resource of the run that was given up has not returned.
func (h *host) Stray() bool { return h.s.pool.IsAway(h.runner.Key) }

// IsLive reports whether an engine is live.
func (h *host) IsLive(engine string) (bool, error) { return h.s.fleet.heir().isLive(engine) }

// Draining reports whether nothing new must start.
func (h *host) Draining() bool { return h.s.draining() || h.nobody || h.s.fleet.fenced() }

// newRun commits a new run together with the change that the run is for. The same commit starts the run if the run can
// start at once.
func (e *Engine) newRun(k record.Key, want *submission, rev store.Revision) (_ *Run, err error) {
	s, next := e.sched, want.next
	now := clock.Now()
	if s.fleet != nil {
		e.ids.After(next.Status.Run) // another engine can have made it, with another clock
	}
	id := e.ids.Next(now)
	rec := s.enqueueNewRun(k, id, now, want)
	if want.answer != nil {
		want.extra = append(want.extra, want.answer(id)...)
	}
	lane := record.Lane(next.Pipeline, k)
	if s.fleet != nil {
		asked, err := s.fleet.requests().preemption(s.base, next)
		if err != nil {
			return nil, err
		}
		want.extra = append(want.extra, asked...)
	}
	// The worker is reserved before the pool knows the runner: whoever gives all runs their turn meanwhile would have this one wait.
	ownWorker := next.Active == "" && next.Pending == id && !s.fleet.fenced() && s.pool.Reserve()
	r := s.createRunner(id, k, lane, rec)
	d, err := s.decideNewRun(r, want, rev, ownWorker, ownWorker)
	if errors.Is(err, errTooMuch) { // it begins in a commit of its own
		d.host.Release()
		d.recycle()
		d, err = s.decideNewRun(r, want, rev, ownWorker, false)
	}
	var first *attempt
	var created *Run
	committed := err == nil
	switch {
	case committed:
		created, first = e.dispatchNewRun(d, want, now)
	case errors.Is(err, errMoved):
		made := &record.RunState{ID: id, Rec: *d.t.Rec()}
		d.host.Release()
		s.dropForeign(r)
		if created, err = describeRun(s.base, e.ledger, id); err != nil {
			created, err = runOf(made, nil), nil // as it was made: what was asked for is on record, whatever the store says now
		}
	default:
		d.host.Release()
		s.forget(r)
		r.unload() // otherwise a message that came in the meantime would be handled as if the run existed
	}
	ownWorker = d.host.ownWorker
	if committed && d.t.More() {
		r.mu.Lock()
		r.inbox = append(r.inbox, message{})
		r.mu.Unlock()
	}
	d.recycle()
	if first != nil {
		s.startWorker(first)
	}
	if ownWorker {
		s.pool.Release() // no attempt needs the reserved worker
	}
	s.endCreation(r)
	switch {
	case s.fleet != nil && first == nil: // it waits, or was begun elsewhere
		s.fleet.recheck(next.Pending)
		s.fleet.look()
	case s.fleet == nil && err == nil && next.Deleted != 0 && next.Pending != "" && next.Pending != id:
		s.enqueue(s.take(next.Pending, k, lane)) // it must end without beginning, because of the deletion behind it
	}
	if errors.Is(err, store.ErrUnknown) {
		s.enqueue(s.take(id, k, lane)) // the run may be recorded
	}
	return created, err
}

// decideNewRun decides how a new run comes to exist, and commits the decision. starts reports whether the run can start in this
// commit.
func (s *scheduler) decideNewRun(r *runner, want *submission, rev store.Revision, ownWorker, starts bool) (d *decision, err error) {
	d = s.newDecision(r, nil, ownWorker)
	d.part.divisible, d.creates = starts, true
	d.t, err = run.New(&r.held, &run.Wanted{
		Head: want.next, Rev: rev, Before: want.before, Pipeline: want.pipeline, Spec: want.spec, Extra: want.extra, Start: starts,
	}, &d.in, s.view, &d.host, s.limits)
	if err == nil {
		err = d.commit()
	}
	return d, err
}

// enqueueNewRun returns the record of a new run, and makes the run the newest one in the resource's record want.next.
// It adds to want.extra what must be written for this.
func (s *scheduler) enqueueNewRun(k record.Key, id string, now time.Time, want *submission) record.Run {
	next := want.next
	next.LastRun++
	rec := record.Run{
		Type: k.Type, Name: k.Name, ResourceID: next.ID, Cause: want.cause, State: plan.Queued,
		Generation: next.Generation, Pipeline: next.Pipeline, Created: record.TimeOf(now),
		Of: want.repeat.Of, From: want.repeat.From, Newest: want.repeat.Newest,
		Number: next.LastRun, Origin: want.origin,
	}
	want.extra = append(want.extra, next.EnqueuePending(k, id, &rec, want.fixGeneration, s.fleet.requests().lane(next, k))...)
	want.extra = append(want.extra, next.CancelResync(k)...)
	next.Status.Phase, next.Status.Run, next.Status.Message = plan.Queued, id, ""
	return rec
}

// createRunner makes the runner of a run that is about to be committed. The pool knows the runner before the commit, so
// that everybody who sees the run in the store finds the runner. The runner is busy from the moment at which the pool knows it
// until endCreation is called: whoever gave it a turn before would not find the run in the store, and would drop the runner.
func (s *scheduler) createRunner(id string, k record.Key, lane string, rec record.Run) *runner {
	r := &runner{task: task{ID: id, Key: k}, busy: true}
	r.Owner = r
	r.wakeLocked()
	r.log, r.outputs = s.newLog(id, 0), map[string]json.RawMessage{}
	r.held.Run = &record.RunState{ID: id, Rec: rec}
	return s.pool.Take(id, lane, uint8(plan.Queued), func() *task { return &r.task }).Owner
}

// dispatchNewRun carries out the committed transition of a new run. It returns the run, and the attempt that needs the
// worker which the caller has reserved, or nil.
func (e *Engine) dispatchNewRun(d *decision, want *submission, now time.Time) (created *Run, first *attempt) {
	created = runOf(d.runner.held.Run, nil)
	*want.next = *d.t.Head()
	if want.write {
		e.events.publish(Event{Time: now, Kind: EventResource, Resource: Key(d.runner.Key), By: want.origin.By})
	}
	if !d.t.Begun() {
		e.events.publish(runEvent(d.runner.ID, d.t.Rec(), clock.Now()))
	}
	return created, d.dispatch(d.t.More())
}

// endCreation ends the time in which a runner is busy with the creation of its run, and has the messages handled that
// came in the meantime.
func (s *scheduler) endCreation(r *runner) {
	r.mu.Lock()
	r.busy = false
	again := len(r.inbox) > 0
	r.restLocked()
	r.mu.Unlock()
	if !again || s.background.Go(func() { s.drive(r, message{}, false) }) {
		return
	}
	r.mu.Lock()
	var inbox []message
	if r.loaded != nil {
		inbox, r.inbox = r.inbox, nil
	}
	r.mu.Unlock()
	s.answer(inbox, ErrClosed) // otherwise a caller of Cancel would wait for ever
}
