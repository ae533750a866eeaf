package conveyor

// laneOf names the lane of a run: its pipeline, or the type of a resource that has none.
func laneOf(pipeline string, k Key) string {
	if pipeline == "" {
		return "/" + k.Type
	}
	return pipeline
}

// dueHeap orders journeys by due time.
type dueHeap []*task

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(a, b int) bool { return h[a].due < h[b].due }

func (h dueHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].heapAt, h[b].heapAt = a, b
}

func (h *dueHeap) Push(x any) {
	j := x.(*task)
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
