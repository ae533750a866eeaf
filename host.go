package conveyor

import (
	"errors"

	"github.com/conveyor-go/conveyor/internal/record"
)

// A granter grants what a decision needs to be carried out: a place for a step that may start, and one for a run among those
// of its pipeline. What it has granted is given back if the decision does not become true.
type granter interface {
	start(driver string, finalize bool) grant
	enter(pipeline string, rec *record.Pipeline) (entered bool, now *record.Pipeline, err error)
	leave()
	listeners(kind string) []string
	draining() bool
}

// grant is what a step gets that asks to start.
type grant uint8

const (
	noDriver  grant = iota + 1 // the driver is not registered
	notNeeded                  // the driver has nothing to finalize
	wakesIt                    // not now; the run is woken when there may be a place
	noWorker                   // not now; the run is to be looked at when a worker is free
	granted
)

// hosting is the granter of one run.
type hosting struct {
	s     *scheduler
	j     *journey
	spare bool // the worker that makes the draft can go on with a step
	taken []place
	room  bool // a place among the runs of the pipeline was taken
}

// place is what was taken for a step.
type place struct {
	driver *driver
	spare  bool // runs in the place of the worker that made the draft
}

func (h *hosting) start(name string, finalize bool) grant {
	s := h.s
	driver := s.driver(name, h.j)
	if driver == nil {
		return noDriver
	}
	if _, ok := driver.impl.(Finalizer); finalize && !ok {
		return notNeeded
	}
	if s.pool.Hold(&h.j.task) {
		return wakesIt
	}
	onSpare := h.spare
	if !onSpare && !s.pool.Reserve() {
		return noWorker
	}
	h.spare = false
	if !s.pool.Acquire(driver.calls, &h.j.task) {
		if onSpare {
			h.spare = true
		} else {
			s.pool.Release()
		}
		return wakesIt
	}
	h.taken = append(h.taken, place{driver, onSpare})
	return granted
}

// enter finds out whether there is room for another run of a pipeline, and returns its record as it is now.
func (h *hosting) enter(name string, rec *record.Pipeline) (entered bool, now *record.Pipeline, err error) {
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
func (h *hosting) leave() {
	if h.room {
		h.room = false
		h.s.pool.ReleaseRun(&h.j.task)
	}
}

// release gives back all that was taken.
func (h *hosting) release() {
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

func (h *hosting) listeners(kind string) []string { return h.s.drivers.listeners(kind) }

func (h *hosting) draining() bool { return h.s.draining() }
