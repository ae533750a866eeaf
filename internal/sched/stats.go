package sched

// Stats is what a pool holds at one moment.
type Stats struct {
	Tasks     int
	Ready     int   // tasks that wait for a worker
	Oldest    int64 // when the first of the ready tasks began to wait; 0 if there is none
	Due       int   // tasks that wait for a time
	Workers   int
	Busy      int              // workers that are working
	Abandoned int              // calls that were abandoned and have not returned
	States    []int            // number of tasks, by state
	Ended     []int64          // number of ended tasks, by their last state
	Blocked   map[string]int   // number of tasks that wait for an unregistered driver, by driver
	Drivers   map[string]Usage // by name
	Runs      map[string]Usage // by pipeline
}

// Usage is how much of a semaphore is used.
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
	for driver, waiting := range p.blocked {
		st.Blocked[driver] = len(waiting)
	}
	for name, s := range p.drivers {
		st.Drivers[name] = s.usage()
	}
	for pipeline, s := range p.runs {
		if s.inUse > 0 || s.limit > 0 {
			st.Runs[pipeline] = s.usage()
		}
	}
	return st
}

// usage returns how much of the semaphore is used.
func (s *Semaphore[K, T]) usage() Usage {
	return Usage{InUse: s.inUse, Limit: s.limit, Waiting: s.waiting.Len() - s.dead}
}
