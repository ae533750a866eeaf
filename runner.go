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

// listEvents lists what has happened with a transition, for those who watch.
func (d *decision) listEvents() []Event {
	changes := d.t.Changes()
	if len(changes) == 0 {
		return nil
	}
	now, key := time.Now(), Key(d.j.Key)
	for _, c := range changes {
		e := Event{Time: now, Kind: EventRun, Resource: key, Run: d.j.ID, State: State(c.State), Reason: c.Reason}
		switch {
		case c.Removed:
			e = Event{Time: now, Kind: EventResource, Resource: key, Reason: "deleted"}
		case c.Step != "":
			e.Kind, e.Step, e.Attempt = EventStep, c.Step, c.Attempt
		}
		d.events = append(d.events, e)
	}
	return d.events
}

func runEvent(j *journey, rec *record.Run) Event {
	return Event{Time: time.Now(), Kind: EventRun, Resource: Key(j.Key), Run: j.ID, State: State(rec.State), Reason: rec.Reason}
}

// host grants what a decision about one run needs: a place for a step that may start, and one for a run among those of its
// pipeline. It is the [run.Host] of that run.
type host struct {
	s     *scheduler
	j     *journey
	spare bool // the worker that decides can go on with a step
	taken []place
	room  bool // a place among the runs of the pipeline was taken
}

// place is what was taken for a step.
type place struct {
	driver *driver
	spare  bool // runs in the place of the worker that decides
}

func (h *host) Start(name string, finalize bool) run.Grant {
	s := h.s
	driver := s.driver(name, h.j)
	if driver == nil {
		return run.NoDriver
	}
	if _, ok := driver.impl.(Finalizer); finalize && !ok {
		return run.NotNeeded
	}
	if s.pool.Hold(&h.j.task) {
		return run.Later
	}
	onSpare := h.spare
	if !onSpare && !s.pool.Reserve() {
		return run.NoWorker
	}
	h.spare = false
	if !s.pool.Acquire(driver.calls, &h.j.task) {
		if onSpare {
			h.spare = true
		} else {
			s.pool.Release()
		}
		return run.Later
	}
	h.taken = append(h.taken, place{driver, onSpare})
	return run.Granted
}

// Enter finds out whether there is room for another run of a pipeline, and returns its record as it is now.
func (h *host) Enter(name string, rec *record.Pipeline) (entered bool, now *record.Pipeline, err error) {
	s := h.s
	if rec == nil {
		rec, _, err = s.ledger.Pipeline(s.base, name)
		if err != nil && !errors.Is(err, ErrNotFound) { // and if it is that, the run ends at once
			return false, rec, err
		}
	}
	known, limit := rec != nil, 0
	var asOf int64
	if known {
		limit, asOf = rec.MaxRuns, int64(rec.Rev)
	}
	entered, first := s.pool.AcquireRun(name, known, limit, asOf, &h.j.task)
	h.room = entered
	if first && known {
		// The pipeline may have been deleted since it was read, and its room been given up, with its Planner. One that is
		// deleted from here on keeps them as long as this run is in the room.
		read := rec.Rev
		rec, _, err = s.ledger.Pipeline(s.base, name)
		switch {
		case errors.Is(err, ErrNotFound):
			s.limitRuns(name, 0, read, true)
		case err != nil:
			return false, rec, err
		default:
			s.limitRuns(name, rec.MaxRuns, rec.Rev, false)
		}
	}
	return entered, rec, nil
}

// leave gives back the place among the runs of the pipeline.
func (h *host) leave() {
	if h.room {
		h.room = false
		h.s.pool.ReleaseRun(&h.j.task)
	}
}

// Release gives back all that was taken.
func (h *host) Release() {
	for _, p := range h.taken {
		h.s.pool.Done(p.driver.calls, 0)
		if p.spare {
			h.spare = true
		} else {
			h.s.pool.Release()
		}
	}
	h.taken = h.taken[:0]
	h.leave()
}

func (h *host) Listeners(kind string) []string { return h.s.drivers.listeners(kind) }

func (h *host) Draining() bool { return h.s.draining() }

