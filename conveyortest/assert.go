package conveyortest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/conveyor-go/conveyor"
)

// AssertCalls checks that calls are the wanted ones, in this order. Each call is compared in the form that
// [Call.String] returns.
func AssertCalls(t testing.TB, calls []Call, want ...string) {
	t.Helper()
	var got []string
	for _, c := range calls {
		got = append(got, c.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("calls of drivers:\n  want %s\n  got  %s", list(want), list(got))
	}
}

func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// AssertRun checks the state of a run. If steps are given, it also checks that they are the states of all steps of the
// run, in order.
func AssertRun(t testing.TB, run *conveyor.Run, want conveyor.State, steps ...conveyor.State) {
	t.Helper()
	if run == nil {
		t.Errorf("there is no run; want one that is %s", want)
		return
	}
	var got []conveyor.State
	for i := range run.Steps {
		got = append(got, run.Steps[i].State)
	}
	switch {
	case run.State != want:
		t.Errorf("want a run that is %s, got\n%s", want, describe(run))
	case len(steps) > 0 && !slices.Equal(got, steps):
		t.Errorf("want steps that are %v, got\n%s", steps, describe(run))
	}
}

// AssertOutput checks the output that a step of a run has returned with [conveyor.DoneWith]. Both values are compared
// as JSON, so the order of fields and the Go types make no difference. If want is nil, the step must have no output.
func AssertOutput(t testing.TB, run *conveyor.Run, step string, want any) {
	t.Helper()
	if run == nil {
		t.Errorf("there is no run; want one with an output of step %s", step)
		return
	}
	s := run.Step(step)
	if s == nil {
		t.Errorf("want an output of step %s, which is not there:\n%s", step, describe(run))
		return
	}
	var wanted []byte
	if want != nil {
		var err error
		if wanted, err = json.Marshal(want); err != nil {
			t.Errorf("output of step %s: want a %T, which is not JSON: %v", step, want, err)
			return
		}
	}
	if !sameJSON(s.Output, wanted) {
		t.Errorf("output of step %s:\n  want %s\n  got  %s", step, orNone(wanted), orNone(s.Output))
	}
}

func sameJSON(a, b []byte) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func orNone(data []byte) string {
	if len(data) == 0 {
		return "none"
	}
	return string(data)
}

// describe returns the state of a run as a text, with one line for each step.
func describe(run *conveyor.Run) string {
	text := fmt.Sprintf("run %s of %s: %s", run.ID, run.Resource, run.State)
	if run.Reason != "" {
		text += ": " + run.Reason
	}
	for i := range run.Steps {
		s := &run.Steps[i]
		text += fmt.Sprintf("\n  step %s (%s): %s", s.ID, s.Driver, s.State)
		if s.Attempt > 1 {
			text += fmt.Sprintf(", attempt %d", s.Attempt)
		}
		if s.Reason != "" {
			text += ": " + s.Reason
		}
		if n := len(s.Attempts); n > 0 && s.Attempts[n-1].Frame != "" {
			text += "\n    panicked at " + s.Attempts[n-1].Frame
		}
	}
	return text
}
