// Package sched decides whose turn it is. It holds what waits for a worker, a time, a semaphore, a driver or an abandoned
// call, and counts what is under way. It has one lock, no goroutine and no clock, and it does not know what a task is.
package sched

import (
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/fair"
)

// Task is what a pool knows of a unit of work: where it waits, and for what. Its zero value with an ID, a Key and an
// Owner is ready to be given to [Pool.Take]. Tasks with an equal Key wait for each other's abandoned calls.
type Task[K comparable, T any] struct {
	ID    string
	Key   K
	Owner T

	// Guarded by Pool.mu.
	lane     string // the lane in which the task waits for its turn
	state    uint8  // as the owner last reported it
	queued   bool   // in Pool.ready
	stranded bool   // nothing can go on with it; see Strand
	since    time.Time
	due      int64 // in the heap of due times; 0 if it is not there
	heapAt   int
	run      *Semaphore[K, T]   // that bounds the active runs of its pipeline; nil unless the task has acquired it
	waitsFor []*Semaphore[K, T] // in whose queues the task is
	grants   []*Semaphore[K, T] // that reserve a place for the task
	blocked  []string           // drivers that the task waits for because they are not registered
}

// Phase is how far the life of a pool has got. A pool never goes back to an earlier phase.
type Phase uint8

const (
	New      Phase = iota // nothing starts yet
	Running               // tasks get their turns
	Draining              // nothing new starts
	Stopping              // what cannot be recorded is given up
	Stopped               // no goroutine may be started any more
)

// Pool decides whose turn it is. It is safe for concurrent use.
//
// Lock order: a caller may hold its own lock of a task when it calls the pool. The pool calls spawn and its callbacks
// without a lock of a task; it calls left and the callbacks of Begin and IfBefore with its own lock held, so they must not
// call the pool.
type Pool[K comparable, T any] struct {
	workers int
	spawn   func()
	left    func(pipeline string)

	mu      sync.Mutex // guards all below
	phase   Phase
	tasks   map[string]*Task[K, T] // by ID
	ready   fair.Lanes[*Task[K, T]]
	due     dueHeap[K, T]
	free    int // workers that can be spawned
	calls   int // calls under way, from the commit of their start to their return
	drivers map[string]*Semaphore[K, T]
	runs    map[string]*Semaphore[K, T]         // by pipeline
	blocked map[string]map[*Task[K, T]]struct{} // by the driver that is not registered
	away    map[K]int                           // calls that were abandoned and have not returned, by key
	held    map[K][]*Task[K, T]                 // tasks that wait for the abandoned calls with their key
	states  [maxStates]int                      // tasks by state
	ended   [maxStates]int64                    // tasks that were removed because they had ended, by their last state

	exempt    int // workers whose call is inside Shutdown: nobody waits for them
	abandoned int // workers whose call was abandoned
	drained   chan struct{}
	quiet     chan struct{}
	idle      chan struct{}
}

// maxStates is above the greatest state that an owner reports.
const maxStates = 16

// NewPool returns a pool for that many workers. The pool calls spawn to have a worker started; the worker must call Next
// until Next returns nil. The pool calls left when the last run of a deleted pipeline has left.
func NewPool[K comparable, T any](workers int, spawn func(), left func(pipeline string)) *Pool[K, T] {
	return &Pool[K, T]{
		workers: workers, free: workers, spawn: spawn, left: left,
		tasks: map[string]*Task[K, T]{}, drivers: map[string]*Semaphore[K, T]{}, runs: map[string]*Semaphore[K, T]{},
		blocked: map[string]map[*Task[K, T]]struct{}{}, away: map[K]int{}, held: map[K][]*Task[K, T]{},
	}
}

// Take returns the task with an ID. If the pool does not know it, create makes it, and the pool adds it in a lane and in
// a state.
func (p *Pool[K, T]) Take(id, lane string, state uint8, create func() *Task[K, T]) *Task[K, T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tasks[id]
	if t == nil {
		t = create()
		t.lane, t.state = lane, state
		p.tasks[id] = t
		p.states[state]++
	}
	return t
}

// Find returns the task with an ID, or nil if the pool does not know it.
func (p *Pool[K, T]) Find(id string) *Task[K, T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tasks[id]
}

// Goes reports whether the pool knows a task with this ID and can go on with it.
func (p *Pool[K, T]) Goes(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tasks[id]
	return t != nil && !t.stranded
}

// Strand notes that nothing can go on with a task.
func (p *Pool[K, T]) Strand(t *Task[K, T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.stranded = true
}

// Owners returns the owners of all tasks, in no particular order.
func (p *Pool[K, T]) Owners() []T {
	p.mu.Lock()
	defer p.mu.Unlock()
	owners := make([]T, 0, len(p.tasks))
	for _, t := range p.tasks {
		owners = append(owners, t.Owner)
	}
	return owners
}

// Remove takes a task out of the pool. If the task has ended, ended is its last state, and 0 otherwise.
func (p *Pool[K, T]) Remove(t *Task[K, T], ended uint8) {
	p.mu.Lock()
	if ended != 0 {
		p.ended[ended]++
	}
	if p.tasks[t.ID] == t {
		p.atLocked(t, 0)
		delete(p.tasks, t.ID)
		p.states[t.state]--
		p.unblockLocked(t, func(string) bool { return false })
		p.stopWaitingLocked(t)
		p.returnGrantsLocked(t)
	}
	p.releaseRunLocked(t)
	p.mu.Unlock()
	p.hire() // another run may enter
}

// Restore adds a task that a former process left behind. It counts among the active runs of a pipeline unless pipeline is
// empty, and gets its turn at the time due; 0 means at once, when the pool runs.
func (p *Pool[K, T]) Restore(t *Task[K, T], lane, pipeline string, state uint8, due int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.lane = lane
	if pipeline != "" && t.run == nil {
		t.run = p.runLocked(pipeline)
		t.run.inUse++
	}
	p.showLocked(t, state)
	p.atLocked(t, due)
}

// Begin starts to give turns, to all tasks that wait for no time. It calls started first, with the lock held. It changes
// nothing if the phase is not New. It returns the phase as it was.
func (p *Pool[K, T]) Begin(started func()) (was Phase) {
	p.mu.Lock()
	was = p.phase
	if was == New {
		p.phase = Running
		started()
		for _, t := range p.tasks {
			if t.due == 0 {
				p.readyLocked(t)
			}
		}
	}
	p.mu.Unlock()
	p.hire()
	return was
}

// Phase returns the phase.
func (p *Pool[K, T]) Phase() Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase
}

