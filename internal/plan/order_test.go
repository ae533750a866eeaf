package plan

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNextOfFinally(t *testing.T) {
	for _, c := range []struct {
		name        string
		states      []State // of two steps, and of two of Finally
		stop        bool
		stopFinally bool
		start       []int
		over        bool
	}{
		{"not before the steps", []State{Succeeded, Running, Unset, Unset}, false, false, nil, false},
		{"not while a step waits", []State{Succeeded, Waiting, Unset, Unset}, false, false, nil, false},
		{"after a success", []State{Succeeded, Succeeded, Unset, Unset}, false, false, []int{2}, false},
		{"after a failure", []State{Failed, Unset, Unset, Unset}, false, false, []int{2}, false},
		{"after a stop", []State{Succeeded, Unset, Unset, Unset}, true, false, []int{2}, false},
		{"not while a stopped step runs", []State{Running, Unset, Unset, Unset}, true, false, nil, false},
		{"one after the other", []State{Succeeded, Succeeded, Running, Unset}, false, false, nil, false},
		{"not while the first retries", []State{Succeeded, Succeeded, Retrying, Unset}, false, false, nil, false},
		{"after a failure of the first", []State{Succeeded, Succeeded, Failed, Unset}, false, false, []int{3}, false},
		{"to the end", []State{Succeeded, Succeeded, Failed, Succeeded}, false, false, nil, true},
		{"nothing if it is to stop too", []State{Succeeded, Unset, Unset, Unset}, true, true, nil, true},
		{"what runs ends first", []State{Succeeded, Unset, Running, Unset}, true, true, nil, false},
		{"what waits is given up", []State{Succeeded, Unset, Waiting, Unset}, true, true, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := (&Plan{Steps: steps("a", "b"), Finally: steps("x", "y")}).Ready()
			start, over := p.Next(c.states, c.stop, c.stopFinally)
			require.Equal(t, c.start, start)
			require.Equal(t, c.over, over)
		})
	}
}

func TestThroughSucceededAndFailedCleanup(t *testing.T) {
	p := (&Plan{Steps: steps("a", "b"), Finally: steps("x", "y", "z")}).Ready()
	p.Steps[0].ContinueOnError, p.Finally[0].ContinueOnError = true, true
	for _, c := range []struct {
		name      string
		states    []State
		through   bool
		succeeded bool
		cleanup   int
	}{
		{"at work", []State{Succeeded, Running, Unset, Unset, Unset}, false, false, -1},
		{"a tolerated failure", []State{Failed, Unset, Unset, Unset, Unset}, false, false, -1},
		{"a success after a tolerated failure", []State{Failed, Succeeded, Unset, Unset, Unset}, true, true, -1},
		{"a failure", []State{Succeeded, Failed, Unset, Unset, Unset}, true, false, -1},
		{"a tolerated failure of Finally", []State{Succeeded, Skipped, Failed, Succeeded, Succeeded}, true, true, -1},
		{"the first of two failures of Finally", []State{Succeeded, Skipped, Succeeded, Failed, Failed}, true, true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.through, p.Through(c.states, false))
			require.Equal(t, c.succeeded, p.Succeeded(c.states))
			require.Equal(t, c.cleanup, p.FailedCleanup(c.states))
		})
	}
	require.True(t, p.Through([]State{Unset, Unset, Unset, Unset, Unset}, true))
}

func TestNextOfAVeryLongList(t *testing.T) {
	p := planOf(2*len(positions), false)
	states := make([]State, p.Len())
	for i := range states {
		start, over := p.Next(states, false, false)
		require.False(t, over)
		require.Equal(t, []int{i}, start)
		states[i] = Succeeded
	}
}

func TestUnplanned(t *testing.T) {
	p := &Plan{Steps: steps("a"), Finally: steps("x"), Timeout: 7}
	u := p.Unplanned("ci")
	require.Equal(t, "a", p.Steps[0].ID, "the plan itself has changed")
	require.Equal(t, []Step{{ID: PlannerStep, Name: "Plan the steps", Driver: ".plan/ci"}}, u.Steps)
	require.Equal(t, p.Finally, u.Finally)
	require.Equal(t, p.Timeout, u.Timeout)
	require.True(t, u.Plans(0))
	require.False(t, u.Plans(1))
	require.False(t, p.Plans(0))
}

func TestCheckOfPlansThatWereRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		plan  Plan
		sound bool
	}{
		{"a list", Plan{Steps: steps("a", "b")}, true},
		{"nothing", Plan{}, false},
		{"only Finally", Plan{Finally: steps("x")}, false},
		{"nothing to finalize", Plan{Finalize: true}, true},
		{"a cycle", Plan{Steps: steps("a:b", "b:a")}, false},
		{"an unknown predecessor", Plan{Steps: steps("a:b")}, false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.sound, c.plan.Check() == "") })
	}
}

func TestStatesAreWrittenByTheirNames(t *testing.T) {
	for s := Unset; s < NumStates; s++ {
		text, err := s.MarshalText()
		require.NoError(t, err)
		back := State(99)
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, s, back)
		require.Equal(t, s >= Succeeded, s.Final())
	}
	require.Equal(t, "unset", Unset.String())
	require.Equal(t, "state(12)", NumStates.String())
	_, err := NumStates.MarshalText()
	require.Error(t, err)
	require.Error(t, new(State).UnmarshalText([]byte("unset")))
}

func TestACloneSharesNothing(t *testing.T) {
	s := Step{ID: "a", After: []string{"b"}, With: []byte("1")}
	c := s.Clone()
	require.Equal(t, s, c)
	c.After[0], c.With[0] = "x", '2'
	require.Equal(t, "b", s.After[0])
	require.Equal(t, "1", string(s.With))
}
