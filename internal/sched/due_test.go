package sched

import (
	"container/heap"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDueHeapGivesBackInTheOrderOfTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h dueHeap[string, int]
		var model []*Task[string, int]
		due := rapid.Int64Range(1, 50)
		remove := func(j *Task[string, int]) {
			model = slices.DeleteFunc(model, func(m *Task[string, int]) bool { return m == j })
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				j := &Task[string, int]{times: times{due: due.Draw(t, "due")}}
				heap.Push(&h, j)
				model = append(model, j)
			},
			"pop": func(t *rapid.T) {
				if len(h) == 0 {
					t.Skip()
				}
				j := heap.Pop(&h).(*Task[string, int])
				for _, m := range model {
					require.GreaterOrEqual(t, m.due, j.due)
				}
				remove(j)
			},
			"remove": func(t *rapid.T) {
				if len(h) == 0 {
					t.Skip()
				}
				j := rapid.SampledFrom(model).Draw(t, "task")
				require.Same(t, j, heap.Remove(&h, j.heapAt))
				remove(j)
			},
			"change": func(t *rapid.T) {
				if len(h) == 0 {
					t.Skip()
				}
				j := rapid.SampledFrom(model).Draw(t, "task")
				j.due = due.Draw(t, "due")
				heap.Fix(&h, j.heapAt)
			},
			"": func(t *rapid.T) {
				require.ElementsMatch(t, model, []*Task[string, int](h))
				for i, j := range h {
					require.Equal(t, i, j.heapAt)
				}
			},
		})
	})
}
