package sched

import (
	"container/heap"
	"time"
)

// Ready gives a task its turn as soon as a worker is free.
func (p *Pool[K, T]) Ready(t *Task[K, T]) {
	p.mu.Lock()
	p.readyLocked(t)
	p.mu.Unlock()
	p.hire()
}

func (p *Pool[K, T]) readyLocked(t *Task[K, T]) {
	if !t.queued && p.tasks[t.ID] == t {
		t.queued, t.since = true, time.Now()
		p.ready.Push(t.lane, t)
	}
}

// At gives a task its turn when the time due has come; 0 takes an earlier time back. Until then the task is in a state, and
// calls more calls are about to be made for it. The task still waits for the drivers for which still reports true. At
// reports whether due is now the first time of all, so that whoever waits for it must be told.
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

// TakeDue gives the tasks whose time has come their turn. It returns the time of the next task, or 0 if there is none.
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
	p.hire()
	return next
}

// Waiting returns how many tasks wait for a worker.
func (p *Pool[K, T]) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready.Len()
}

// Next returns the task whose turn it is. If there is none, Next returns nil, and the worker that called it is gone.
func (p *Pool[K, T]) Next() *Task[K, T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == Running {
		if t, ok := p.ready.Pop(func(t *Task[K, T]) bool { return p.tasks[t.ID] == t }); ok {
			t.queued = false
			return t
		}
	}
	p.releaseWorkerLocked()
	return nil
}

// hire has workers spawned while tasks are ready for them.
func (p *Pool[K, T]) hire() {
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

// Reserve takes a worker's place, if one is free and no task waits for it.
func (p *Pool[K, T]) Reserve() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != Running || p.free == 0 || p.ready.Len() > 0 {
		return false
	}
	p.free--
	return true
}

// Release gives a worker's place back.
func (p *Pool[K, T]) Release() {
	p.mu.Lock()
	p.releaseWorkerLocked()
	p.mu.Unlock()
	p.hire()
}

func (p *Pool[K, T]) releaseWorkerLocked() {
	p.free++
	p.checkDrainedLocked()
}
