package sched

import (
	"maps"
	"slices"
	"sync"

	"github.com/conveyor-go/conveyor/internal/fair"
)

// Pool decides whose turn it is. It is safe for concurrent use.
//
// Lock order: a lock of the caller, such as the lock of a task, comes before the lock of the pool. The pool calls spawn
// without its lock. It calls left and all other callbacks with its lock held. Therefore these callbacks must not call the
// pool.
type Pool[K comparable, T any] struct {
	workers int
	now     func() int64
	spawn   func()
	left    func(pipeline string)

	mu      sync.Mutex // guards what follows; held for a few instructions
	phase   Phase
	tasks   map[string]*Task[K, T]  // by ID
	ready   fair.Lanes[*Task[K, T]] // the tasks that wait for a worker
	due     dueHeap[K, T]
	free    int                                 // workers that can be started, or whose place can be reserved
	calls   int                                 // calls under way, from the commit of their start to their return; an abandoned call counts until it returns
	drivers map[string]*Semaphore[K, T]         // by driver
	rooms   map[string]*room[K, T]              // by pipeline
	blocked map[string]map[*Task[K, T]]struct{} // the tasks that Block has blocked, by the name of what they wait for
	away    map[K]int                           // calls that were abandoned and have not returned, by key
	held    map[K][]*Task[K, T]                 // tasks that wait for the abandoned calls with their key
	states  [maxStates]int                      // tasks by state
	ended   [maxStates]int64                    // tasks that were removed because they had ended, by their last state

	exempt    int // workers whose call is inside Shutdown, for which Shutdown does not wait
	abandoned int // abandoned calls that have not returned

	// Made by Drain, closed by the pool, read by Shutdown.
	drained chan struct{}
	quiet   chan struct{}
	idle    chan struct{}
}

// maxStates is greater than every state that an owner reports.
const maxStates = 16

// NewPool returns a pool with a number of workers. The pool notes the time that now returns when a task begins to wait for
// a worker. The pool calls spawn to start a worker. The worker must call Next until
// Next returns nil. The pool calls left when no task has or waits for the run limit of a deleted pipeline any more.
func NewPool[K comparable, T any](workers int, now func() int64, spawn func(), left func(pipeline string)) *Pool[K, T] {
	return &Pool[K, T]{
		workers: workers, free: workers, now: now, spawn: spawn, left: left,
		tasks: map[string]*Task[K, T]{}, drivers: map[string]*Semaphore[K, T]{}, rooms: map[string]*room[K, T]{},
		blocked: map[string]map[*Task[K, T]]struct{}{}, away: map[K]int{}, held: map[K][]*Task[K, T]{},
	}
}

// Take returns the task with an ID. If the pool has none, it adds the one that create returns, with a lane and a state.
func (p *Pool[K, T]) Take(id, lane string, state uint8, create func() *Task[K, T]) *Task[K, T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tasks[id]
	if t == nil {
		t = create()
		t.lane, t.state, t.turn.Value = lane, state, t
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

// Remove removes a task from the pool, with everything that the task has acquired or waits for. If the task has ended,
// ended is its last state; otherwise it is 0.
func (p *Pool[K, T]) Remove(t *Task[K, T], ended uint8) {
	p.mu.Lock()
	if ended != 0 {
		p.ended[ended]++
	}
	if p.tasks[t.ID] == t {
		p.atLocked(t, 0, 0)
		delete(p.tasks, t.ID)
		p.states[t.state]--
		p.unblockLocked(t, func(string) bool { return false })
		p.unholdLocked(t)
		if t.turn.Waits() {
			p.ready.Remove(&t.turn)
		}
		p.leaveLocked(t)
		p.returnGrantsLocked(t, true)
	}
	p.mu.Unlock()
	p.spawnWorkers() // another run can begin
}

// Restore sets the state of a task that an earlier process has left. If the task has begun, it counts among the active runs
// of a pipeline unless pipeline is empty. It gets its turn at the time due; 0 means as soon as the pool runs. The deadline is that
// of At. The task must have been added by Take.
func (p *Pool[K, T]) Restore(t *Task[K, T], lane, pipeline string, begun bool, state uint8, due, deadline int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.lane = lane
	if begun && !t.begun {
		t.begun = true
		if pipeline != "" {
			t.room.of = p.roomLocked(pipeline)
			t.room.of.begun++
		}
	}
	p.showLocked(t, state)
	p.atLocked(t, due, deadline)
}

// Begin starts the pool and gives a turn to every task that waits for no time, in the order of the IDs. It calls started
// first, with the lock held. It changes nothing if the phase is not New. It returns the former phase.
func (p *Pool[K, T]) Begin(started func()) (was Phase) {
	p.mu.Lock()
	was = p.phase
	if was == New {
		p.phase = Running
		started()
		for _, id := range slices.Sorted(maps.Keys(p.tasks)) {
			if t := p.tasks[id]; t.due == 0 {
				p.readyLocked(t)
			}
		}
	}
	p.mu.Unlock()
	p.spawnWorkers()
	return was
}

// Phase returns the phase.
func (p *Pool[K, T]) Phase() Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase
}

// IfBefore calls do with the lock held if the phase is before limit, and reports whether it did. A goroutine for which
// Shutdown waits is started only inside do. Therefore none is started after the phase has changed.
func (p *Pool[K, T]) IfBefore(limit Phase, do func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase >= limit {
		return false
	}
	do()
	return true
}

// Reach moves the phase forward to phase. It reports whether the former phase was an earlier one.
func (p *Pool[K, T]) Reach(phase Phase) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase >= phase {
		return false
	}
	p.phase = phase
	return true
}
