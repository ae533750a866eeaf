package plan

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func BenchmarkPlanNext(b *testing.B) {
	for _, steps := range []int{5, 50, 250} {
		for _, graph := range []bool{false, true} {
			p := &Plan{}
			for i := range steps {
				s := Step{ID: fmt.Sprint(i), Driver: "d"}
				if graph && i > 0 {
					s.After = []string{fmt.Sprint(i - 1)}
				}
				p.Steps = append(p.Steps, s)
			}
			p.Ready()
			states := make([]State, steps) // half of them done
			for i := range steps / 2 {
				states[i] = Succeeded
			}
			b.Run(fmt.Sprintf("steps=%d/graph=%t", steps, graph), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if start, _ := p.Next(states, false, false); len(start) != 1 {
						b.Fatal(start)
					}
				}
			})
		}
	}
}

func planOf(n int, independent bool) *Plan {
	p := &Plan{Independent: independent}
	for i := range n {
		p.Steps = append(p.Steps, Step{ID: fmt.Sprint(i + 1), Driver: "d"})
	}
	return p
}

func TestPlanNext(t *testing.T) {
	const (
		unset, queued, running, retrying, waiting = Unset, Queued, Running, Retrying, Waiting
		blocked, done, failed, skipped, canceled  = Blocked, Succeeded, Failed, Skipped, Canceled
	)
	for _, c := range []struct {
		name        string
		states      []State
		stop        bool
		start       []int
		over        bool
		independent bool
	}{
		{"the first step at first", []State{unset, unset}, false, []int{0}, false, false},
		{"nothing while it runs", []State{running, unset}, false, nil, false, false},
		{"nothing while it waits for a retry", []State{retrying, unset}, false, nil, false, false},
		{"nothing while it waits", []State{waiting, unset}, false, nil, false, false},
		{"the first step again when it is due", []State{queued, unset}, false, []int{0}, false, false},
		{"the first step when it is no longer blocked", []State{blocked, unset}, false, []int{0}, false, false},
		{"the second after the first", []State{done, unset}, false, []int{1}, false, false},
		{"the third after a skip", []State{done, skipped, unset, unset}, false, []int{2}, false, false},
		{"nothing after a failure", []State{done, failed, unset}, false, nil, true, false},
		{"nothing after the last", []State{done, skipped}, false, nil, true, false},
		{"nothing of a run that is to stop", []State{done, unset}, true, nil, true, false},
		{"a run that is to stop is not over while a step runs", []State{done, running, unset}, true, nil, false, false},
		{"a run that is to stop does not wait for a retry", []State{done, retrying, unset}, true, nil, true, false},
		{"a run that is to stop does not wait for a requeue", []State{waiting, unset}, true, nil, true, false},
		{"a run that is to stop does not wait for a driver", []State{blocked, unset}, true, nil, true, false},
		{"nothing after a cancelled step", []State{canceled, unset}, false, nil, true, false},
		{"independent steps all at once", []State{unset, unset, unset}, false, []int{0, 1, 2}, false, true},
		{"independent steps that are not at work", []State{running, queued, waiting, blocked, retrying, done}, false, []int{1, 3}, false, true},
		{"independent steps in spite of a failure", []State{failed, queued, running}, false, []int{1}, false, true},
		{"independent steps are over when the last has ended", []State{failed, done, skipped}, false, nil, true, true},
		{"independent steps are not over while one waits", []State{failed, done, waiting}, false, nil, false, true},
		{"independent steps stop together", []State{failed, queued, waiting}, true, nil, true, true},
		{"independent steps that run end first", []State{running, queued}, true, nil, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			start, over := planOf(len(c.states), c.independent).Next(c.states, c.stop, false)
			require.Equal(t, c.start, start)
			require.Equal(t, c.over, over)
		})
	}
}

