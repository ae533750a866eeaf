// Package sched decides whose turn it is. It holds the tasks that wait for a worker, a time, a semaphore, a driver or an
// abandoned call, and counts what is under way. It has one lock, no goroutine and no clock. It must not know what a task is.
package sched

import "github.com/conveyor-go/conveyor/internal/fair"

// Task is what a pool knows of a unit of work: where it waits, and for what. A zero Task with an ID, a Key and an Owner
// can be given to [Pool.Take]. Tasks with an equal Key wait for each other's abandoned calls.
type Task[K comparable, T any] struct {
	ID    string
	Key   K
	Owner T

	// Pool.mu guards what follows.
	lane     string                 // the lane in which the task waits for its turn
	state    uint8                  // as the owner last reported it
	begun    bool                   // the task goes before those that have not begun
	stranded bool                   // nothing can go on with it; see Strand
	turn     fair.Item[*Task[K, T]] // the place in Pool.ready
	since    int64                  // when the task began to wait for a worker
	times                           // for which the task waits
	room     membership[K, T]       // where the task stands with the run limit of its pipeline
	waits    []*wait[K, T]          // the places in the queues of semaphores
	grants   []grant[K, T]          // the places that are reserved for the task
	blocked  []string               // the unregistered drivers for which the task waits
}

// The ranks of tasks that wait, in the order in which they are served.
const (
	rankBegun   = iota // the task has begun
	rankGranted        // the task has not begun, and has a place that nobody else can use in the meantime
	rankNew
)

// rank returns the rank with which a task waits for its turn.
func (t *Task[K, T]) rank() int {
	switch {
	case t.begun:
		return rankBegun
	case len(t.grants) > 0 || t.room.of != nil:
		return rankGranted
	}
	return rankNew
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
