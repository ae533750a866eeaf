// Package sched decides whose turn it is. It holds what waits for a worker, a time, a semaphore, a driver or an abandoned
// call, and counts what is under way. It has one lock, no goroutine and no clock, and it does not know what a task is.
package sched

import "time"

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
