package conveyor

import (
	"errors"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
)

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
