package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/conveyor-go/conveyor"
)

// announce prints which run is shown, and returns the progress that will show it.
func (a *app) announce(out io.Writer, run *conveyor.Run, earlier unfinished) *progress {
	fmt.Fprintln(out, printable(fmt.Sprintf("%s: run %s, data in %s", a.build.Key(), run.ID, a.data)))
	p := newProgress(out, a.stepsOf(run))
	switch {
	case earlier.is(run):
		fmt.Fprintln(out, "an earlier start was interrupted; this one goes on with its run")
		p.restore(earlier.run, earlier.log)
	case earlier.run != nil:
		fmt.Fprintf(out, "run %s, of an earlier specification, is finished first\n", earlier.run.ID)
	}
	return p
}

// stepsOf returns the steps that the run was started with. They can be older than the pipeline of this start.
func (a *app) stepsOf(run *conveyor.Run) []conveyor.Step {
	if len(run.Steps) == 0 {
		return a.pipeline.Steps
	}
	var steps []conveyor.Step
	for _, s := range run.Steps {
		steps = append(steps, s.Step)
	}
	return steps
}

// report prints the result of a run that has ended. It returns an error if the run did not succeed.
func (a *app) report(run *conveyor.Run, out io.Writer) error {
	failed := (*conveyor.StepError)(nil)
	if err := run.Err(); errors.As(err, &failed) {
		return failure(run.Step(failed.Step), failed)
	} else if err != nil {
		return err
	}
	if run.State != conveyor.StateSucceeded {
		return fmt.Errorf("run %s: %s: %s", run.ID, run.State, run.Reason)
	}
	for _, step := range run.Steps {
		a.reportOutput(out, step.Output)
	}
	return nil
}

// reportOutput prints the output of a step if the output is an image or a publication.
func (a *app) reportOutput(out io.Writer, output json.RawMessage) {
	var made struct {
		image
		publication
	}
	if json.Unmarshal(output, &made) != nil {
		return
	}
	if made.Layout != "" {
		fmt.Fprintln(out, printable("layout "+made.Layout))
	}
	if strings.HasPrefix(made.Reference, a.registry+"/") {
		fmt.Fprintln(out, "the built-in registry ends with this program; the layout stays until the next start")
	}
	if made.Reference != "" {
		fmt.Fprintln(out, printable("image "+made.Reference))
	}
}

// failure returns an error that names the failed step and says why it failed. The reason comes last, so that it is the last
// text on the screen.
func failure(step *conveyor.StepRun, failed *conveyor.StepError) error {
	return fmt.Errorf("step %s (%s, driver %s) failed in attempt %d; with the same flags and -log %s, its whole log is shown\n%w",
		step.ID, step.Name, step.Driver, failed.Attempt, step.ID, failed.Err)
}