// IfBefore calls do with the lock held if the phase is before limit, and reports whether it did. A goroutine that Shutdown
// waits for is started only inside of do: after the phase has changed, no further goroutine is added.
func (p *Pool[K, T]) IfBefore(limit Phase, do func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase >= limit {
		return false
	}
	do()
	return true
}

// Reach moves the phase forward to phase, and reports whether it was before that.
func (p *Pool[K, T]) Reach(phase Phase) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase >= phase {
		return false
	}
	p.phase = phase
	return true
}

// Drains are the channels that report how far a pool has drained.
type Drains struct {
	Drained <-chan struct{} // closed when no worker is left that must be waited for
	Quiet   <-chan struct{} // closed when no call is under way that must be waited for
	Idle    <-chan struct{} // closed when no call is under way that was not abandoned
}

// Drain has nothing new started from here on. It returns the phase as it is then.
func (p *Pool[K, T]) Drain() (Drains, Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = max(p.phase, Draining)
	if p.drained == nil {
		p.drained, p.quiet, p.idle = make(chan struct{}), make(chan struct{}), make(chan struct{})
	}
	p.checkDrainedLocked()
	return Drains{p.drained, p.quiet, p.idle}, p.phase
}

func (p *Pool[K, T]) checkDrainedLocked() {
	if p.drained == nil {
		return
	}
	if p.workers-p.free+p.abandoned <= p.exempt {
		closeOnce(p.drained)
	}
	if p.calls <= p.exempt {
		closeOnce(p.quiet)
	}
	if p.calls == p.abandoned {
		closeOnce(p.idle)
	}
}

// closeOnce closes a channel unless it is closed. All callers hold the same lock.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// Exempt changes by n how many workers nobody waits for, because their call is inside Shutdown.
func (p *Pool[K, T]) Exempt(n int) {
	p.mu.Lock()
	p.exempt += n
	p.mu.Unlock()
}

// Calling reports whether a call is under way that must be waited for.
func (p *Pool[K, T]) Calling() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls > p.exempt
}

// Alone reports whether every worker is one that must be waited for.
func (p *Pool[K, T]) Alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.abandoned+p.exempt == 0
}

// Abandoned notes that a call with a key was abandoned: it no longer counts as a worker, and tasks with the key wait.
func (p *Pool[K, T]) Abandoned(key K) {
	p.mu.Lock()
	p.away[key]++
	p.abandoned++
	p.free++
	p.checkDrainedLocked()
	p.mu.Unlock()
	p.hire()
}

// Returned notes that an abandoned call with a key has returned.
func (p *Pool[K, T]) Returned(key K) {
	p.mu.Lock()
	p.abandoned--
	p.checkDrainedLocked()
	if p.away[key]--; p.away[key] == 0 {
		delete(p.away, key)
		for _, t := range p.held[key] {
			p.readyLocked(t)
		}
		delete(p.held, key)
	}
	p.mu.Unlock()
	p.hire()
}

// Hold reports whether a task must wait because an abandoned call with its key has not returned. If so, the task gets its
// turn when that call returns. A key therefore never has two calls at once.
func (p *Pool[K, T]) Hold(t *Task[K, T]) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away[t.Key] == 0 {
		return false
	}
	if !slices.Contains(p.held[t.Key], t) {
		p.held[t.Key] = append(p.held[t.Key], t)
	}
	return true
}

// Block notes that a task waits for a driver that is not registered.
func (p *Pool[K, T]) Block(t *Task[K, T], driver string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tasks[t.ID] != t || slices.Contains(t.blocked, driver) {
		return
	}
	if p.blocked[driver] == nil {
		p.blocked[driver] = map[*Task[K, T]]struct{}{}
	}
	p.blocked[driver][t] = struct{}{}
	t.blocked = append(t.blocked, driver)
}

// Unblock gives the tasks that wait for a driver their turn.
func (p *Pool[K, T]) Unblock(driver string) {
	p.mu.Lock()
	for t := range p.blocked[driver] {
		t.blocked = slices.DeleteFunc(t.blocked, func(name string) bool { return name == driver })
		p.readyLocked(t)
	}
	delete(p.blocked, driver)
	p.mu.Unlock()
	p.hire()
}

// unblockLocked notes that a task waits for no other drivers than those for which still reports true.
func (p *Pool[K, T]) unblockLocked(t *Task[K, T], still func(driver string) bool) {
	t.blocked = slices.DeleteFunc(t.blocked, func(name string) bool {
		if still(name) {
			return false
		}
		delete(p.blocked[name], t)
		if len(p.blocked[name]) == 0 {
			delete(p.blocked, name)
		}
		return true
	})
}

// showLocked counts a task under its new state.
func (p *Pool[K, T]) showLocked(t *Task[K, T], state uint8) {
	p.states[t.state]--
	t.state = state
	p.states[state]++
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