// journey is an unfinished run as the scheduler holds it. Between two things that happen to it, only this remains in
// memory; its records are read again when it goes on.
//
// All that happens to a run goes through drive: messages are put into its inbox, and whoever finds it idle works the
// inbox off. So its records are changed by one goroutine at a time, without a lock being held while they are written.
type journey struct {
	task

	mu      sync.Mutex // guards what follows, up to the next blank line
	inbox   []message
	read    []message // an inbox that was worked off, for the next messages
	busy    bool
	flying  []*attempt // recorded as started, outcome not recorded
	strewn  int        // how often a signal or a checkpoint of it was kept, which go with its end; 0 for none of them
	outputs map[string]json.RawMessage
	log     *runlog.Log

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

// decision is what a look at a run needs besides the run itself.
type decision struct {
	j      *journey
	inbox  []message
	in     run.Input
	host   host
	made   []*attempt      // for the steps that start, in the order of the transition
	events []Event         // what listEvents returns
	strewn int             // of the journey, when this was decided
	t      *run.Transition // nil until it is decided
}

// decisions are used again, since every step of every run needs one.
var decisions = sync.Pool{New: func() any { return new(decision) }}

func (s *scheduler) newDecision(j *journey, inbox []message, spare bool) *decision {
	d := decisions.Get().(*decision)
	d.j, d.inbox = j, inbox
	d.in.Now = record.TimeOf(time.Now())
	d.host.s, d.host.j, d.host.spare = s, j, spare
	return d
}

// recycle gives a decision up.
func (d *decision) recycle() {
	if d.t != nil {
		d.t.Recycle()
	}
	clear(d.in.Outcomes)
	clear(d.in.Stops)
	clear(d.host.taken)
	clear(d.made)
	clear(d.events)
	*d = decision{
		events: d.events[:0],
		in:     run.Input{Outcomes: d.in.Outcomes[:0], Stops: d.in.Stops[:0]},
		host:   host{taken: d.host.taken[:0]}, made: d.made[:0],
	}
	decisions.Put(d)
}

// drive hands a message to a run and, unless somebody else is about it, does all that can be done. For a worker it
// returns the attempt to go on with, if there is one; other attempts are given to workers of their own.
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
		j.inbox, j.read = j.read[:0], nil
		j.mu.Unlock()
		if a := s.advance(j, inbox, worker && mine == nil); a != nil {
			mine = a
		}
		clear(inbox)
		j.mu.Lock()
		j.read = inbox
	}
	j.busy = false
	j.mu.Unlock()
	s.pool.ReturnGrants(&j.task)
	return mine
}

// advance records what messages say and what may start because of it. It does not give up before that is on record,
// however often the store fails, unless the scheduler gives up.
func (s *scheduler) advance(j *journey, inbox []message, spare bool) (mine *attempt) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		d := s.newDecision(j, inbox, spare)
		err := s.decide(d)
		if err == nil {
			err = s.commit(d)
		}
		if err == nil {
			mine = s.adopt(d)
			d.recycle()
			return mine
		}
		d.host.Release()
		d.recycle()
		switch {
		case errors.Is(err, errEnded):
			s.answer(inbox, fmt.Errorf("%w: run %s has ended", ErrConflict, j.ID))
			s.forget(j)
			s.sweepLate(j) // what wakes it may be a signal that came with its end
			return nil
		case errors.Is(err, store.ErrConflict):
			if s.changed(j) {
				pause = firstPause / 2
				continue
			}
			s.lose(j, err)
			s.answer(inbox, err)
			return nil
		case ledger.Permanent(err) && j.held.Rev != 0 && s.changed(j):
			// What belongs to the resource's record, such as the place of a run in line, was gone when it was read, since
			// the record had become another one.
			pause = firstPause / 2
			continue
		case ledger.Permanent(err):
			s.log.Error("run cannot go on", "run", j.ID, "resource", j.Key.String(), "error", err)
			s.answer(inbox, err)
			if errors.Is(err, store.ErrClosed) {
				s.dismiss(j)
			}
			return nil
		}
		s.log.Warn("store failed; trying again", "run", j.ID, "error", err, "after", pause)
		if !s.pause(pause) {
			s.answer(inbox, ErrClosed)
			if j.owes(inbox) {
				s.mu.Lock()
				s.lost = append(s.lost, loss{j, err})
				s.mu.Unlock()
			}
			return nil
		}
	}
}

