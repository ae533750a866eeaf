package conveyor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/store"
)

// journey is an unfinished run as the scheduler holds it. Between two things that happen to it, only this remains in
// memory; its records are read again when it goes on.
//
// All that happens to a run goes through drive: messages are put into its inbox, and whoever finds it idle works the
// inbox off. So its records are changed by one goroutine at a time, without a lock being held while they are written.
type runner struct {
	task

	mu         sync.Mutex // guards what follows, up to the next blank line
	inbox      []message
	spareInbox []message // an inbox that was worked off, for the next messages
	busy       bool
	inFlight   []*attempt // recorded as started, outcome not recorded
	leftovers  int        // how often a signal or a checkpoint of it was kept, which go with its end; 0 for none of them
	outputs    map[string]json.RawMessage
	log        *runlog.Log

	// Owned by whoever set busy. Its Run is nil when it must be read from the store.
	held run.State
}

// message is something that happened to a run. The zero message is a mere "look again".
type message struct {
	outcome *outcome
	stop    *stopRequest
}

// stopRequest asks that a run end. The answer is nil when that is on record.
type stopRequest struct {
	run.StopRequest
	answer chan<- error // size 1, so that nobody waits to answer
}

// drive hands a message to a run and, unless somebody else is about it, does all that can be done. For a worker it
// returns the attempt to go on with, if there is one; other attempts are given to workers of their own.
func (s *scheduler) drive(r *runner, m message, worker bool) (next *attempt) {
	r.mu.Lock()
	r.inbox = append(r.inbox, m)
	if r.busy {
		r.mu.Unlock()
		return nil
	}
	r.busy = true
	for len(r.inbox) > 0 {
		inbox := r.inbox
		r.inbox, r.spareInbox = r.spareInbox[:0], nil
		r.mu.Unlock()
		if a := s.advance(r, inbox, worker && next == nil); a != nil {
			next = a
		}
		clear(inbox)
		r.mu.Lock()
		r.spareInbox = inbox
	}
	r.busy = false
	r.mu.Unlock()
	s.pool.ReturnGrants(&r.task)
	return next
}

// advance records what messages say and what may start because of it. It does not give up before that is on record,
// however often the store fails, unless the scheduler gives up.
func (s *scheduler) advance(r *runner, inbox []message, spare bool) (next *attempt) {
	for pause := firstDelay; ; pause = min(2*pause, longestDelay) {
		d := s.newDecision(r, inbox, spare)
		err := s.decide(d)
		if err == nil {
			err = s.commit(d)
		}
		if err == nil {
			next = s.dispatch(d)
			d.recycle()
			return next
		}
		d.host.Release()
		d.recycle()
		switch {
		case errors.Is(err, errEnded):
			s.answer(inbox, fmt.Errorf("%w: run %s has ended", ErrConflict, r.ID))
			s.forget(r)
			s.deleteLeftovers(r) // what wakes it may be a signal that came with its end
			return nil
		case errors.Is(err, store.ErrConflict):
			if s.changed(r) {
				pause = firstDelay / 2
				continue
			}
			s.loseOwnership(r, err)
			s.answer(inbox, err)
			return nil
		case ledger.Permanent(err) && r.held.Rev != 0 && s.changed(r):
			// What belongs to the resource's record, such as the place of a run in line, was gone when it was read, since
			// the record had become another one.
			pause = firstDelay / 2
			continue
		case ledger.Permanent(err):
			s.log.Error("run cannot go on", "run", r.ID, "resource", r.Key.String(), "error", err)
			s.answer(inbox, err)
			if errors.Is(err, store.ErrClosed) {
				s.failWaiters(r)
			}
			return nil
		}
		s.log.Warn("store failed; trying again", "run", r.ID, "error", err, "after", pause)
		if !s.sleep(pause) {
			s.answer(inbox, ErrClosed)
			if r.hasUnrecorded(inbox) {
				s.mu.Lock()
				s.unrecordedRuns = append(s.unrecordedRuns, loss{r, err})
				s.mu.Unlock()
			}
			return nil
		}
	}
}

// decide works out what messages change. If it fails, what it has taken must be given back.
func (s *scheduler) decide(d *decision) (err error) {
	r := d.runner
	if err := s.load(r); err != nil {
		return err
	}
	for _, m := range d.inbox {
		if m.outcome != nil {
			d.in.Outcomes = append(d.in.Outcomes, m.outcome.value(s.opts.Retry))
		}
		if m.stop != nil {
			d.in.Stops = append(d.in.Stops, &m.stop.StopRequest)
		}
	}
	if r.log != nil {
		d.in.Lines = r.log
	}
	r.mu.Lock()
	d.leftovers = r.leftovers
	r.mu.Unlock()
	d.in.Leftovers = d.leftovers > 0
	d.t, err = run.Next(&r.held, &d.in, s.view, &d.host, s.limits)
	return err
}

