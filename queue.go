package conveyor

// queue is a first-in-first-out queue.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) len() int { return len(q.items) - q.head }

func (q *queue[T]) push(item T) { q.items = append(q.items, item) }

// first returns the item that pop would; there must be one.
func (q *queue[T]) first() T { return q.items[q.head] }

// pop takes the item that has waited longest; there must be one.
func (q *queue[T]) pop() T {
	var none T
	item := q.items[q.head]
	q.items[q.head] = none
	q.head++
	if q.head >= 64 && q.head*2 >= len(q.items) {
		q.items = append(q.items[:0:0], q.items[q.head:]...)
		q.head = 0
	}
	return item
}

// turns is a queue of journeys that is fair between pipelines: each that has some waiting is given one turn after the
// other, so that one run of a quiet pipeline waits for one run of each busy one, and not for all of them. Within a
// pipeline, who came first is first; a resource has one run at work at most, so that it cannot crowd out others.
type turns struct {
	n     int
	lanes map[string]*lane
	next  queue[*lane] // those that are not empty, by whose turn it is
}

type lane struct {
	name string
	queue[*task]
}

// idleLanes bounds the empty lanes that are kept for the next time.
const idleLanes = 64

func (t *turns) len() int { return t.n }

func (t *turns) push(j *task) { t.lane(j).push(j) }

// pushByAge is push, but behind the runs of the lane that were created before, and before those created after.
func (t *turns) pushByAge(j *task) {
	l := t.lane(j)
	l.push(j)
	for i := len(l.items) - 1; i > l.head && l.items[i-1].id > j.id; i-- {
		l.items[i-1], l.items[i] = l.items[i], l.items[i-1]
	}
}

// lane returns the lane of a journey that is about to be put there.
func (t *turns) lane(j *task) *lane {
	l := t.lanes[j.lane]
	if l == nil {
		if t.lanes == nil {
			t.lanes = map[string]*lane{}
		}
		l = &lane{name: j.lane}
		t.lanes[j.lane] = l
	}
	if l.len() == 0 {
		t.next.push(l)
	}
	t.n++
	return l
}

// of returns the journeys of a lane, not to be changed.
func (t *turns) of(name string) []*task {
	l := t.lanes[name]
	if l == nil {
		return nil
	}
	return l.items[l.head:]
}

// pop returns the journey whose turn it is, or nil.
func (t *turns) pop() *task { return t.popLive(func(*task) bool { return true }) }

// popLive is pop, but drops journeys that have ended. Such a one uses up no turn: it is that of the next in its lane.
func (t *turns) popLive(live func(*task) bool) *task {
	for t.n > 0 {
		t.n--
		l := t.next.first()
		j := l.pop()
		alive := live(j)
		if !alive && l.len() > 0 {
			continue
		}
		t.next.pop()
		if l.len() > 0 {
			t.next.push(l)
		} else if len(t.lanes) > idleLanes {
			delete(t.lanes, l.name)
		}
		if alive {
			return j
		}
	}
	return nil
}

// keep drops the journeys that are not wanted.
func (t *turns) keep(wanted func(*task) bool) {
	old := *t
	*t = turns{}
	for old.n > 0 { // one of each lane in turn, so that their order stays
		if j := old.pop(); wanted(j) {
			t.push(j)
		}
	}
}

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
