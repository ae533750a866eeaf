// Package sched decides whose turn it is. It holds the tasks that wait for a worker, a time, a semaphore, a driver or an
// abandoned call, and counts what is under way. It has one lock, no goroutine and no clock. It must not know what a task is.
package sched

// Task is what a pool knows of a unit of work: where it waits, and for what. A zero Task with an ID, a Key and an Owner
// can be given to [Pool.Take]. Tasks with an equal Key wait for each other's abandoned calls.
type Task[K comparable, T any] struct {
	ID    string
	Key   K
	Owner T

	// Pool.mu guards what follows.
	lane     string             // the lane in which the task waits for its turn
	state    uint8              // as the owner last reported it
	queued   bool               // in Pool.ready
	stranded bool               // nothing can go on with it; see Strand
	since    int64              // when the task began to wait for a worker
	due      int64              // the time at which the task gets its turn; 0 if it is not in the heap of due times
	heapAt   int                // the index in the heap of due times
	run      *Semaphore[K, T]   // the run limit of a pipeline, if the task counts among its active runs; otherwise nil
	waitsFor []*Semaphore[K, T] // the semaphores in whose queues the task is
	grants   []*Semaphore[K, T] // the semaphores that reserve a place for the task
	blocked  []string           // the unregistered drivers for which the task waits
}

// Phase is how far the life of a pool has got. A pool never goes back to an earlier phase.
type Phase uint8

const (
	New      Phase = iota // nothing starts yet
	Running               // tasks get their turns
	Draining              // nothing new starts
	Stopping              // a change that cannot be recorded is given up
	Stopped               // no goroutine is started any more
)
