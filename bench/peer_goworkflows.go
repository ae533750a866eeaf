package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/cschleiden/go-workflows/backend"
	"github.com/cschleiden/go-workflows/backend/history"
	"github.com/cschleiden/go-workflows/backend/monoprocess"
	workflowsqlite "github.com/cschleiden/go-workflows/backend/sqlite"
	"github.com/cschleiden/go-workflows/client"
	"github.com/cschleiden/go-workflows/core"
	"github.com/cschleiden/go-workflows/registry"
	"github.com/cschleiden/go-workflows/worker"
	"github.com/cschleiden/go-workflows/workflow"
)

var goWorkflowsMemory = contender{
	name:    "cschleiden/go-workflows, in memory",
	class:   memory,
	module:  "github.com/cschleiden/go-workflows",
	records: "the history of the workflow with an activity for each step, in SQLite in memory",
	open: func(ctx context.Context, at site) (session, error) {
		return openGoWorkflows(ctx, workflowsqlite.NewInMemoryBackend(quietBackend), at)
	},
}

var goWorkflowsSQLite = contender{
	name:    "cschleiden/go-workflows, SQLite",
	class:   durable,
	module:  "github.com/cschleiden/go-workflows",
	records: "the history of the workflow with an activity for each step",
	syncs: sqliteSyncs + "; a transaction for the start, and four for each step: its activity and its workflow are " +
		"each taken and completed",
	open: func(ctx context.Context, at site) (session, error) {
		if err := useFdatasync(); err != nil {
			return nil, err
		}
		path := filepath.Join(at.dir, "workflows.db") + sqliteParams // the backend makes a URL of the path
		return openGoWorkflows(ctx, workflowsqlite.NewSqliteBackend(path, quietBackend), at)
	},
}

var quietBackend = workflowsqlite.WithBackendOptions(backend.WithLogger(slog.New(slog.DiscardHandler)))

// goWorkflowsSession creates a workflow instance for each run, with a worker in this process.
type goWorkflowsSession struct {
	backend *endingBackend
	client  *client.Client
	worker  *worker.Worker
	stop    context.CancelFunc
	closeDB func() error
}

// endingBackend signals the committed end of an instance, so that the session does not have to poll for it.
type endingBackend struct {
	backend.Backend
	ended sync.Map // chan error of size 1 by the id of the instance; the worker sends once
}

func (b *endingBackend) CompleteWorkflowTask(ctx context.Context, task *backend.WorkflowTask,
	state core.WorkflowInstanceState, executed, activities, timers []*history.Event, events []*history.WorkflowEvent,
) error {
	err := b.Backend.CompleteWorkflowTask(ctx, task, state, executed, activities, timers, events)
	if err == nil && state == core.WorkflowInstanceStateFinished {
		if ended, ok := b.ended.LoadAndDelete(task.WorkflowInstance.InstanceID); ok {
			ended.(chan error) <- workflowError(executed)
		}
	}
	return err
}

// workflowError returns the error of a workflow from its last events, or nil if the workflow succeeded.
func workflowError(executed []*history.Event) error {
	for _, event := range executed {
		if end, ok := event.Attributes.(*history.ExecutionCompletedAttributes); ok && end.Error != nil {
			return errors.New(end.Error.Error())
		}
	}
	return nil
}

func openGoWorkflows(ctx context.Context, b backend.Backend, at site) (session, error) {
	ending := &endingBackend{Backend: b}
	mono := monoprocess.NewMonoprocessBackend(ending)
	opts := worker.DefaultOptions
	opts.WorkflowExecutorCacheSize = max(opts.WorkflowExecutorCacheSize, 2*at.flight)
	opts.WorkflowExecutorCacheTTL = time.Minute
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &goWorkflowsSession{
		backend: ending, client: client.New(mono), worker: worker.New(mono, &opts), stop: stop, closeDB: closerOf(b),
	}
	activity := func(_ context.Context, wanted spec, n int) (bool, error) {
		at.do(wanted.ID, n)
		return true, nil
	}
	five := func(ctx workflow.Context, wanted spec) (bool, error) {
		for n := 1; n <= steps; n++ {
			done := workflow.ExecuteActivity[bool](ctx, workflow.DefaultActivityOptions, activity, wanted, n)
			if _, err := done.Get(ctx); err != nil {
				return false, err
			}
		}
		return true, nil
	}
	if err := s.worker.RegisterActivity(activity); err != nil {
		return nil, err
	}
	if err := s.worker.RegisterWorkflow(five, registry.WithName("five")); err != nil {
		return nil, err
	}
	return s, s.worker.Start(ctx)
}

func closerOf(b backend.Backend) func() error {
	if c, ok := b.(io.Closer); ok {
		return c.Close
	}
	return func() error { return nil }
}

func (s *goWorkflowsSession) run(ctx context.Context, id string) error {
	ended := make(chan error, 1)
	s.backend.ended.Store(id, ended)
	_, err := s.client.CreateWorkflowInstance(ctx, client.WorkflowInstanceOptions{InstanceID: id}, "five", newSpec(id))
	if err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *goWorkflowsSession) close(context.Context) error {
	s.stop()
	if err := s.worker.WaitForCompletion(); err != nil {
		return fmt.Errorf("stop the worker: %w", err)
	}
	return s.closeDB()
}
