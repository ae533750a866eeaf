package conveyor

import (
	"errors"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
)

// decision is what a look at a run needs besides the run itself.
type decision struct {
	runner    *runner
	inbox     []message
	in        run.Input
	host      host
	made      []*attempt      // for the steps that start, in the order of the transition
	events    []Event         // what listEvents returns
	leftovers int             // of the journey, when this was decided
	t         *run.Transition // nil until it is decided
}

// decisions are used again, since every step of every run needs one.
var decisions = sync.Pool{New: func() any { return new(decision) }}

func (s *scheduler) newDecision(r *runner, inbox []message, spare bool) *decision {
	d := decisions.Get().(*decision)
	d.runner, d.inbox = r, inbox
	d.in.Now = record.TimeOf(time.Now())
	d.host.s, d.host.runner, d.host.ownWorker = s, r, spare
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

// listEvents lists what has happened with a transition, for those who watch.
func (d *decision) listEvents() []Event {
	changes := d.t.Changes()
	if len(changes) == 0 {
		return nil
	}
	now, key := time.Now(), Key(d.runner.Key)
	for _, c := range changes {
		e := Event{Time: now, Kind: EventRun, Resource: key, Run: d.runner.ID, State: State(c.State), Reason: c.Reason}
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

// host grants what a decision about one run needs: a place for a step that may start, and one for a run among those of its
// pipeline. It is the [run.Host] of that run.
type host struct {
	s          *scheduler
	runner     *runner
	ownWorker  bool // the worker that decides can go on with a step
	taken      []place
	enteredRun bool // a place among the runs of the pipeline was taken
}

// place is what was taken for a step.
type place struct {
	driver    *driver
	ownWorker bool // runs in the place of the worker that decides
}

func (h *host) Start(name string, finalize bool) run.Grant {
	s := h.s
	driver := s.driver(name, h.runner)
	if driver == nil {
		return run.NoDriver
	}
	if _, ok := driver.impl.(Finalizer); finalize && !ok {
		return run.NotNeeded
	}
	if s.pool.Hold(&h.runner.task) {
		return run.Later
	}
	onSpare := h.ownWorker
	if !onSpare && !s.pool.Reserve() {
		return run.NoWorker
	}
	h.ownWorker = false
	if !s.pool.Acquire(driver.calls, &h.runner.task) {
		if onSpare {
			h.ownWorker = true
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
	entered, first := s.pool.AcquireRun(name, known, limit, asOf, &h.runner.task)
	h.enteredRun = entered
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
	if h.enteredRun {
		h.enteredRun = false
		h.s.pool.ReleaseRun(&h.runner.task)
	}
}

// Release gives back all that was taken.
func (h *host) Release() {
	for _, p := range h.taken {
		h.s.pool.Done(p.driver.calls, 0)
		if p.ownWorker {
			h.ownWorker = true
		} else {
			h.s.pool.Release()
		}
	}
	h.taken = h.taken[:0]
	h.leave()
}

func (h *host) Listeners(kind string) []string { return h.s.drivers.listeners(kind) }

func (h *host) Draining() bool { return h.s.draining() }
