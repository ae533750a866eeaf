package main

import (
	"context"
	"strconv"
	"time"
)

// steps is the number of steps of a run.
const steps = 5

// spec is the desired state of the resource of a run.
type spec struct {
	ID         string `json:"id"` // of the run
	Repository string `json:"repository"`
}

func newSpec(id string) spec { return spec{ID: id, Repository: "https://example.com/app.git"} }

// step is called by a contender for each step of a run, with the id of the run and the number of the step. The first step
// has the number 1. Calls for different runs can be concurrent.
type step func(id string, number int)

// class says which contenders are compared with each other.
type class int

const (
	floor   class = iota + 1 // a limit of the machine
	memory                   // its records are lost when the process ends
	durable                  // it syncs a record to the disk before it acknowledges the record
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

// contender is one way to execute runs of five steps.
type contender struct {
	name    string // its name in the tables
	class   class
	module  string // the module whose version is printed; empty for code of this folder
	records string // what the contender records of a run
	syncs   string // when the records are on the disk; empty if never
	unit    string // what the contender does instead of a run; empty if it does runs

	open func(ctx context.Context, at site) (session, error)
}

// site holds the arguments for opening a contender.
type site struct {
	dir    string // an empty folder of its own
	flight int    // the most runs that will be in flight at once
	do     step
}

// session is an open contender.
type session interface {
	// run submits one run and returns when the run is known to have ended. Calls for different ids can be concurrent.
	run(ctx context.Context, id string) error
	// close stops everything that open started. It is called once, when no run is in flight.
	close(ctx context.Context) error
}

// syncCounter is an optional interface of a session. It returns how often the session has synced a file. It is used when
// the system calls cannot be counted.
type syncCounter interface {
	synced() (int64, error)
}

// contenders returns the contenders in the order of the tables.
func contenders() []contender {
	return []contender{
		errgroupLoop, appendLoop, boltLoop,
		conveyorMemory, workqueueRecorded, workqueueSteps, workqueueRuns, azureWorkflow, taskflow, goWorkflowsMemory,
		conveyorFile, dbosSQLite, goWorkflowsSQLite, riverSQLite,
	}
}

// runName returns the id of the nth run of a session.
func runName(n int64) string { return "run-" + strconv.FormatInt(n, 10) }

// runTimeout is the time after which a contender counts as stuck if a single run has not ended.
const runTimeout = 2 * time.Minute

// closeTimeout is the time in which a contender must stop.
const closeTimeout = 30 * time.Second