// decide works out what messages change. If it fails, what it has taken must be given back.
func (s *scheduler) decide(d *decision) (err error) {
	j := d.j
	if err := s.open(j); err != nil {
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
	if j.log != nil {
		d.in.Lines = j.log
	}
	j.mu.Lock()
	d.strewn = j.strewn
	j.mu.Unlock()
	d.in.Leftovers = d.strewn > 0
	d.t, err = run.Next(&j.held, &d.in, s.view, &d.host, s.limits)
	return err
}

// owes says that something has happened which is to be recorded, and not only what might start.
func (j *journey) owes(inbox []message) bool {
	return j.log != nil && len(j.log.Unwritten()) > 0 || slices.ContainsFunc(inbox, func(m message) bool { return m.outcome != nil })
}

// loss is a run of which something could not be recorded.
type loss struct {
	journey *journey
	err     error // of the store
}

// pause waits, and reports false if the scheduler gives up first.
func (s *scheduler) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-s.giveUp:
		return false
	}
}

// insist repeats what a failing store holds up, until it is done, cannot be done, or the scheduler gives up.
func (s *scheduler) insist(what string, do func() error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := do()
		if err == nil || ledger.Permanent(err) {
			return
		}
		s.log.Warn("store failed; trying again", "work", what, "error", err, "after", pause)
		if !s.pause(pause) {
			return
		}
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
	before := j.held.Rev
	j.held.Head, j.held.Rev = nil, 0
	head, rev, err := s.ledger.Resource(s.base, j.Key)
	if err != nil {
		return true // read again, and fail there
	}
	j.held.Head, j.held.Rev = head, rev
	return rev != before
}

// lose gives up a run that somebody else has changed: another engine on the same store.
func (s *scheduler) lose(j *journey, err error) {
	s.log.Error("run was changed by somebody else; leaving it alone", "run", j.ID, "resource", j.Key.String(), "error", err)
	j.mu.Lock()
	flying := slices.Clone(j.flying)
	j.mu.Unlock()
	for _, a := range flying {
		a.Cancel(fmt.Errorf("%w: run %s was changed by somebody else", ErrConflict, j.ID))
		s.disown(a)
	}
	s.forget(j)
	j.unload()
}

