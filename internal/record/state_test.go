package record

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/plan"
)

// stateOf returns a running run of a plan in which each step has a driver of its own name.
func stateOf(p *plan.Plan, steps ...Step) *RunState {
	r := &RunState{ID: "r", Rec: Run{State: plan.Running}, Plan: p.Ready()}
	for _, s := range steps {
		r.Steps = append(r.Steps, StepState{Rec: s})
	}
	return r
}

func twoSteps(independent bool) *plan.Plan {
	return &plan.Plan{Independent: independent, Steps: []plan.Step{{ID: "1", Driver: "a"}, {ID: "2", Driver: "b"}}}
}

func TestTheStateOfARunIsThatOfItsMostActiveStep(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []Step
		want  plan.State
	}{
		{"nothing has begun", []Step{{}, {}}, plan.Running},
		{"between two steps", []Step{{State: plan.Succeeded}, {}}, plan.Running},
		{"one runs", []Step{{State: plan.Retrying}, {State: plan.Running}}, plan.Running},
		{"one retries", []Step{{State: plan.Waiting}, {State: plan.Retrying}}, plan.Retrying},
		{"one waits", []Step{{State: plan.Blocked}, {State: plan.Waiting}}, plan.Waiting},
		{"one is blocked", []Step{{State: plan.Failed}, {State: plan.Blocked}}, plan.Blocked},
		{"one is queued", []Step{{State: plan.Queued}, {}}, plan.Running},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, stateOf(twoSteps(true), c.steps...).State()) })
	}
	final := stateOf(twoSteps(true), Step{State: plan.Blocked}, Step{})
	final.Rec.State = plan.Canceled
	require.Equal(t, plan.Canceled, final.State())
}

func TestSleepsUntil(t *testing.T) {
	for _, c := range []struct {
		name     string
		deadline Time
		steps    []Step
		want     Time
	}{
		{"a step can start", 9, []Step{{}, {}}, 0},
		{"a call was cut short", 9, []Step{{State: plan.Running}, {State: plan.Retrying, Due: 5}}, 0},
		{"all is over", 9, []Step{{State: plan.Succeeded}, {State: plan.Succeeded}}, 0},
		{"until the first of two", 0, []Step{{State: plan.Waiting, Due: 7}, {State: plan.Retrying, Due: 5}}, 5},
		{"until the deadline", 4, []Step{{State: plan.Waiting, Due: 7}, {State: plan.Retrying, Due: 5}}, 4},
		{"for a signal without a limit", 0, []Step{{State: plan.Waiting, Await: "go"}, {State: plan.Succeeded}}, 0},
		{"for a signal until the deadline", 4, []Step{{State: plan.Waiting, Await: "go"}, {State: plan.Succeeded}}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := stateOf(twoSteps(true), c.steps...)
			r.Rec.Deadline = c.deadline
			require.Equal(t, c.want, r.SleepsUntil(1))
		})
	}
	require.Zero(t, (&RunState{Rec: Run{Deadline: 4}}).SleepsUntil(1), "a run that has not begun")
}

// TestTimesFromLater looks at times that were recorded before the clock was set back.
func TestTimesFromLater(t *testing.T) {
	const now, hour = Time(1_000 * time.Hour), time.Hour
	var s Step
	require.False(t, s.WaitsFromLater(now))
	for _, state := range []plan.State{plan.Waiting, plan.Retrying, plan.Blocked} {
		s.State = state
		s.WaitFor(now, hour)
		require.Equal(t, now.Add(hour), s.Due)
		require.False(t, s.WaitsFromLater(now))
		require.False(t, s.WaitsFromLater(now-ClockTolerance))
		require.Equal(t, state != plan.Blocked, s.WaitsFromLater(now-ClockTolerance-1))
		s.Delay = 0
		require.False(t, s.WaitsFromLater(1), "an earlier version has not recorded how long it waits")
	}
	s.State = plan.Waiting
	s.WaitFor(now, hour)
	r := stateOf(twoSteps(true), s, Step{State: plan.Succeeded})
	require.Equal(t, now.Add(hour), r.SleepsUntil(now))
	require.Zero(t, r.SleepsUntil(now-Time(hour)), "it must be corrected")
	s.WaitFor(0, 0)
	r = stateOf(twoSteps(true), s, Step{State: plan.Succeeded})
	r.Plan.Timeout, r.Rec.Deadline = document.Duration(hour), now.Add(hour)
	require.False(t, r.Rec.RunsFromLater(r.Plan, now-ClockTolerance))
	require.True(t, r.Rec.RunsFromLater(r.Plan, now-ClockTolerance-1))
	require.Equal(t, now.Add(hour), r.SleepsUntil(now))
	require.Zero(t, r.SleepsUntil(now-Time(hour)))
}

func TestIsBlockedBy(t *testing.T) {
	p := twoSteps(true)
	p.Finally = []plan.Step{{ID: "3", Driver: "c"}}
	r := stateOf(p, Step{State: plan.Blocked}, Step{State: plan.Running}, Step{State: plan.Blocked})
	require.True(t, r.IsBlockedBy("a"))
	require.False(t, r.IsBlockedBy("b"), "it is not blocked")
	require.True(t, r.IsBlockedBy("c"))
	r.Rec.Outcome = plan.Failed
	require.False(t, r.IsBlockedBy("a"), "only Finally is left")
	require.True(t, r.IsBlockedBy("c"))
}

func TestTheLifeOfAStep(t *testing.T) {
	s := &Step{State: plan.Queued, Reason: "x", Due: 4}
	s.Begin(10)
	require.Equal(t, &Step{State: plan.Running, Attempt: 1, Started: 10}, s)
	s.Interrupt()
	require.Equal(t, &Step{State: plan.Queued, Attempt: 1, Started: 10, Resumed: true, Again: true, Interruptions: 1}, s)
	s.Begin(20)
	require.Equal(t, 1, s.Attempt, "the number of an interrupted attempt is used again")

	waits := []Wait{{Signal: "go", From: 20}}
	s.State, s.Await, s.Due, s.Waits = plan.Waiting, "go", 30, waits
	asleep := *s
	require.True(t, (&RunState{Steps: []StepState{{Rec: asleep}}}).Awaits())
	s.WakeUp(25, &Signal{Payload: []byte(`1`)})
	require.Equal(t, plan.Queued, s.State)
	require.Equal(t, `1`, string(s.Signal))
	require.Equal(t, []Wait{{Signal: "go", From: 20, To: 25}}, s.Waits)
	require.Equal(t, []Wait{{Signal: "go", From: 20}}, waits, "the record before the wake-up has changed")
	require.False(t, (&RunState{Steps: []StepState{{Rec: *s}}}).Awaits())
	asleep.WakeUp(30, nil)
	require.True(t, asleep.TimedOut)
	require.Equal(t, []Wait{{Signal: "go", From: 20, To: 30, TimedOut: true}}, asleep.Waits)
}
