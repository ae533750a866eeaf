package sched

import (
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
	acquired, isFirst = p.AcquireRun("P", true, 1, 1, second)
	require.False(t, acquired)
	require.False(t, isFirst)

	p.LimitRuns("P", 0, 2, true)
	require.Equal(t, 1, p.Waiting(), "the run that waits does not learn of the deletion")
	require.Same(t, second, p.Next())
	p.Remove(first, done)
	require.Empty(t, left, "a place is reserved")
	p.ReturnGrants(second)
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
	require.True(t, p.Acquire(s, tasks[0]))
	require.False(t, p.Acquire(s, tasks[1]))
	require.False(t, p.Acquire(s, tasks[2]))
	require.Equal(t, Usage{InUse: 1, Limit: 1, Waiting: 2}, p.Stats().Drivers["a"])
	p.Done(s, 0)
	require.False(t, p.Acquire(s, tasks[0]), "the place is reserved")
	p.Remove(tasks[1], 0)
	require.Same(t, tasks[2], p.Next())
	require.True(t, p.Acquire(s, tasks[2]))
	require.Equal(t, Usage{InUse: 1, Limit: 1, Waiting: 1}, p.Stats().Drivers["a"])
}

func TestARunThatMovesToAnotherPipelineLeavesTheFormer(t *testing.T) {
	p, add := running(1, nil)
	task, other := add("1", "P"), add("2", "P")
	for _, pipeline := range []string{"P", "Q", "Q"} {
		acquired, _ := p.AcquireRun(pipeline, true, 1, 1, task)
		require.True(t, acquired)
	}
	require.Equal(t, map[string]Usage{"P": {Limit: 1}, "Q": {InUse: 1, Limit: 1}}, p.Stats().Runs)
	acquired, _ := p.AcquireRun("P", true, 1, 1, other)
	require.True(t, acquired)
	p.ReleaseRun(task)
	p.ReleaseRun(task)
	require.Zero(t, p.Stats().Runs["Q"].InUse)
}

func TestALoweredLimitLetsRunsGoOn(t *testing.T) {
	p, add := running(1, nil)
	tasks := []*Task[string, int]{add("1", "P"), add("2", "P"), add("3", "P")}
	for _, task := range tasks[:2] {
		acquired, _ := p.AcquireRun("P", true, 2, 1, task)
		require.True(t, acquired)
	}
	acquired, _ := p.AcquireRun("P", true, 1, 2, tasks[2])
	require.False(t, acquired)
	p.ReleaseRun(tasks[0])
	require.Zero(t, p.Waiting())
	p.ReleaseRun(tasks[1])
	require.Equal(t, 1, p.Waiting())
}

func TestAnOlderRunIsFirstAlthoughItCameLater(t *testing.T) {
	p, add := running(1, nil)
	oldest, older, newer := add("1", "P"), add("2", "P"), add("3", "P")
	for i, task := range []*Task[string, int]{oldest, newer, older} {
		acquired, _ := p.AcquireRun("P", true, 1, 1, task)
		require.Equal(t, i == 0, acquired)
	}
	p.ReleaseRun(oldest)
	require.Same(t, older, p.Next())
	require.Zero(t, p.Waiting())
}
