package sched

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/fair"
)

// Semaphore bounds how many tasks have a thing at once: calls of a driver, or active runs of a pipeline. The tasks that
// wait for it are served in turn. Guarded by Pool.mu.
type Semaphore[K comparable, T any] struct {
	limit   int // 0 for none
	inUse   int
	granted int // places reserved for tasks that waited for one and are on their way
	waiting fair.Lanes[*Task[K, T]]
	dead    int // of those that wait, tasks that have been removed since

	// Of a semaphore that bounds the runs of a pipeline.
	pipeline string
	asOf     int64 // revision of the pipeline's record that the limit is from
	deleted  bool  // the pipeline is deleted: the semaphore is needed until the last run has left
}

// NewSemaphore returns a semaphore with a limit; 0 means none.
func NewSemaphore[K comparable, T any](limit int) *Semaphore[K, T] {
	return &Semaphore[K, T]{limit: limit}
}

// Show has Stats show the semaphore of a driver under the driver's name.
func (p *Pool[K, T]) Show(driver string, s *Semaphore[K, T]) {
	p.mu.Lock()
	p.drivers[driver] = s
	p.mu.Unlock()
}

// Acquire takes a place. If there is none, the task gets its turn when a place is reserved for it.
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
				// Several workers may have come upon runs at once, and the older run is first.
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

// Done gives a place of a driver's semaphore back. calls is 1 if the place was used for a call, and 0 if the call was not
// made.
func (p *Pool[K, T]) Done(s *Semaphore[K, T], calls int) {
	p.mu.Lock()
	p.calls -= calls
	p.checkDrainedLocked()
	s.inUse--
	p.grantLocked(s)
	p.mu.Unlock()
	p.hire()
}

// ReturnGrants gives back the places that were reserved for a task and that the task did not take.
func (p *Pool[K, T]) ReturnGrants(t *Task[K, T]) {
	p.mu.Lock()
	p.returnGrantsLocked(t)
	p.mu.Unlock()
	p.hire()
}

func (p *Pool[K, T]) returnGrantsLocked(t *Task[K, T]) {
	for _, s := range t.grants {
		s.granted--
		p.grantLocked(s)
		p.dropUnusedLocked(s)
	}
	t.grants = nil
}

// grantLocked reserves the free places for the tasks whose turn it is, so that no task that comes later overtakes them.
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

// stopWaitingLocked notes that a removed task waits for nothing. The task stays in a queue until its turn comes, or until
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

// AcquireRun counts a run that is about to begin among the active runs of its pipeline. If the limit does not allow that,
// the task gets its turn when it may. If the pipeline's record is known, limit is that of the record at the revision
// asOf. AcquireRun also reports whether this is the first run of the pipeline.
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
	p.releaseRunLocked(t) // of another pipeline, along which the run could not begin
	if !p.acquireLocked(s, t) {
		return false, first
	}
	t.run = s
	return true, first
}

// limitLocked changes a limit to what the record of a pipeline says at a revision. An older revision changes nothing.
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
	p.hire()
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

// LimitRuns changes how many runs of a pipeline can be active, after its definition has changed. Runs that have begun go
// on. A deleted pipeline has no limit, so that the tasks that wait learn of the deletion. The tasks of the pipeline that
// wait for a driver and have not begun get their turn too, because they may not need that driver any more.
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
	p.hire()
}
