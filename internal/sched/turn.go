package sched

import (
	"container/heap"
	"slices"
)

// Ready gives a task its turn as soon as a worker is free.
func (p *Pool[K, T]) Ready(t *Task[K, T]) {
	p.mu.Lock()
	p.readyLocked(t)
	p.mu.Unlock()
	p.spawnWorkers()
}

func (p *Pool[K, T]) readyLocked(t *Task[K, T]) {
	switch {
	case p.tasks[t.ID] != t:
	case !t.turn.Waits():
		t.since = p.now()
		p.ready.Push(t.lane, t.rank(), &t.turn)
	case t.rank() < t.turn.Rank(): // something has been reserved for the task since
		p.ready.Remove(&t.turn)
		p.ready.Push(t.lane, t.rank(), &t.turn)
	}
}

// Began notes that a task has begun. From now on it goes before those that have not.
func (p *Pool[K, T]) Began(t *Task[K, T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.begun || p.tasks[t.ID] != t {
		return
	}
	t.begun = true
	p.beganInRoomLocked(t)
	if t.turn.Waits() {
		p.readyLocked(t)
	}
	for _, w := range t.waits {
		w.Value.of.line.Remove(w)
		w.Value.of.line.Push(t.lane, rankBegun, w)
	}
}

// At sets the time due at which a task gets its turn, its deadline, and its state until then; 0 removes an earlier time. At
// the deadline the caller of TakeDue works on the task without a worker. The caller of At is about to make calls calls for the
// task, and they count as under way from now on. Of the names by which the task is blocked, it stays blocked by those for
// which still reports true. At reports whether the next time of the task is now the earliest of all, so
// that the caller must set its timer again.
func (p *Pool[K, T]) At(t *Task[K, T], due, deadline int64, state uint8, calls int, still func(name string) bool) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls += calls
	p.showLocked(t, state)
	if len(t.blocked) > 0 {
		p.unblockLocked(t, still)
	}
	return p.atLocked(t, due, deadline)
}

// showLocked counts a task under its new state.
func (p *Pool[K, T]) showLocked(t *Task[K, T], state uint8) {
	p.states[t.state]--
	t.state = state
	p.states[state]++
}

func (p *Pool[K, T]) atLocked(t *Task[K, T], due, deadline int64) (first bool) {
	if p.tasks[t.ID] != t {
		return false
	}
	had := t.next() != 0
	t.due, t.deadline = due, deadline
	switch has := t.next() != 0; {
	case !had && !has:
		return false
	case !has:
		heap.Remove(&p.due, t.heapAt)
		return false
	case !had:
		heap.Push(&p.due, t)
	default:
		heap.Fix(&p.due, t.heapAt)
	}
	return p.due[0] == t
}

// TakeDue gives a turn to each task whose time due has come. It returns the owners of the tasks whose deadlines have come:
// the caller must work on them without a worker, because every worker can be busy for long. TakeDue also returns the
// earliest time that is left, or 0 if there is none.
func (p *Pool[K, T]) TakeDue(now int64) (next int64, late []T) {
	p.mu.Lock()
	for len(p.due) > 0 && p.due[0].next() <= now {
		t := p.due[0]
		if t.deadline == 0 || t.deadline > now {
			p.readyLocked(t)
			p.atLocked(t, 0, t.deadline)
			continue
		}
		if p.phase == Running {
			late = append(late, t.Owner)
		}
		p.atLocked(t, t.due, 0)
	}
	if len(p.due) > 0 {
		next = p.due[0].next()
	}
	p.mu.Unlock()
	p.spawnWorkers()
	return next, late
}

// Wake gives a turn to each task that waits for a time, and moves the deadlines by some time.
func (p *Pool[K, T]) Wake(by int64) {
	p.mu.Lock()
	for _, t := range slices.Clone(p.due) {
		p.readyLocked(t)
		deadline := t.deadline
		if deadline != 0 {
			deadline += by
		}
		p.atLocked(t, 0, deadline)
	}
	p.mu.Unlock()
	p.spawnWorkers()
}

// Free returns the number of workers that are free and for which no task waits.
func (p *Pool[K, T]) Free() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != Running {
		return 0
	}
	return max(p.free-p.ready.Len(), 0)
}

// Waiting returns the number of tasks that wait for a worker.
func (p *Pool[K, T]) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready.Len()
}

// Overdue returns the owners of tasks that have begun and have waited for a worker since before a time, at most n of them.
func (p *Pool[K, T]) Overdue(before int64, n int) (owners []T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready.Len() == 0 {
		return nil
	}
	for _, t := range p.tasks {
		if len(owners) == n {
			break
		}
		if t.begun && t.turn.Waits() && t.since <= before {
			owners = append(owners, t.Owner)
		}
	}
	return owners
}

// Contended reports whether another task would get the next free worker if t waited for one too.
func (p *Pool[K, T]) Contended(t *Task[K, T]) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready.Before(t.lane, t.rank())
}

// Next returns the task whose turn it is. If there is none, Next returns nil and releases the place of the worker that
// called it; the worker must then end.
func (p *Pool[K, T]) Next() *Task[K, T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == Running {
		if turn := p.ready.Pop(); turn != nil {
			return turn.Value
		}
	}
	p.releaseWorkerLocked()
	return nil
}

// spawnWorkers starts workers as long as tasks wait for one and a worker is free. It must be called without the lock, after every
// change that can make a task ready or a worker free.
func (p *Pool[K, T]) spawnWorkers() {
	p.mu.Lock()
	n := 0
	if p.phase == Running {
		n = min(p.free, p.ready.Len())
		p.free -= n
	}
	p.mu.Unlock()
	for range n {
		p.spawn()
	}
}

// Reserve takes the place of a worker if one is free and no task waits for it. It reports whether it did.
func (p *Pool[K, T]) Reserve() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.canReserveLocked() {
		return false
	}
	p.free--
	return true
}

// canReserveLocked reports whether a worker is free and no task waits for it.
func (p *Pool[K, T]) canReserveLocked() bool {
	return p.phase == Running && p.free > 0 && p.ready.Len() == 0
}

// Release gives the place of a worker back.
func (p *Pool[K, T]) Release() {
	p.mu.Lock()
	p.releaseWorkerLocked()
	p.mu.Unlock()
	p.spawnWorkers()
}

func (p *Pool[K, T]) releaseWorkerLocked() {
	p.free++
	p.checkDrainedLocked()
}
