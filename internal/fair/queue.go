package fair

// Queue is a first-in-first-out queue. The zero value is empty.
type Queue[T any] struct {
	items []T
	head  int
}

// Len returns the number of items.
func (q *Queue[T]) Len() int { return len(q.items) - q.head }

// Push adds an item at the end.
func (q *Queue[T]) Push(item T) { q.items = append(q.items, item) }

// First returns the item that Pop would return. The queue must not be empty.
func (q *Queue[T]) First() T { return q.items[q.head] }

// Pop removes and returns the item that was pushed first. The queue must not be empty.
func (q *Queue[T]) Pop() T {
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
