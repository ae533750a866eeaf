package main

import (
	"context"

	flow "github.com/Azure/go-workflow"
)

var azureWorkflow = contender{
	name:    "Azure/go-workflow",
	class:   memory,
	module:  "github.com/Azure/go-workflow",
	records: "the state of each step, in the workflow that is built for the run",
	open: func(_ context.Context, at site) (session, error) {
		return azureSession{do: at.do}, nil
	},
}

// azureSession builds and executes a workflow for each run. The steps of the workflow form a pipe.
type azureSession struct{ do step }

func (s azureSession) run(ctx context.Context, id string) error {
	wanted := newSpec(id)
	pipe := make([]flow.Steper, steps)
	for i := range pipe {
		pipe[i] = flow.Func("step", func(context.Context) error {
			s.do(wanted.ID, i+1)
			return nil
		})
	}
	var w flow.Workflow
	w.Add(flow.Pipe(pipe...))
	return w.Do(ctx)
}

func (s azureSession) close(context.Context) error { return nil }