// open reads the records of a run into its journey, unless they are there.
func (s *scheduler) open(j *journey) error {
	if j.held.Run != nil {
		return nil
	}
	state, err := s.ledger.Run(s.base, j.ID)
	if errors.Is(err, ErrNotFound) {
		return errEnded
	}
	if err != nil {
		return err
	}
	if state.Rec.State.Final() {
		return errEnded
	}
	log := runlog.New(j.ID, 0)
	outputs := map[string]json.RawMessage{}
	if state.Plan != nil {
		last, err := s.ledger.LastLine(s.base, j.ID)
		if err != nil {
			return err
		}
		log = runlog.New(j.ID, last)
		revision, err := s.ledger.Revision(s.base, state.Rec.Key(), state.Rec.Generation)
		if err != nil {
			return err
		}
		j.held.Spec = revision.Spec
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
	j.held.Run = state
	j.mu.Lock()
	j.log, j.outputs = log, outputs
	j.mu.Unlock()
	return nil
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
	for pause := firstPause; errors.Is(err, store.ErrUnknown) && !ledger.Permanent(err); pause = min(2*pause, longestPause) {
		if !s.pause(pause) {
			return err
		}
		rev, err = s.ledger.FindOut(s.base, ops, err)
	}
	if err != nil {
		return err
	}
	if last := d.t.Logged(); last > 0 {
		d.j.log.Written(last)
	}
	d.t.Committed(rev)
	return nil
}

// adopt carries out what was committed, and has the attempts made. That which takes the caller's place, if there is one,
// is returned instead.
func (s *scheduler) adopt(d *decision) (mine *attempt) {
	j, t := d.j, d.t
	if t.Idle() {
		d.host.leave()
	}
	j.mu.Lock()
	for _, m := range d.inbox {
		if m.outcome != nil {
			done := m.outcome.attempt
			j.flying = slices.DeleteFunc(j.flying, func(f *attempt) bool { return f == done })
		}
	}
	for step, output := range t.Outputs {
		j.outputs[step] = output
	}
	var before []*attempt
	if t.Stop() != nil {
		before = slices.Clone(j.flying)
	}
	for k, i := range t.Starts() {
		a := s.newAttempt(j, t.Plan(), i, t.Step(i), d.host.taken[k].driver, t.Rec().Deadline)
		j.flying = append(j.flying, a)
		d.made = append(d.made, a)
		a.Watch()
	}
	flying := len(j.flying) > 0
	j.mu.Unlock()
	if s.ending.Load() {
		for _, a := range d.made {
			a.Cancel(ErrShutdown)
		}
	}

	s.events.publish(d.listEvents()...)
	for _, a := range before {
		a.End(t.Stop())
	}
	s.park(d, flying)
	for _, m := range d.inbox { // after that, so that who is answered finds the run where it now belongs
		if m.stop != nil {
			m.stop.answer <- nil
		}
	}
	if t.Over() && t.Head() != nil {
		s.upkeep.resyncAt(t.Head().Resync)
	}
	if by := t.Preempts(); by != nil {
		s.displace(j.Key, by)
	}
	if t.Over() && t.Rec().State == plan.Skipped && len(s.drivers.listeners(j.Key.Type)) > 0 {
		s.upkeep.reconcileUnlistened(j.Key.Type) // a driver was registered meanwhile, and has not found this on record
	}
	for k, a := range d.made {
		if d.host.taken[k].spare {
			mine = a
		} else {
			s.employ(a)
		}
	}
	return mine
}

// park sees to it that the run is looked at when it can go on, and keeps in memory only what is being worked on.
func (s *scheduler) park(d *decision, flying bool) {
	j, t := d.j, d.t
	if t.Over() {
		for _, w := range s.drop(j, t.Rec().State) {
			w <- wholeRun(j.held.Run)
		}
		j.unload() // or else what wakes it now would end it once more
		j.mu.Lock()
		late := j.strewn != d.strewn // since this was decided
		j.mu.Unlock()
		if t.LeavesLeftovers() || late {
			s.sweepLate(j)
		}
		if head := t.Head(); head != nil && head.Pending != "" {
			s.enqueue(s.take(head.Pending, j.Key, laneOf(head.Pipeline, j.Key)))
		}
		s.upkeep.prune(j.Key)
		return
	}
	s.schedule(j, t.NextDue(), j.held.Run.State(), len(d.made))
	if t.NeedsWorker() {
		s.enqueue(j)
	}
	if !flying && (!t.NeedsWorker() || s.crowded()) {
		j.unload()
	}
}

// maxLoaded bounds the runs that are kept in memory while they wait for a worker. Those beyond it are read again when they go
// on.
const maxLoaded = 1_024

func (s *scheduler) crowded() bool { return s.pool.Waiting() > maxLoaded }

// unload leaves what is known of a run to the store, where it is read again if the run goes on.
func (j *journey) unload() {
	j.held = run.State{}
	j.mu.Lock()
	j.log, j.outputs, j.read = nil, nil, nil
	j.mu.Unlock()
}

// displace ends the run that another one waits behind. It is not waited for, since a store that fails would hold up
// the caller, whose own change is on record: that run's end wakes the other.
func (s *scheduler) displace(k record.Key, by *run.Preemption) {
	stop := stopRequest{by.Stop, make(chan error, 1)}
	s.beside(func() { s.drive(s.take(by.Run, k, ""), message{stop: &stop}, false) })
}

// stopRun asks a run to end and waits until that is on record.
func (s *scheduler) stopRun(ctx context.Context, of *record.RunState, kind plan.Stop, cause error, reason string) error {
	answer := make(chan error, 1)
	j := s.take(of.ID, of.Rec.Key(), laneOf(of.Rec.Pipeline, of.Rec.Key()))
	ask := message{stop: &stopRequest{run.StopRequest{Kind: kind, Reason: reason, Cause: cause}, answer}}
	if !s.beside(func() { s.drive(j, ask, false) }) {
		return ErrClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// strew takes note that there are records of a run that nobody wants after its end.
func (j *journey) strew() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.strewn++
}

// sweepLate removes what is left of them after the end.
func (s *scheduler) sweepLate(j *journey) {
	s.beside(func() {
		s.insist("tidy run "+j.ID, func() error { return s.ledger.RemoveAll(s.base, ledger.Leftovers(j.ID)...) })
	})
}

// laneOf names the lane of a run: its pipeline, or the type of a resource that has none.
func laneOf(pipeline string, k record.Key) string {
	if pipeline == "" {
		return "/" + k.Type
	}
	return pipeline
}
