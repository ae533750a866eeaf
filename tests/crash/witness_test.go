package crash_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// place is one step of one run.
type place struct{ run, step string }

// witness sees the calls of the drivers, from outside of the process and its store, and knows what must come next.
type witness struct {
	ordered bool
	after   map[string][]string // the steps that come before a step of a graph
	forgets bool                // runs are removed from the records

	mu        sync.Mutex // guards what follows
	closed    bool       // the process is dead: what its goroutines still do has not happened
	steps     map[place]*stepSeen
	resources map[string]conveyor.Key // by run
	order     []place                 // of first calls
	keys      map[string]place
	paused    map[string]bool // drivers whose pause was acknowledged, and whose end was not asked for
	problems  []string
}

// stepSeen is what is known of a step, and what may happen to it next.
type stepSeen struct {
	key      string // of every call
	calls    int
	underWay bool
	over     bool // may not be called again
	attempt  int  // number of the next call
	resumed  bool // of the next call
	due      time.Time
	told     conveyor.Event // the last one about it in this life
	progress int            // the last checkpoint that was acknowledged
	saving   int            // the last one that was begun
}

func (w *witness) at(p place) *stepSeen {
	if w.steps[p] == nil {
		w.steps[p] = &stepSeen{attempt: 1}
	}
	return w.steps[p]
}

func (w *witness) blame(p place, format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf("step %s of run %s: ", p.step, p.run)+fmt.Sprintf(format, args...))
}

func (w *witness) faults() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.problems)
}

func (w *witness) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// holds notes whether a driver is paused.
func (w *witness) holds(driver string, paused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused[driver] = paused
}

// witnessKey is the key of the witness among the values of a driver's context.
type witnessKey struct{}

// around is a driver that is seen. It has an answer for each step, or one for all.
func (w *witness) around(steps map[string]rig.Func, all rig.Func) rig.Func {
	return func(ctx context.Context, req *conveyor.Request) (result conveyor.Result, err error) {
		w.began(req)
		returned := false
		defer func() {
			if !returned {
				err = rig.ErrBoom // it panics
			}
			w.ended(req, result, err)
		}()
		step := steps[req.Step.ID]
		switch {
		case all != nil:
			step = all
		case step == nil:
			step = rig.Always(conveyor.DoneWith("of step "+req.Step.ID), nil)
		}
		result, err = step(context.WithValue(ctx, witnessKey{}, w), req)
		returned = true
		return result, err
	}
}

// undoing is a driver with a Finalize.
type undoing struct {
	conveyor.Driver
	undo rig.Func
}

func (f undoing) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return f.undo(ctx, req)
}

func (w *witness) began(req *conveyor.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	p := place{req.Run, req.Step.ID}
	s := w.at(p)
	w.resources[req.Run] = req.Resource.Key()
	now := time.Now()
	switch {
	case s.over:
		w.blame(p, "called though it is finished")
	case s.underWay:
		w.blame(p, "called while it is under way")
	case req.Attempt != s.attempt, req.Resumed != s.resumed:
		w.blame(p, "attempt %d, resumed %t; want %d, %t", req.Attempt, req.Resumed, s.attempt, s.resumed)
	case now.Before(s.due):
		w.blame(p, "called at %s, due at %s", now, s.due)
	case w.paused[req.Step.Driver] && s.calls == 0 && !req.Resumed:
		w.blame(p, "starts though driver %s is paused", req.Step.Driver)
	case s.calls > 0 && s.key != req.IdempotencyKey():
		w.blame(p, "key %s; was %s", req.IdempotencyKey(), s.key)
	}
	if s.calls == 0 {
		if other, taken := w.keys[req.IdempotencyKey()]; taken {
			w.blame(p, "has the key of step %s of run %s", other.step, other.run)
		}
		w.keys[req.IdempotencyKey()] = p
		w.order = append(w.order, p)
	}
	for _, step := range w.after[p.step] {
		if !w.at(place{p.run, step}).over {
			w.blame(p, "called though step %s is not finished", step)
		}
	}
	for _, earlier := range w.order {
		if earlier.run != p.run && w.at(earlier).underWay && w.resources[earlier.run] == w.resources[p.run] {
			w.blame(p, "called while run %s of the same resource is at work", earlier.run)
		}
		if w.ordered && earlier.run == p.run {
			w.inOrder(p, earlier, req.Cause == conveyor.CauseDeleted)
		}
	}
	s.key, s.underWay = req.IdempotencyKey(), true
	s.calls++
}

