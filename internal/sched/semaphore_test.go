package sched

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// running returns a pool that has begun, and a function that adds a task in the lane of a pipeline.
func running(workers int, left func(string)) (*Pool[string, int], func(id, lane string) *Task[string, int]) {
	p := NewPool[string, int](workers, func() int64 { return 1 }, func() {}, left)
	p.Begin(func() {})
	return p, func(id, lane string) *Task[string, int] {
		return p.Take(id, lane, queued, func() *Task[string, int] { return &Task[string, int]{ID: id, Key: id} })
	}
}

func TestTheRunLimitOfADeletedPipelineIsDroppedWithItsLastRun(t *testing.T) {
	var left []string
	p, add := running(1, func(pipeline string) { left = append(left, pipeline) })
	first, second := add("1", "P"), add("2", "P")
	acquired, isFirst := p.AcquireRun("P", true, 1, 1, first)
	require.True(t, acquired)
	require.True(t, isFirst)
	p.Began(first)
	acquired, isFirst = p.AcquireRun("P", true, 1, 1, second)
	require.False(t, acquired)
	require.False(t, isFirst)

	p.LimitRuns("P", 0, 2, true)
	require.Equal(t, 1, p.Waiting(), "the run that waits does not learn of the deletion")
	require.Same(t, second, p.Next())
	p.Remove(first, done)
	require.Empty(t, left, "a place is reserved")
	p.Stay(second, false)
	require.Equal(t, []string{"P"}, left)
	require.Empty(t, p.Stats().Runs)
	p.Remove(second, done)
	require.Equal(t, []string{"P"}, left)
}

func TestAPlaceThatWasReservedForARemovedTaskGoesToTheNext(t *testing.T) {
	p, add := running(1, nil)
	s := NewSemaphore[string, int](1)
	p.Show("a", s)
	tasks := []*Task[string, int]{add("1", "P"), add("2", "P"), add("3", "P")}
	require.Equal(t, Claimed, p.Claim(s, tasks[0], true))
	require.Equal(t, InLine, p.Claim(s, tasks[1], true))
	require.Equal(t, InLine, p.Claim(s, tasks[2], true))
	require.Equal(t, Usage{InUse: 1, Limit: 1, Waiting: 2}, p.Stats().Drivers["a"])
	p.Done(s, 0, nil)
	require.Equal(t, InLine, p.Claim(s, tasks[0], true), "the place is reserved")
	p.Remove(tasks[1], 0)
	require.Same(t, tasks[2], p.Next())
	require.Equal(t, Claimed, p.Claim(s, tasks[2], true))
	require.Equal(t, Usage{InUse: 1, Limit: 1, Waiting: 1}, p.Stats().Drivers["a"])
}

func TestARunThatMovesToAnotherPipelineLeavesTheFormer(t *testing.T) {
	p, add := running(1, nil)
	task, other := add("1", "P"), add("2", "P")
	for _, pipeline := range []string{"P", "Q", "Q"} {
		acquired, _ := p.AcquireRun(pipeline, true, 1, 1, task)
		require.True(t, acquired)
	}
	acquired, _ := p.AcquireRun("P", true, 1, 1, other)
	require.True(t, acquired)
	require.Equal(t, map[string]Usage{"P": {Limit: 1}, "Q": {Limit: 1}}, p.Stats().Runs, "none has begun")
	p.Began(task)
	p.Began(task)
	require.Equal(t, 1, p.Stats().Runs["Q"].InUse)
	p.Remove(task, 0)
	p.Remove(task, 0)
	require.Zero(t, p.Stats().Runs["Q"].InUse)
}

func TestALoweredLimitLetsRunsGoOn(t *testing.T) {
	p, add := running(1, nil)
	tasks := []*Task[string, int]{add("1", "P"), add("2", "P"), add("3", "P")}
	for _, task := range tasks[:2] {
		acquired, _ := p.AcquireRun("P", true, 2, 1, task)
		require.True(t, acquired)
		p.Began(task)
	}
	acquired, _ := p.AcquireRun("P", true, 1, 2, tasks[2])
	require.False(t, acquired)
	p.Remove(tasks[0], 0)
	require.Zero(t, p.Waiting())
	p.Remove(tasks[1], 0)
	require.Equal(t, 1, p.Waiting())
}

func TestAnOlderRunIsFirstAlthoughItCameLater(t *testing.T) {
	p, add := running(1, nil)
	oldest, older, newer := add("1", "P"), add("2", "P"), add("3", "P")
	for i, task := range []*Task[string, int]{oldest, newer, older} {
		acquired, _ := p.AcquireRun("P", true, 1, 1, task)
		require.Equal(t, i == 0, acquired)
	}
	p.Remove(oldest, 0)
	require.Same(t, older, p.Next())
	require.Zero(t, p.Waiting())
}

