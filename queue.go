package conveyor

// queue is a first-in-first-out queue of journeys.
type queue struct {
	items []*journey
	head  int
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) push(j *journey) { q.items = append(q.items, j) }

func (q *queue) pop() *journey {
	if q.len() == 0 {
		return nil
	}
	j := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	if q.head >= 64 && q.head*2 >= len(q.items) {
		q.items = append(q.items[:0:0], q.items[q.head:]...)
		q.head = 0
	}
	return j
}

// dueHeap orders journeys by due time.
type dueHeap []*journey

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(a, b int) bool { return h[a].due < h[b].due }

func (h dueHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].heapAt, h[b].heapAt = a, b
}

func (h *dueHeap) Push(x any) {
	j := x.(*journey)
	j.heapAt = len(*h)
	*h = append(*h, j)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	j := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return j
}
