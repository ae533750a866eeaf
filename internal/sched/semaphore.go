package sched

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/fair"
)

// Semaphore bounds how many tasks have something at once: calls of a driver, or active runs of a pipeline. The tasks that
// wait for it are served in turn. Pool.mu guards its fields.
//
// Invariant: unless the limit was lowered, inUse + granted is at most limit.
type Semaphore[K comparable, T any] struct {
	limit   int // 0 means no limit
	inUse   int
	granted int // places reserved for tasks that waited for one and are on their way
	waiting fair.Lanes[*Task[K, T]]
	dead    int // tasks in waiting that have been removed from the pool

	// Used only by a semaphore that bounds the runs of a pipeline.
	pipeline string
	asOf     int64 // the revision of the record of the pipeline from which the limit is
	deleted  bool  // the pipeline is deleted, and the semaphore is needed until the last run has left
}

// NewSemaphore returns a semaphore with a limit; 0 means no limit.
func NewSemaphore[K comparable, T any](limit int) *Semaphore[K, T] {
	return &Semaphore[K, T]{limit: limit}
}

// Show adds the semaphore of a driver to the result of Stats, under the name of the driver.
func (p *Pool[K, T]) Show(driver string, s *Semaphore[K, T]) {
	p.mu.Lock()
	p.drivers[driver] = s
	p.mu.Unlock()
}

// Acquire takes a place and reports whether it did. If there is no place, the task gets its turn as soon as a place is
// reserved for it.
func (p *Pool[K, T]) Acquire(s *Semaphore[K, T], t *Task[K, T]) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acquireLocked(s, t)
}

func (p *Pool[K, T]) acquireLocked(s *Semaphore[K, T], t *Task[K, T]) bool {
	taken := s.inUse + s.granted
	if i := slices.Index(t.grants, s); i >= 0 {
		t.grants = slices.Delete(t.grants, i, i+1)
		s.granted--
		taken = s.inUse // the limit may have been lowered since the grant
	}
	if s.limit > 0 && taken >= s.limit {
		if !slices.Contains(t.waitsFor, s) {
			t.waitsFor = append(t.waitsFor, s)
			if s.pipeline != "" {
				// Several workers can look at runs of one pipeline at once, and the older run must come first.
				s.waiting.PushOrdered(t.lane, t, func(other *Task[K, T]) bool { return other.ID > t.ID })
			} else {
				s.waiting.Push(t.lane, t)
			}
		}
		return false
	}
	s.inUse++
	return true
}

// Done gives a place of the semaphore of a driver back. calls is 1 if the place was used for a call that has returned, and
// 0 if the call was not made.
func (p *Pool[K, T]) Done(s *Semaphore[K, T], calls int) {
	p.mu.Lock()
	p.calls -= calls
	p.checkDrainedLocked()
	s.inUse--
	p.grantLocked(s)
	p.mu.Unlock()
	p.spawnWorkers()
}

// ReturnGrants gives back the places that were reserved for a task and that the task did not take.
func (p *Pool[K, T]) ReturnGrants(t *Task[K, T]) {
	p.mu.Lock()
	p.returnGrantsLocked(t)
	p.mu.Unlock()
	p.spawnWorkers()
}

func (p *Pool[K, T]) returnGrantsLocked(t *Task[K, T]) {
	for _, s := range t.grants {
		s.granted--
		p.grantLocked(s)
		p.dropUnusedLocked(s)
	}
	t.grants = nil
}

// grantLocked reserves the free places for the tasks that have waited longest, so that no later task takes them.
func (p *Pool[K, T]) grantLocked(s *Semaphore[K, T]) {
	for s.limit == 0 || s.inUse+s.granted < s.limit {
		t, ok := s.waiting.Pop(func(t *Task[K, T]) bool {
			live := p.tasks[t.ID] == t
			if !live {
				s.dead--
			}
			return live
		})
		if !ok {
			return
		}
		t.waitsFor = slices.DeleteFunc(t.waitsFor, func(w *Semaphore[K, T]) bool { return w == s })
		s.granted++
		t.grants = append(t.grants, s)
		p.readyLocked(t)
	}
}

