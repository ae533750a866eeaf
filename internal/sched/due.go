package sched

// times are the times for which a task waits. The task is in the heap of due times if there are any.
type times struct {
	due      int64 // when the task gets its turn; 0 for none
	deadline int64 // when the task is worked on without a worker; 0 for none
	heapAt   int   // the index in the heap
}

// next returns the earlier one of due and deadline, or 0 if there is neither.
func (t *times) next() int64 {
	if t.due == 0 || t.deadline != 0 && t.deadline < t.due {
		return t.deadline
	}
	return t.due
}

// dueHeap orders tasks by their next times, for package container/heap.
type dueHeap[K comparable, T any] []*Task[K, T]

func (h dueHeap[K, T]) Len() int { return len(h) }

func (h dueHeap[K, T]) Less(a, b int) bool { return h[a].next() < h[b].next() }

func (h dueHeap[K, T]) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].heapAt, h[b].heapAt = a, b
}

func (h *dueHeap[K, T]) Push(x any) {
	t := x.(*Task[K, T])
	t.heapAt = len(*h)
	*h = append(*h, t)
}

func (h *dueHeap[K, T]) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return t
}
