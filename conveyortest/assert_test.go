package conveyortest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/conveyortest"
)

var failed = &conveyor.Run{
	ID: "01", Resource: conveyor.Key{Type: "build", Name: "app"}, State: conveyor.StateFailed, Reason: "step 2 failed",
	Steps: []conveyor.StepRun{
		{Step: conveyor.Step{ID: "1", Driver: "cloner"}, State: conveyor.StateSucceeded, Attempt: 1, Output: []byte(`{"a":1,"b":[2]}`)},
		{Step: conveyor.Step{ID: "2", Driver: "tester"}, State: conveyor.StateFailed, Attempt: 3, Reason: "flaky", Attempts: []conveyor.Attempt{
			{Number: 3, Error: "flaky", Frame: "main.Tester.Reconcile main.go:42"},
		}},
	},
}

const failedText = `run 01 of build/app: failed: step 2 failed
  step 1 (cloner): succeeded
  step 2 (tester): failed, attempt 3: flaky
    panicked at main.Tester.Reconcile main.go:42`

func TestAssertionsTellWhatIsWrong(t *testing.T) {
	calls := []conveyortest.Call{{Driver: "cloner", Attempt: 1}, {Driver: "tester", Attempt: 2, Resumed: true}}
	output := map[string]any{"b": []int{2}, "a": 1}
	for _, c := range []struct {
		name   string
		assert func(t testing.TB)
		want   []string
	}{
		{"the calls there were", func(t testing.TB) { conveyortest.AssertCalls(t, calls, "cloner", "tester/2 resumed") }, nil},
		{"no calls", func(t testing.TB) { conveyortest.AssertCalls(t, nil) }, nil},
		{"other calls", func(t testing.TB) { conveyortest.AssertCalls(t, calls, "cloner", "tester") },
			[]string{"calls of drivers:\n  want cloner, tester\n  got  cloner, tester/2 resumed"}},
		{"calls where there were none", func(t testing.TB) { conveyortest.AssertCalls(t, nil, "cloner") },
			[]string{"calls of drivers:\n  want cloner\n  got  none"}},
		{"the state there is", func(t testing.TB) { conveyortest.AssertRun(t, failed, conveyor.StateFailed) }, nil},
		{"the states there are", func(t testing.TB) {
			conveyortest.AssertRun(t, failed, conveyor.StateFailed, conveyor.StateSucceeded, conveyor.StateFailed)
		}, nil},
		{"another state", func(t testing.TB) { conveyortest.AssertRun(t, failed, conveyor.StateSucceeded) },
			[]string{"want a run that is succeeded, got\n" + failedText}},
		{"other states of steps", func(t testing.TB) {
			conveyortest.AssertRun(t, failed, conveyor.StateFailed, conveyor.StateSucceeded, conveyor.StateSkipped)
		}, []string{"want steps that are [succeeded skipped], got\n" + failedText}},
		{"a run that is not there", func(t testing.TB) {
			conveyortest.AssertRun(t, nil, conveyor.StateSucceeded)
			conveyortest.AssertOutput(t, nil, "1", 1)
		}, []string{"there is no run; want one that is succeeded", "there is no run; want one with an output of step 1"}},
		{"the output there is", func(t testing.TB) { conveyortest.AssertOutput(t, failed, "1", output) }, nil},
		{"no output", func(t testing.TB) { conveyortest.AssertOutput(t, failed, "2", nil) }, nil},
		{"another output", func(t testing.TB) { conveyortest.AssertOutput(t, failed, "1", "x") },
			[]string{"output of step 1:\n  want \"x\"\n  got  {\"a\":1,\"b\":[2]}"}},
		{"an output where there is none", func(t testing.TB) { conveyortest.AssertOutput(t, failed, "2", 1) },
			[]string{"output of step 2:\n  want 1\n  got  none"}},
		{"an output of no step", func(t testing.TB) { conveyortest.AssertOutput(t, failed, "3", 1) },
			[]string{"want an output of step 3, which is not there:\n" + failedText}},
		{"an output that cannot be", func(t testing.TB) { conveyortest.AssertOutput(t, failed, "1", func() {}) },
			[]string{"output of step 1: want a func(), which is not JSON: json: unsupported type: func()"}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, during(c.assert)) })
	}
}