// commit writes a transition: all of it or nothing.
//
// A crash before it leaves what the last commit said, and a step recorded as running there is called again with
// Resumed set. A crash after it finds the starts recorded and their drivers perhaps not called, which is the same.
func (s *scheduler) commit(d *decision) error {
	ops := d.t.Ops()
	if len(ops) == 0 {
		return nil
	}
	rev, err := s.ledger.Commit(s.base, ops)
	for pause := firstDelay; errors.Is(err, store.ErrUnknown) && !ledger.Permanent(err); pause = min(2*pause, longestDelay) {
		if !s.sleep(pause) {
			return err
		}
		rev, err = s.ledger.FindOut(s.base, ops, err)
	}
	if err != nil {
		return err
	}
	if last := d.t.Logged(); last > 0 {
		d.runner.log.Written(last)
	}
	d.t.Committed(rev)
	return nil
}

// adopt carries out what was committed, and has the attempts made. That which takes the caller's place, if there is one,
// is returned instead.
func (s *scheduler) dispatch(d *decision) (next *attempt) {
	r, t := d.runner, d.t
	if t.Idle() {
		d.host.leave()
	}
	r.mu.Lock()
	for _, m := range d.inbox {
		if m.outcome != nil {
			done := m.outcome.attempt
			r.inFlight = slices.DeleteFunc(r.inFlight, func(f *attempt) bool { return f == done })
		}
	}
	for step, output := range t.Outputs {
		r.outputs[step] = output
	}
	var before []*attempt
	if t.Stop() != nil {
		before = slices.Clone(r.inFlight)
	}
	for k, i := range t.Starts() {
		a := s.newAttempt(r, t.Plan(), i, t.Step(i), d.host.taken[k].driver, t.Rec().Deadline)
		r.inFlight = append(r.inFlight, a)
		d.made = append(d.made, a)
		a.Watch()
	}
	flying := len(r.inFlight) > 0
	r.mu.Unlock()
	if s.ending.Load() {
		for _, a := range d.made {
			a.Cancel(ErrShutdown)
		}
	}

	s.events.publish(d.listEvents()...)
	for _, a := range before {
		a.End(t.Stop())
	}
	s.suspend(d, flying)
	for _, m := range d.inbox { // after that, so that who is answered finds the run where it now belongs
		if m.stop != nil {
			m.stop.answer <- nil
		}
	}
	if t.Over() && t.Head() != nil {
		s.upkeep.resyncAt(t.Head().Resync)
	}
	if by := t.Preempts(); by != nil {
		s.preempt(r.Key, by)
	}
	if t.Over() && t.Rec().State == plan.Skipped && len(s.drivers.listeners(r.Key.Type)) > 0 {
		s.upkeep.reconcileUnlistened(r.Key.Type) // a driver was registered meanwhile, and has not found this on record
	}
	for k, a := range d.made {
		if d.host.taken[k].ownWorker {
			next = a
		} else {
			s.startWorker(a)
		}
	}
	return next
}

// park sees to it that the run is looked at when it can go on, and keeps in memory only what is being worked on.
func (s *scheduler) suspend(d *decision, flying bool) {
	r, t := d.runner, d.t
	if t.Over() {
		for _, w := range s.drop(r, t.Rec().State) {
			w <- wholeRun(r.held.Run)
		}
		r.unload() // or else what wakes it now would end it once more
		r.mu.Lock()
		late := r.leftovers != d.leftovers // since this was decided
		r.mu.Unlock()
		if t.LeavesLeftovers() || late {
			s.deleteLeftovers(r)
		}
		if head := t.Head(); head != nil && head.Pending != "" {
			s.enqueue(s.take(head.Pending, r.Key, laneOf(head.Pipeline, r.Key)))
		}
		s.upkeep.prune(r.Key)
		return
	}
	s.schedule(r, t.NextDue(), r.held.Run.State(), len(d.made))
	if t.NeedsWorker() {
		s.enqueue(r)
	}
	if !flying && (!t.NeedsWorker() || s.crowded()) {
		r.unload()
	}
}

// maxLoaded bounds the runs that are kept in memory while they wait for a worker. Those beyond it are read again when they go
// on.
const maxLoaded = 1_024

func (s *scheduler) crowded() bool { return s.pool.Waiting() > maxLoaded }

// unload leaves what is known of a run to the store, where it is read again if the run goes on.
func (r *runner) unload() {
	r.held = run.State{}
	r.mu.Lock()
	r.log, r.outputs, r.spareInbox = nil, nil, nil
	r.mu.Unlock()
}

