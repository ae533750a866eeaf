package sched

// dueHeap orders tasks by their due times, for package container/heap.
type dueHeap[K comparable, T any] []*Task[K, T]

func (h dueHeap[K, T]) Len() int { return len(h) }

func (h dueHeap[K, T]) Less(a, b int) bool { return h[a].due < h[b].due }

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
