package main

import (
	"context"
	"errors"

	"github.com/conveyor-go/conveyor"
)

// unfinished is the run of the build that an earlier start left unfinished, with its log. The run is nil if there is none.
type unfinished struct {
	run *conveyor.Run
	log []conveyor.LogLine
}

// unfinishedRun reads the run that an earlier start left unfinished. The engine must not be started yet, so that the run
// does not change meanwhile.
func (a *app) unfinishedRun(ctx context.Context, e *conveyor.Engine) (unfinished, error) {
	object, err := e.Get(ctx, a.build.Key())
	if errors.Is(err, conveyor.ErrNotFound) {
		return unfinished{}, nil
	}
	if err != nil {
		return unfinished{}, err
	}
	run, err := e.GetRun(ctx, object.Status.Run)
	if errors.Is(err, conveyor.ErrNotFound) || err == nil && run.State.Final() {
		return unfinished{}, nil
	}
	if err != nil {
		return unfinished{}, err
	}
	left := unfinished{run: run}
	for line, err := range e.Logs(ctx, object.Status.Run, conveyor.LogOptions{}) {
		if err != nil {
			return unfinished{}, err
		}
		left.log = append(left.log, line)
	}
	return left, nil
}

func (u unfinished) is(run *conveyor.Run) bool { return u.run != nil && u.run.ID == run.ID }