func TestPlanOutcome(t *testing.T) {
	for _, c := range []struct {
		name   string
		states []State
		stop   Stop
		end    State
		step   int
	}{
		{"all succeeded", []State{Succeeded, Skipped}, StopNone, Succeeded, -1},
		{"one failed", []State{Succeeded, Failed, Unset}, StopNone, Failed, 1},
		{"the first of two that failed", []State{Succeeded, Failed, Failed}, StopNone, Failed, 1},
		{"halted", []State{Succeeded, Unset}, StopHalt, Succeeded, -1},
		{"halted while another failed", []State{Succeeded, Failed}, StopHalt, Failed, 1},
		{"cancelled", []State{Canceled, Unset}, StopCancel, Canceled, -1},
		{"cancelled after a failure", []State{Failed, Unset}, StopCancel, Canceled, -1},
		{"superseded", []State{Canceled, Unset}, StopSupersede, Superseded, -1},
		{"out of time while a step ran", []State{Succeeded, Failed}, StopTimeout, Failed, 1},
		{"out of time between steps", []State{Succeeded, Waiting}, StopTimeout, Failed, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			end, step := planOf(len(c.states), false).Outcome(c.states, c.stop)
			require.Equal(t, c.end, end)
			require.Equal(t, c.step, step)
		})
	}
}

var anyState = rapid.SampledFrom([]State{Unset, Queued, Running, Retrying, Waiting, Blocked,
	Succeeded, Failed, Skipped, Canceled})

func TestPlanNextNeverBreaksTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		states := rapid.SliceOfN(anyState, 1, 12).Draw(t, "states")
		stop := rapid.Bool().Draw(t, "stop")
		p := planOf(len(states), rapid.Bool().Draw(t, "independent"))
		before := slices.Clone(states)
		start, over := p.Next(states, stop, false)
		require.Equal(t, before, states)
		require.True(t, slices.IsSorted(start))
		for _, i := range start {
			require.False(t, stop)
			require.False(t, over)
			require.Contains(t, []State{Unset, Queued, Blocked}, states[i])
			if !p.Independent {
				for _, earlier := range states[:i] {
					require.Contains(t, []State{Succeeded, Skipped}, earlier)
				}
			}
		}
		if slices.Contains(states, Running) {
			require.False(t, over)
		}
		if !over && len(start) == 0 {
			require.True(t, slices.ContainsFunc(states, func(s State) bool {
				return s == Running || s == Retrying || s == Waiting
			}), "nothing would ever happen to it")
		}
	})
}

// Whatever the drivers answer, a run comes to an end, and what is left of it follows from the answers.
func TestPlanIsFollowedToItsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "steps")
		p := planOf(n, rapid.Bool().Draw(t, "independent"))
		states := make([]State, n)
		var begun []int
		for turn := 0; ; turn++ {
			require.Less(t, turn, 1000, "no end")
			start, over := p.Next(states, false, false)
			if over {
				break
			}
			for _, i := range start {
				states[i] = Running
				begun = append(begun, i)
			}
			var active []int
			for i, s := range states {
				if s == Running || s == Retrying || s == Waiting {
					active = append(active, i)
				}
			}
			i := rapid.SampledFrom(active).Draw(t, "step")
			if states[i] != Running {
				states[i] = Queued // it is due
				continue
			}
			states[i] = rapid.SampledFrom([]State{Succeeded, Succeeded, Skipped, Failed, Retrying, Waiting}).Draw(t, "answer")
			if turn > 200 {
				states[i] = Succeeded
			}
		}
		end, failed := p.Outcome(states, StopNone)
		require.Equal(t, slices.Contains(states, Failed), end == Failed)
		require.Equal(t, slices.Index(states, Failed), failed)
		if p.Independent {
			require.NotContains(t, states, Unset)
			return
		}
		require.True(t, slices.IsSorted(begun), "order of the starts: %v", begun)
		if end == Succeeded {
			require.NotContains(t, states, Unset)
		} else {
			for _, s := range states[failed+1:] {
				require.Equal(t, Unset, s)
			}
		}
	})
}
