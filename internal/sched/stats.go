package sched

import "slices"

// Stats is what a pool holds at one moment.
type Stats struct {
	Tasks     int
	Ready     int   // tasks that wait for a worker
	Oldest    int64 // when the first of the ready tasks began to wait; 0 if there is none
	Due       int   // tasks that wait for a time
	Workers   int
	Busy      int              // workers that are working
	Abandoned int              // calls that were abandoned and have not returned
	Held      int              // tasks that wait for the return of an abandoned call
	States    []int            // number of tasks, by state
	Ended     []int64          // number of ended tasks, by their last state
	Blocked   map[string]int   // number of tasks that Block has blocked, by the name of what they wait for
	Drivers   map[string]Usage // by name
	Runs      map[string]Usage // by pipeline
}

// Usage is how much of a limit is used.
type Usage struct {
	InUse   int
	Limit   int // 0 means no limit
	Waiting int
}

// Stats returns what the pool holds.
func (p *Pool[K, T]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := Stats{
		Tasks: len(p.tasks), Ready: p.ready.Len(), Due: len(p.due),
		Workers: p.workers, Busy: p.workers - p.free, Abandoned: p.abandoned,
		States: p.states[:], Ended: p.ended[:],
		Blocked: map[string]int{}, Drivers: map[string]Usage{}, Runs: map[string]Usage{},
	}
	st.States, st.Ended = append([]int(nil), st.States...), append([]int64(nil), st.Ended...)
	for t := range p.ready.Heads() {
		if st.Oldest == 0 || t.since < st.Oldest {
			st.Oldest = t.since
		}
	}
	for name, waiting := range p.blocked {
		st.Blocked[name] = len(waiting)
	}
	for _, held := range p.held {
		st.Held += len(held)
	}
	for name, s := range p.drivers {
		st.Drivers[name] = Usage{InUse: s.inUse, Limit: s.limit, Waiting: s.line.Len()}
	}
	for pipeline, r := range p.rooms {
		if r.begun > 0 || r.limit > 0 {
			st.Runs[pipeline] = Usage{InUse: r.begun, Limit: r.limit, Waiting: len(r.line)}
		}
	}
	return st
}

// Survey is where the tasks of a pool stand at one moment. It has the owners of tasks, in no particular order.
type Survey[K comparable, T any] struct {
	Busy    int                 // workers that are working
	Slots   map[string]Slots[T] // by driver
	InRoom  map[string][]T      // the tasks with a place within a run limit, by pipeline
	WithKey map[K][]T
}

// Slots is who has the places of a semaphore.
type Slots[T any] struct {
	InUse    int
	Reserved []T // the tasks for which a place is reserved
}

// Survey looks at all tasks. It takes time in proportion to their number.
func (p *Pool[K, T]) Survey() *Survey[K, T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &Survey[K, T]{
		Busy: p.workers - p.free, Slots: map[string]Slots[T]{}, InRoom: map[string][]T{}, WithKey: make(map[K][]T, len(p.tasks)),
	}
	for name, of := range p.drivers {
		s.Slots[name] = Slots[T]{InUse: of.inUse}
	}
	for _, t := range p.tasks {
		s.WithKey[t.Key] = append(s.WithKey[t.Key], t.Owner)
		if r := t.room.of; r != nil && r.limit > 0 {
			s.InRoom[r.pipeline] = append(s.InRoom[r.pipeline], t.Owner)
		}
		for _, g := range t.grants {
			of := s.Slots[g.of.driver]
			of.Reserved = append(of.Reserved, t.Owner)
			s.Slots[g.of.driver] = of
		}
	}
	return s
}

// Waits is what a task waits for.
type Waits struct {
	Begun   bool     // the task has begun
	Worker  bool     // false unless the pool runs
	Drivers []string // the drivers of which the task needs a place, in the order in which it has asked
	Room    string   // the pipeline that has reached its run limit; empty if the task does not wait for it
	Held    bool     // an abandoned call with the key of the task has not returned
	Blocked []string // the names by which Block has blocked the task
}

// WaitsFor returns what the task with an ID waits for. It returns nothing if the pool does not know the task.
func (p *Pool[K, T]) WaitsFor(id string) (w Waits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tasks[id]
	if t == nil {
		return w
	}
	w.Begun = t.begun
	w.Worker = t.turn.Waits() && p.phase == Running
	for _, of := range t.waits {
		w.Drivers = append(w.Drivers, of.Value.of.driver)
	}
	if r := t.room.line; r != nil {
		w.Room = r.pipeline
	}
	w.Held = slices.Contains(p.held[t.Key], t)
	w.Blocked = slices.Clone(t.blocked)
	return w
}
