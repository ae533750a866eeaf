package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// printLog prints the whole log that is kept of a step of the newest run. It changes nothing.
func (a *app) printLog(ctx context.Context, out io.Writer) (err error) {
	if !exists(filepath.Join(a.data, storeFile)) {
		return usageError{fmt.Errorf("-log: nothing was built in %s yet", a.data)}
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	e, err := conveyor.New(st, conveyor.Options{})
	if err != nil {
		return err
	}
	run, err := a.newestRun(ctx, e)
	if err != nil {
		return err
	}
	step := run.Step(a.log)
	if step == nil {
		return usageError{fmt.Errorf("-log: run %s has no step %q; its steps are %s", run.ID, a.log, stepIDs(run))}
	}
	fmt.Fprintln(out, printable(fmt.Sprintf("%s: run %s, step %s %s: %s", run.Resource, run.ID, step.ID, step.Name, step.State)))
	for line, err := range e.Logs(ctx, run.ID, conveyor.LogOptions{Step: step.ID}) {
		if err != nil {
			return err
		}
		fmt.Fprintln(out, lineText(line))
	}
	return nil
}

// newestRun returns the newest run of the build.
func (a *app) newestRun(ctx context.Context, e *conveyor.Engine) (*conveyor.Run, error) {
	for run, err := range e.Runs(ctx, conveyor.RunFilter{Resource: a.build.Key(), Newest: true, Limit: 1}) {
		return run, err
	}
	return nil, usageError{fmt.Errorf("-log: %s was not built in %s yet", a.build.Key(), a.data)}
}

func stepIDs(run *conveyor.Run) string {
	var ids []string
	for _, step := range run.Steps {
		ids = append(ids, step.ID)
	}
	return strings.Join(ids, ", ")
}