func TestALoweredLimitTakesThePlacesOfTheNewestThatHaveNotBegun(t *testing.T) {
	p, add := running(1, nil)
	s := NewSemaphore[string, int](1)
	tasks := []*Task[string, int]{add("1", "P"), add("2", "P"), add("3", "P"), add("4", "P")}
	for _, task := range tasks {
		acquired, _ := p.AcquireRun("P", true, 4, 1, task)
		require.True(t, acquired)
		if p.Claim(s, task, true) == Claimed {
			p.Decided(task)
			p.Began(task)
		} else {
			p.Decided(task)
			p.Stay(task, true)
		}
	}
	p.LimitRuns("P", 2, 2, false)
	require.Equal(t, Usage{InUse: 1, Limit: 2, Waiting: 2}, p.Stats().Runs["P"])
	require.Same(t, tasks[1], p.Next(), "the definition has changed, and its driver may be another")
	require.Nil(t, p.Next(), "the others have no place")
}

func TestATaskThatHasNoPlaceWaitsForNoDriver(t *testing.T) {
	p, add := running(1, nil)
	s := NewSemaphore[string, int](1)
	p.Show("a", s)
	holder, task := add("1", "P"), add("2", "P")
	require.Equal(t, Claimed, p.Claim(s, holder, true))
	acquired, _ := p.AcquireRun("P", true, 1, 1, task)
	require.True(t, acquired)
	require.Equal(t, InLine, p.Claim(s, task, true))
	p.Decided(task)
	p.Stay(task, true)
	require.Equal(t, Waits{Drivers: []string{"a"}}, p.WaitsFor("2"))

	other := add("3", "Q")
	_, _ = p.AcquireRun("Q", true, 1, 1, other)
	acquired, _ = p.AcquireRun("Q", true, 1, 1, task) // it is to go along another pipeline
	require.False(t, acquired)
	p.Decided(task)
	p.Stay(task, false)
	require.Equal(t, Waits{Room: "Q"}, p.WaitsFor("2"))
	require.Zero(t, p.Stats().Drivers["a"].Waiting)
	p.Done(s, 0, nil)
	require.Zero(t, p.Waiting())
	p.Remove(other, 0)
	require.Equal(t, Waits{Worker: true}, p.WaitsFor("2"))
	require.Equal(t, Waits{}, p.WaitsFor("other"))
}

func TestATaskThatGoesOnDoesNotLoseItsPlaceToOneThatHasNotBegun(t *testing.T) {
	for _, c := range []struct {
		name string
		lane string // of the one that waits
		next string // who is next
	}{
		{"of its pipeline", "P", "1"},
		{"of another pipeline", "Q", "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, add := running(1, nil)
			s := NewSemaphore[string, int](1)
			p.Show("a", s)
			first, second := add("1", "P"), add("2", c.lane)
			require.Equal(t, Claimed, p.Claim(s, first, true))
			p.Began(first)
			require.Equal(t, InLine, p.Claim(s, second, true))
			p.Decided(second)
			p.Done(s, 0, first)
			require.Equal(t, c.next == "1", p.Claim(s, first, true) == Claimed)
			p.Decided(first)
			require.Equal(t, c.next == "2", p.Waiting() == 1)
			if c.next == "1" {
				p.Done(s, 0, first)
				p.Decided(first) // it needs another driver
			} else {
				require.Equal(t, Waits{Begun: true, Drivers: []string{"a"}}, p.WaitsFor("1"))
			}
			require.Equal(t, Waits{Worker: true}, p.WaitsFor("2"))
		})
	}
}

// TestTheTurnsOfATaskDoNotGrowWithWhatWaits has tasks of two pipelines with a run limit, of two steps with one driver.
func TestTheTurnsOfATaskDoNotGrowWithWhatWaits(t *testing.T) {
	for _, n := range []int{10, 1_000, 20_000} {
		p, add := running(3, nil)
		s := NewSemaphore[string, int](1)
		turns, steps, left := map[string]int{}, map[string]int{}, n
		for i := range n {
			p.Ready(add(fmt.Sprintf("%06d", i), string(rune('P'+i%2))))
		}
		atWork := []*Task[string, int]{}
		decide := func(task *Task[string, int]) {
			keep := false
			if task.begun || acquire(p, task.lane, task) {
				if p.Claim(s, task, true) == Claimed {
					p.Decided(task)
					p.Began(task)
					atWork = append(atWork, task)
					return
				}
				keep = true
			}
			p.Decided(task)
			p.Stay(task, keep)
		}
		for left > 0 {
			if task := p.Next(); task != nil {
				turns[task.ID]++
				decide(task)
			}
			if len(atWork) == 0 {
				continue
			}
			task := atWork[0]
			atWork = atWork[1:]
			p.Done(s, 0, task)
			if steps[task.ID]++; steps[task.ID] < 2 {
				decide(task)
			} else {
				p.Remove(task, done)
				left--
			}
		}
		most := 0
		for _, n := range turns {
			most = max(most, n)
		}
		require.LessOrEqual(t, most, 4, "of %d tasks", n) // to find no room, to find no place, and one for each step
	}
}

func acquire(p *Pool[string, int], pipeline string, task *Task[string, int]) bool {
	acquired, _ := p.AcquireRun(pipeline, true, 2, 1, task)
	return acquired
}
