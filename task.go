package conveyor

import "time"

// task is what a pool knows of a run: where it waits, and for what.
type task struct {
	id  string
	key Key

	// Guarded by scheduler.mu.
	lane     string // whose turn it is when this one goes on
	state    State  // of the run, as last recorded
	queued   bool
	stranded bool      // a closed store holds it up for good
	since    time.Time // when it was queued
	due      instant   // in the heap of due times; 0 when it is not
	heapAt   int
	room     *slots   // of its pipeline, once it has begun
	waitsFor []*slots // whose queues it is in
	promises []*slots // that keep a slot for it
	blocked  []string // drivers it waits for that are not registered
	owner    *journey
}

// take returns the journey of an unfinished run, made if it is not known.
func (s *scheduler) take(id string, key Key, lane string) *journey {
	return s.pool.take(id, key, lane).owner
}

func (s *scheduler) enqueue(j *journey) { s.pool.enqueue(&j.task) }

func (s *scheduler) returnPromises(j *journey) { s.pool.returnPromises(&j.task) }