// stopWaitingLocked records that a removed task waits for nothing. The task stays in a queue until its turn comes, or until
// most tasks of the queue are removed ones.
func (p *Pool[K, T]) stopWaitingLocked(t *Task[K, T]) {
	for _, s := range t.waitsFor {
		if s.dead++; s.dead*2 > s.waiting.Len() {
			s.waiting.Keep(func(t *Task[K, T]) bool { return p.tasks[t.ID] == t })
			s.dead = 0
		}
	}
	t.waitsFor = nil
}

// AcquireRun counts a run that is about to begin among the active runs of its pipeline, and reports whether it did. If the
// run limit does not allow another run, the task gets its turn when it does. If known is set, limit is the limit in the
// record of the pipeline at the revision asOf. Otherwise the pipeline has no record. AcquireRun also reports whether the
// pool had no run limit for the pipeline before.
func (p *Pool[K, T]) AcquireRun(pipeline string, known bool, limit int, asOf int64, t *Task[K, T]) (acquired, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first = p.runs[pipeline] == nil
	s := p.runLocked(pipeline)
	s.deleted = s.deleted || first && !known
	if known {
		p.limitLocked(s, limit, asOf)
	}
	if t.run == s {
		return true, first
	}
	p.releaseRunLocked(t) // of another pipeline, with which the run could not begin
	if !p.acquireLocked(s, t) {
		return false, first
	}
	t.run = s
	return true, first
}

// limitLocked sets a limit to the one in the record of a pipeline at the revision asOf. An older revision changes nothing.
func (p *Pool[K, T]) limitLocked(s *Semaphore[K, T], limit int, asOf int64) {
	if asOf < s.asOf {
		return
	}
	s.asOf = asOf
	if s.limit != limit {
		s.limit = limit
		p.grantLocked(s)
	}
}

// runLocked returns the run limit of a pipeline, and adds it if there is none.
func (p *Pool[K, T]) runLocked(pipeline string) *Semaphore[K, T] {
	s := p.runs[pipeline]
	if s == nil {
		s = &Semaphore[K, T]{pipeline: pipeline}
		p.runs[pipeline] = s
	}
	return s
}

// ReleaseRun is the reverse of AcquireRun. It does nothing if the task has acquired nothing.
func (p *Pool[K, T]) ReleaseRun(t *Task[K, T]) {
	p.mu.Lock()
	p.releaseRunLocked(t)
	p.mu.Unlock()
	p.spawnWorkers()
}

func (p *Pool[K, T]) releaseRunLocked(t *Task[K, T]) {
	if s := t.run; s != nil {
		t.run = nil
		s.inUse--
		p.grantLocked(s)
		p.dropUnusedLocked(s)
	}
}

// dropUnusedLocked forgets the semaphore of a deleted pipeline when no task has it or waits for it.
func (p *Pool[K, T]) dropUnusedLocked(s *Semaphore[K, T]) {
	if s.deleted && s.inUse+s.granted+s.waiting.Len() == 0 && p.runs[s.pipeline] == s {
		delete(p.runs, s.pipeline)
		p.left(s.pipeline)
	}
}

// LimitRuns changes how many runs of a pipeline can be active, after the definition of the pipeline has changed. Runs that
// have begun continue. For a deleted pipeline the caller passes no limit, so that the tasks that wait get a turn and notice
// the deletion. The tasks of the pipeline that wait for a place of a driver and have not begun get a turn too, because it
// is possible that they do not need this driver any more.
func (p *Pool[K, T]) LimitRuns(pipeline string, limit int, asOf int64, deleted bool) {
	p.mu.Lock()
	s := p.runLocked(pipeline)
	if asOf >= s.asOf {
		s.deleted = deleted
	}
	p.limitLocked(s, limit, asOf)
	for _, d := range p.drivers {
		for _, t := range d.waiting.Lane(pipeline) {
			if t.run == nil {
				p.readyLocked(t)
			}
		}
	}
	p.dropUnusedLocked(s)
	p.mu.Unlock()
	p.spawnWorkers()
}