// open reads the records of a run into its journey, unless they are there.
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
	log := runlog.New(r.ID, 0)
	outputs := map[string]json.RawMessage{}
	if state.Plan != nil {
		last, err := s.ledger.LastLine(s.base, r.ID)
		if err != nil {
			return err
		}
		log = runlog.New(r.ID, last)
		revision, err := s.ledger.Revision(s.base, state.Rec.Key(), state.Rec.Generation)
		if err != nil {
			return err
		}
		r.held.Spec = revision.Spec
		for i := range state.Steps {
			rec := &state.Steps[i].Rec
			id := state.Plan.Step(i).ID
			log.SetKept(id, rec.Lines)
			if len(rec.Output) > 0 {
				outputs[id] = rec.Output
			}
			if rec.State == plan.Running {
				// No attempt of this process: the one that made the record died. The record is put right when
				// the step goes on; until then it says what it said.
				rec.Interrupt()
				rec.Crashes++
			}
		}
	}
	r.held.Run = state
	r.mu.Lock()
	r.log, r.outputs = log, outputs
	r.mu.Unlock()
	return nil
}

// output is [Request.Output] for the attempts of this run.
func (r *runner) output(step string) (json.RawMessage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.outputs[step]
	if !ok {
		return nil, fmt.Errorf("%w: output of step %q", ErrNotFound, step)
	}
	return data, nil
}

// strew takes note that there are records of a run that nobody wants after its end.
func (r *runner) noteLeftovers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leftovers++
}

// sweepLate removes what is left of them after the end.
func (s *scheduler) deleteLeftovers(r *runner) {
	s.goBackground(func() {
		s.retryStore("tidy run "+r.ID, func() error { return s.ledger.RemoveAll(s.base, ledger.Leftovers(r.ID)...) })
	})
}

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
func (s *scheduler) changed(r *runner) bool {
	before := r.held.Rev
	r.held.Head, r.held.Rev = nil, 0
	head, rev, err := s.ledger.Resource(s.base, r.Key)
	if err != nil {
		return true // read again, and fail there
	}
	r.held.Head, r.held.Rev = head, rev
	return rev != before
}

// lose gives up a run that somebody else has changed: another engine on the same store.
func (s *scheduler) loseOwnership(r *runner, err error) {
	s.log.Error("run was changed by somebody else; leaving it alone", "run", r.ID, "resource", r.Key.String(), "error", err)
	r.mu.Lock()
	flying := slices.Clone(r.inFlight)
	r.mu.Unlock()
	for _, a := range flying {
		a.Cancel(fmt.Errorf("%w: run %s was changed by somebody else", ErrConflict, r.ID))
		s.giveUpCall(a)
	}
	s.forget(r)
	r.unload()
}

// loss is a run of which something could not be recorded.
type loss struct {
	runner *runner
	err    error // of the store
}

// owes says that something has happened which is to be recorded, and not only what might start.
func (r *runner) hasUnrecorded(inbox []message) bool {
	return r.log != nil && len(r.log.Unwritten()) > 0 || slices.ContainsFunc(inbox, func(m message) bool { return m.outcome != nil })
}

const (
	firstDelay   = 50 * time.Millisecond
	longestDelay = 5 * time.Second
)

// insist repeats what a failing store holds up, until it is done, cannot be done, or the scheduler gives up.
func (s *scheduler) retryStore(what string, do func() error) {
	for pause := firstDelay; ; pause = min(2*pause, longestDelay) {
		err := do()
		if err == nil || ledger.Permanent(err) {
			return
		}
		s.log.Warn("store failed; trying again", "work", what, "error", err, "after", pause)
		if !s.sleep(pause) {
			return
		}
	}
}

// pause waits, and reports false if the scheduler gives up first.
func (s *scheduler) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-s.stopRetrying:
		return false
	}
}

// displace ends the run that another one waits behind. It is not waited for, since a store that fails would hold up
// the caller, whose own change is on record: that run's end wakes the other.
func (s *scheduler) preempt(k record.Key, by *run.Preemption) {
	stop := stopRequest{by.Stop, make(chan error, 1)}
	s.goBackground(func() { s.drive(s.take(by.Run, k, ""), message{stop: &stop}, false) })
}

// stopRun asks a run to end and waits until that is on record.
func (s *scheduler) stopRun(ctx context.Context, of *record.RunState, kind plan.Stop, cause error, reason string) error {
	answer := make(chan error, 1)
	r := s.take(of.ID, of.Rec.Key(), laneOf(of.Rec.Pipeline, of.Rec.Key()))
	ask := message{stop: &stopRequest{run.StopRequest{Kind: kind, Reason: reason, Cause: cause}, answer}}
	if !s.goBackground(func() { s.drive(r, ask, false) }) {
		return ErrClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func runEvent(r *runner, rec *record.Run) Event {
	return Event{Time: time.Now(), Kind: EventRun, Resource: Key(r.Key), Run: r.ID, State: State(rec.State), Reason: rec.Reason}
}

// laneOf names the lane of a run: its pipeline, or the type of a resource that has none.
func laneOf(pipeline string, k record.Key) string {
	if pipeline == "" {
		return "/" + k.Type
	}
	return pipeline
}
