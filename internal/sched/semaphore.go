package sched

import (
	"math"
	"slices"

	"github.com/conveyor-go/conveyor/internal/fair"
)

// Semaphore bounds how many calls of a driver are made at once. The tasks that wait for it are served in turn, those that
// have begun first. Pool.mu guards its fields.
//
// Invariant: inUse + granted is at most limit. A task that waits in the line has begun, or has a place within the run limit
// of its pipeline, or has no pipeline. A grant is therefore never lost on a task that cannot begin.
type Semaphore[K comparable, T any] struct {
	driver  string // empty unless Show has named it
	limit   int    // 0 means no limit
	inUse   int
	granted int // places reserved for tasks that waited for one and are on their way
	line    fair.Lanes[need[K, T]]
}

// wait is the place of a task in the line of a semaphore. Very many tasks can wait, so it is one allocation.
type wait[K comparable, T any] = fair.Item[need[K, T]]

// need is a task that waits for a semaphore.
type need[K comparable, T any] struct {
	task  *Task[K, T]
	of    *Semaphore[K, T]
	asked bool // the decision that is being made has asked for the semaphore
}

// grant is a place that a semaphore reserves for a task. The next decision about the task takes it or gives it back.
type grant[K comparable, T any] struct {
	of   *Semaphore[K, T]
	late bool // it came after the decision that is being made had asked for it, so that the next one can take it
}

// NewSemaphore returns a semaphore with a limit; 0 means no limit.
func NewSemaphore[K comparable, T any](limit int) *Semaphore[K, T] {
	return &Semaphore[K, T]{limit: limit}
}

// Show adds the semaphore of a driver to the results of Stats and WaitsFor, under the name of the driver.
func (p *Pool[K, T]) Show(driver string, s *Semaphore[K, T]) {
	p.mu.Lock()
	s.driver = driver
	p.drivers[driver] = s
	p.mu.Unlock()
}

// Spare returns how many places a semaphore has left.
func (p *Pool[K, T]) Spare(s *Semaphore[K, T]) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.limit == 0 {
		return math.MaxInt
	}
	return max(s.limit-s.inUse-s.granted, 0)
}

// Claim is the answer to a task that asks for what a call needs.
type Claim uint8

const (
	Claimed  Claim = iota + 1 // everything was taken
	Held                      // an abandoned call with the key of the task has not returned; the task gets its turn when it returns
	InLine                    // the semaphore has no place; the task gets its turn when one is reserved for it
	NoWorker                  // no worker is free; the caller must give the task its turn when one is
)

// Claim takes what a call for a task needs: a place of the semaphore of the driver and, unless the caller is a worker that
// makes the call itself, a worker. It takes everything or nothing. The claims of a decision end with Decided.
func (p *Pool[K, T]) Claim(s *Semaphore[K, T], t *Task[K, T], ownWorker bool) Claim {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holdLocked(t) {
		return Held
	}
	grant := slices.IndexFunc(t.grants, func(g grant[K, T]) bool { return g.of == s })
	w := t.waitFor(s)
	if grant < 0 && w == nil && s.full() {
		w = p.joinLocked(s, t)
	}
	switch {
	case grant < 0 && w != nil:
		w.Value.asked = true
		return InLine
	case !ownWorker && !p.canReserveLocked():
		return NoWorker
	case grant >= 0:
		t.grants = slices.Delete(t.grants, grant, grant+1)
		s.granted--
	}
	s.inUse++
	if !ownWorker {
		p.free--
	}
	return Claimed
}

// full reports whether the semaphore has no place.
func (s *Semaphore[K, T]) full() bool { return s.limit > 0 && s.inUse+s.granted >= s.limit }

// waitFor returns the place of the task in the line of a semaphore, or nil if it is not in this line.
func (t *Task[K, T]) waitFor(s *Semaphore[K, T]) *wait[K, T] {
	for _, w := range t.waits {
		if w.Value.of == s {
			return w
		}
	}
	return nil
}

