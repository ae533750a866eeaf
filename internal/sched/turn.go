package sched

import (
	"container/heap"
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
		w.of.line.Remove(&w.item)
		w.of.line.Push(t.lane, rankBegun, &w.item)
	}
}

// At sets the time due at which a task gets its turn, and its state until then; a due of 0 removes an earlier time. The
// caller is about to make calls calls for the task, and they count as under way from now on. Of the unregistered drivers
// for which the task waits, it goes on waiting only for those for which still reports true. At reports whether due is now
// the earliest time of all tasks, so that the caller must set its timer again.
func (p *Pool[K, T]) At(t *Task[K, T], due int64, state uint8, calls int, still func(driver string) bool) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls += calls
	p.showLocked(t, state)
	if len(t.blocked) > 0 {
		p.unblockLocked(t, still)
	}
	return p.atLocked(t, due)
}

// showLocked counts a task under its new state.
func (p *Pool[K, T]) showLocked(t *Task[K, T], state uint8) {
	p.states[t.state]--
	t.state = state
	p.states[state]++
}

func (p *Pool[K, T]) atLocked(t *Task[K, T], due int64) (first bool) {
	switch {
	case due == 0 && t.due == 0, p.tasks[t.ID] != t:
		return false
	case due == 0:
		heap.Remove(&p.due, t.heapAt)
		t.due = 0
		return false
	case t.due == 0:
		t.due = due
		heap.Push(&p.due, t)
	default:
		t.due = due
		heap.Fix(&p.due, t.heapAt)
	}
	return p.due[0] == t
}

// TakeDue gives a turn to each task whose time has come. It returns the earliest time that is left, or 0 if there is none.
func (p *Pool[K, T]) TakeDue(now int64) (next int64) {
	p.mu.Lock()
	for len(p.due) > 0 && p.due[0].due <= now {
		t := heap.Pop(&p.due).(*Task[K, T])
		t.due = 0
		p.readyLocked(t)
	}
	if len(p.due) > 0 {
		next = p.due[0].due
	}
	p.mu.Unlock()
	p.spawnWorkers()
	return next
}

// Waiting returns the number of tasks that wait for a worker.
func (p *Pool[K, T]) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready.Len()
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
