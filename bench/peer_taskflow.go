package main

import (
	"context"

	gotaskflow "github.com/noneback/go-taskflow"
)

var taskflow = contender{
	name:    "noneback/go-taskflow",
	class:   memory,
	module:  "github.com/noneback/go-taskflow",
	records: "the state of each task, in the graph that is built for the run",
	open:    openTaskflow,
}

// taskflowSession builds a graph for each run. An executor can only wait for all its graphs, so each executor has one graph
// at a time.
type taskflowSession struct {
	do   step
	idle chan gotaskflow.Executor // one for each run in flight
}

func openTaskflow(_ context.Context, at site) (session, error) {
	s := &taskflowSession{do: at.do, idle: make(chan gotaskflow.Executor, at.flight)}
	for range at.flight {
		s.idle <- gotaskflow.NewExecutor(1)
	}
	return s, nil
}

func (s *taskflowSession) run(_ context.Context, id string) error {
	wanted := newSpec(id)
	graph := gotaskflow.NewTaskFlow(id)
	var before *gotaskflow.Task
	for n := 1; n <= steps; n++ {
		task := graph.NewTask("step", func() { s.do(wanted.ID, n) })
		if before != nil {
			before.Precede(task)
		}
		before = task
	}
	executor := <-s.idle
	executor.Run(graph).Wait()
	s.idle <- executor
	return nil
}

func (s *taskflowSession) close(context.Context) error { return nil }
