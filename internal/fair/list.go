package fair

// list is a doubly linked list of nodes. Each node is in one list at most. The zero value is empty.
type list[T any] struct{ first, last *node[T] }

type node[T any] struct {
	of         T
	prev, next *node[T]
}

// push adds a node at the end.
func (l *list[T]) push(n *node[T]) {
	n.prev, n.next = l.last, nil
	if l.last == nil {
		l.first = n
	} else {
		l.last.next = n
	}
	l.last = n
}

// remove removes a node of the list.
func (l *list[T]) remove(n *node[T]) {
	if n.prev == nil {
		l.first = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		l.last = n.prev
	} else {
		n.next.prev = n.prev
	}
	n.prev, n.next = nil, nil
}