// inOrder looks at a step that was called before another of the same run. A deletion goes backwards. A cleanup comes
// after steps that have failed, which is no different from their being about to be called again.
func (w *witness) inOrder(p, earlier place, backwards bool) {
	before := earlier.step < p.step
	if backwards {
		before = earlier.step > p.step
	}
	cleanup := strings.HasPrefix(p.step, "f") && !strings.HasPrefix(earlier.step, "f")
	switch s := w.at(earlier); {
	case earlier == p:
	case !before:
		w.blame(p, "called after step %s", earlier.step)
	case s.underWay, !s.over && !cleanup:
		w.blame(p, "called though step %s is not finished", earlier.step)
	}
}

// restored hears what a step finds of its progress.
func (w *witness) restored(req *conveyor.Request, progress int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := place{req.Run, req.Step.ID}
	if s := w.at(p); !w.closed && (progress < s.progress || progress > s.saving) {
		w.blame(p, "finds checkpoint %d; %d was acknowledged, and %d begun", progress, s.progress, s.saving)
	}
}

func (w *witness) saving(req *conveyor.Request, progress int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.at(place{req.Run, req.Step.ID}).saving = progress
	}
}

func (w *witness) saved(req *conveyor.Request, progress int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.at(place{req.Run, req.Step.ID}).progress = progress
	}
}

func (w *witness) ended(req *conveyor.Request, result conveyor.Result, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	s := w.at(place{req.Run, req.Step.ID})
	s.underWay, s.resumed, s.due = false, false, time.Time{}
	switch {
	case err == errForGood:
		s.over = true
	case err != nil:
		s.attempt = req.Attempt + 1 // if there is a next one
	case result == conveyor.RequeueAfter(time.Second):
		s.due = time.Now().Add(time.Second)
	case result == conveyor.RequeueAfter(time.Minute):
		s.due = time.Now().Add(time.Minute)
	case result == conveyor.Await("go", 0), result == conveyor.Await("go", 5*time.Second):
	default:
		s.over = true
	}
}

// acknowledged hears of what the engine knows to be on record.
func (w *witness) acknowledged(event conveyor.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if event.Kind == conveyor.EventStep || event.Kind == conveyor.EventRun {
		s := w.at(place{event.Run, event.Step})
		s.told = event
		if event.Kind == conveyor.EventStep && event.State.Final() {
			s.over = true
		}
	}
}

// expect begins a new life of the process with what is on record.
func (w *witness) expect(runs []*conveyor.Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = false
	found := map[place]bool{}
	for _, run := range runs {
		p := place{run.ID, ""}
		found[p] = true
		if told := w.at(p).told; told.State.Final() && run.State != told.State {
			w.blame(p, "was %s, is %s on record", told.State, run.State)
		}
		for _, step := range run.Steps {
			p := place{run.ID, step.ID}
			found[p] = true
			w.expectStep(p, step)
		}
	}
	for p, s := range w.steps {
		if !found[p] && !w.forgets && (s.calls > 0 || s.told.Run != "") {
			w.blame(p, "is not on record")
		}
		s.told = conveyor.Event{}
	}
}

// expectStep derives from the record of a step how it must be called next.
func (w *witness) expectStep(p place, rec conveyor.StepRun) {
	s := w.at(p)
	if s.told.State.Final() && rec.State != s.told.State {
		w.blame(p, "was %s, is %s on record", s.told.State, rec.State)
	}
	if s.told.State == conveyor.StateRetrying && rec.State == conveyor.StateRunning && rec.Attempt == s.told.Attempt {
		w.blame(p, "the outcome of attempt %d is lost", rec.Attempt)
	}
	next := *s
	next.attempt, next.due, next.over = rec.Attempt, rec.Due, rec.State.Final()
	next.underWay, next.resumed = false, false
	switch rec.State {
	case conveyor.StateUnset, conveyor.StatePending:
		if s.calls > 0 {
			w.blame(p, "called, and its start is not on record")
		}
		next.attempt = 1
	case conveyor.StateRunning:
		next.resumed = true
	case conveyor.StateBlocked:
		next.resumed = s.resumed // it has not been called since
		next.attempt = max(rec.Attempt, 1)
	case conveyor.StateRetrying:
		next.attempt++
	}
	*s = next
}
