package main

import (
	"context"
	"strconv"
	"time"
)

// steps is how many steps a run has.
const steps = 5

// spec is the desired state that every run is given.
type spec struct {
	ID         string `json:"id"` // of the run
	Repository string `json:"repository"`
}

func newSpec(id string) spec { return spec{ID: id, Repository: "https://example.com/app.git"} }

// step is what a contender calls for each step of a run: with the id of the run and the number of the step, counted
// from 1. It is called concurrently for different runs.
type step func(id string, number int)

// class says which contenders are compared with each other.
type class int

const (
	floor   class = iota + 1 // a limit: what the machine can do at all
	memory                   // keeps nothing after the process
	durable                  // what it acknowledges has been synced to the disk
)

func (c class) String() string {
	switch c {
	case floor:
		return "floor"
	case memory:
		return "memory"
	case durable:
		return "durable"
	}
	return "unset"
}

// contender is one way to do runs of five steps.
type contender struct {
	name    string // in the tables
	class   class
	module  string // whose version is printed; empty for code of this folder
	records string // what is kept of a run
	syncs   string // when that is on the disk; empty if never
	unit    string // what it does, if that is not a run

	open func(ctx context.Context, at site) (session, error)
}

// site is where, and for what, a contender is opened.
type site struct {
	dir    string // an empty folder of its own
	flight int    // runs that will be in flight at once, at most
	do     step
}

// session is an open contender.
type session interface {
	// run does one run, from submitting it to its known end. It is called concurrently, for different ids.
	run(ctx context.Context, id string) error
	// close stops all that open started. It is called once, when no run is under way.
	close(ctx context.Context) error
}

// syncCounter is an optional ability of a session: to tell how often it has synced a file. It is asked when the
// system calls cannot be counted.
type syncCounter interface {
	synced() (int64, error)
}

// contenders in the order of the tables.
func contenders() []contender {
	return []contender{
		errgroupLoop, appendLoop, boltLoop,
		conveyorMemory, workqueueRecorded, workqueueSteps, workqueueRuns, azureWorkflow, taskflow, goWorkflowsMemory,
		conveyorFile, dbosSQLite, goWorkflowsSQLite, riverSQLite,
	}
}

// runName is the id of the nth run of a session.
func runName(n int64) string { return "run-" + strconv.FormatInt(n, 10) }

// runTimeout is how long a single run may take before the contender counts as stuck.
const runTimeout = 2 * time.Minute

// closeTimeout is how long a contender may take to stop.
const closeTimeout = 30 * time.Second
