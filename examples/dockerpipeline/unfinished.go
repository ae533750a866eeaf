package main

import (
	"context"
	"errors"

	"github.com/conveyor-go/conveyor"
)

// past is what an earlier start left unfinished of the build.
type past struct {
	run *conveyor.Run
	log []conveyor.LogLine
}

// past reads what was left; its run is nil if nothing was. The engine is not started yet, so all of it stands still.
func (a *app) past(ctx context.Context, e *conveyor.Engine) (past, error) {
	object, err := e.Get(ctx, a.build.Key())
	if errors.Is(err, conveyor.ErrNotFound) {
		return past{}, nil
	}
	if err != nil {
		return past{}, err
	}
	run, err := e.GetRun(ctx, object.Status.Run)
	if errors.Is(err, conveyor.ErrNotFound) || err == nil && run.State.Final() {
		return past{}, nil
	}
	left := past{run: run}
	for line, err := range e.Logs(ctx, object.Status.Run, conveyor.LogOptions{}) {
		if err != nil {
			return past{}, err
		}
		left.log = append(left.log, line)
	}
	return left, err
}

func (p past) is(run *conveyor.Run) bool { return p.run != nil && p.run.ID == run.ID }