// joinLocked adds a task to the line of a semaphore.
func (p *Pool[K, T]) joinLocked(s *Semaphore[K, T], t *Task[K, T]) *wait[K, T] {
	w := &wait[K, T]{Value: need[K, T]{task: t, of: s}}
	t.waits = append(t.waits, w)
	rank := rankNew
	if t.begun {
		rank = rankBegun
	}
	s.line.Push(t.lane, rank, w)
	return w
}

// Decided ends a decision about a task. The task leaves the lines of the semaphores for which the decision has not asked,
// and gives back the places that were reserved for it and that the decision could have taken.
func (p *Pool[K, T]) Decided(t *Task[K, T]) {
	p.mu.Lock()
	t.waits = slices.DeleteFunc(t.waits, func(w *wait[K, T]) bool {
		asked := w.Value.asked
		if w.Value.asked = false; !asked {
			w.Value.of.line.Remove(w)
		}
		return !asked
	})
	returned := p.returnGrantsLocked(t, false)
	p.mu.Unlock()
	if returned {
		p.spawnWorkers()
	}
}

// GiveUp notes that nobody can decide about a task now. The task gives back everything that is reserved for it, but for the
// place of a run that has begun within the run limit of its pipeline.
func (p *Pool[K, T]) GiveUp(t *Task[K, T]) {
	p.mu.Lock()
	p.leaveLinesLocked(t)
	if !t.begun {
		p.leaveRoomLocked(t)
	}
	p.returnGrantsLocked(t, true)
	p.mu.Unlock()
	p.spawnWorkers()
}

// leaveLinesLocked removes a task from the lines of all semaphores.
func (p *Pool[K, T]) leaveLinesLocked(t *Task[K, T]) {
	for _, w := range t.waits {
		w.Value.of.line.Remove(w)
	}
	t.waits = nil
}

// Done gives a place of a semaphore back. calls is 1 if the place was used for a call that has returned, and 0 if the call
// was not made. If next is not nil, the caller is about to decide what this task does next, and it is likely that the task
// needs the place again. The task then takes part when the place is given away. Otherwise a task that has begun would lose
// the place to one that has not, because the latter has asked first.
func (p *Pool[K, T]) Done(s *Semaphore[K, T], calls int, next *Task[K, T]) {
	p.mu.Lock()
	p.calls -= calls
	p.checkDrainedLocked()
	s.inUse--
	if next != nil && next.begun && s.line.Len() > 0 && p.tasks[next.ID] == next && next.waitFor(s) == nil {
		p.joinLocked(s, next)
	}
	p.grantLocked(s, next)
	p.mu.Unlock()
	p.spawnWorkers()
}

// returnGrantsLocked gives back the places that are reserved for a task: all of them, or those that the decision could have
// taken. It reports whether there was any.
func (p *Pool[K, T]) returnGrantsLocked(t *Task[K, T], all bool) (returned bool) {
	grants := t.grants
	t.grants = nil
	for _, g := range grants {
		if g.late && !all {
			t.grants = append(t.grants, grant[K, T]{of: g.of})
		}
	}
	for _, g := range grants {
		if !g.late || all {
			returned = true
			g.of.granted--
			p.grantLocked(g.of, nil)
		}
	}
	return returned
}

// grantLocked reserves the free places for the tasks whose turn it is, so that no later task takes them. Each of them gets
// its turn, but for the task about which the caller is about to decide.
func (p *Pool[K, T]) grantLocked(s *Semaphore[K, T], next *Task[K, T]) {
	for s.line.Len() > 0 && !s.full() {
		w := s.line.Pop()
		t := w.Value.task
		t.waits = slices.DeleteFunc(t.waits, func(other *wait[K, T]) bool { return other == w })
		s.granted++
		t.grants = append(t.grants, grant[K, T]{of: s, late: w.Value.asked})
		if t != next {
			p.readyLocked(t)
		}
	}
}
