package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/conveyor-go/conveyor"
)

// unfinished is a run that an earlier start left unfinished.
type unfinished struct {
	run  *conveyor.Run
	log  []conveyor.LogLine
	spec BuildSpec
	same bool // the earlier start had the same flags: the run does what this start is to do
}

// unfinishedRuns reads the runs that earlier starts left unfinished, of all resources in the data folder: the engine goes on
// with all of them when it is started. The engine must not be started yet, so that the runs do not change meanwhile.
func (a *app) unfinishedRuns(ctx context.Context, e *conveyor.Engine) (left []unfinished, err error) {
	for run, err := range e.Runs(ctx, conveyor.RunFilter{Unfinished: true}) {
		if err != nil {
			return nil, err
		}
		u := unfinished{run: run}
		if u.spec, err = specOf(ctx, e, run); err != nil {
			return nil, err
		}
		if u.same, err = a.wants(ctx, e, u); err != nil {
			return nil, err
		}
		for line, err := range e.Logs(ctx, run.ID, conveyor.LogOptions{}) {
			if err != nil {
				return nil, err
			}
			u.log = append(u.log, line)
		}
		left = append(left, u)
	}
	return left, nil
}

// specOf returns the spec that a run reconciles.
func specOf(ctx context.Context, e *conveyor.Engine, run *conveyor.Run) (spec BuildSpec, err error) {
	for object, err := range e.Revisions(ctx, run.Resource) {
		if err != nil && !errors.Is(err, conveyor.ErrNotFound) {
			return spec, err
		}
		if err == nil && object.Generation == run.Generation {
			return spec, json.Unmarshal(object.Spec, &spec)
		}
	}
	return spec, nil
}

// wants reports whether a run does what this start is to do: the same build, with the same steps.
func (a *app) wants(ctx context.Context, e *conveyor.Engine, u unfinished) (bool, error) {
	if u.run.Resource != a.build.Key() || u.run.Pipeline != a.build.Pipeline || u.spec != a.build.Spec {
		return false, nil
	}
	if len(u.run.Steps) == 0 {
		return true, nil // it has not begun, and will take the steps of this start
	}
	pipeline, err := e.GetPipeline(ctx, u.run.Pipeline)
	if err != nil {
		return false, err
	}
	var steps []conveyor.Step
	for _, s := range u.run.Steps {
		if !s.Finally {
			steps = append(steps, s.Step)
		}
	}
	begun, err := json.Marshal(steps)
	if err != nil {
		return false, err
	}
	wanted, err := json.Marshal(pipeline.Steps)
	return string(begun) == string(wanted), err
}

// String says what was found.
func (u unfinished) String() string {
	text := fmt.Sprintf("found run %s of an earlier start, of %s: %s is unfinished", u.run.ID,
		u.run.CreatedAt.Local().Format("2006-01-02 15:04"), u.run.Resource)
	for _, s := range u.run.Steps {
		if !s.State.Final() {
			text += fmt.Sprintf(" at step %s (%s)", s.ID, s.Name)
			break
		}
	}
	return printable(text + fmt.Sprintf(": it builds %s and pushes %s", u.spec.Repository, u.spec.Image))
}

func (u unfinished) is(run *conveyor.Run) bool { return u.run != nil && u.run.ID == run.ID }
