// Package fair holds queues that are fair between lanes. It must not know what waits in them. Nothing in it is safe for
// concurrent use.
package fair

import "iter"

// Lanes is a queue that is fair between lanes: the lanes that are not empty take turns, so that one item of a quiet lane
// waits for one item of each busy lane, and not for all of their items. Within a lane an item of a lower rank is first, and
// the order within a rank is first in, first out. A lane takes an item of a higher rank after it has passed this rank over
// often, so that no rank waits for ever. The zero value is empty. Each operation takes the same time for any number of items.
type Lanes[T any] struct {
	n     int
	lanes map[string]*lane[T]
	next  list[*lane[T]] // the lanes that are not empty, in the order of their turns
	idle  int            // lanes that are empty
}

// Ranks is the number of ranks. A rank is at least 0.
const Ranks = 3

// Patience is how often in a row a lane passes over a rank that is not empty.
const Patience = 64

// Item is what waits in a queue, in at most one at a time. The zero Item with a Value can be pushed.
type Item[T any] struct {
	Value T

	node node[*Item[T]]
	in   *lane[T] // nil if the item does not wait
	rank int
}

type lane[T any] struct {
	name   string
	n      int
	turn   node[*lane[T]]
	ranks  [Ranks]list[*Item[T]]
	passed [Ranks]int // how often in a row the lane has passed over the rank
}

// idleLanes bounds how many empty lanes are kept for the next time.
const idleLanes = 64

// Waits reports whether the item is in a queue.
func (i *Item[T]) Waits() bool { return i.in != nil }

// Rank returns the rank with which the item was pushed last.
func (i *Item[T]) Rank() int { return i.rank }

// Len returns the number of items in all lanes.
func (l *Lanes[T]) Len() int { return l.n }

// Push adds an item at the end of its rank in a lane. The item must not be in a queue.
func (l *Lanes[T]) Push(name string, rank int, item *Item[T]) {
	to := l.lanes[name]
	if to == nil {
		if l.lanes == nil {
			l.lanes = map[string]*lane[T]{}
		}
		to = &lane[T]{name: name}
		to.turn.of = to
		l.lanes[name] = to
		l.idle++
	}
	if to.n == 0 {
		l.next.push(&to.turn)
		l.idle--
	}
	l.n++
	to.n++
	item.node.of, item.in, item.rank = item, to, rank
	to.ranks[rank].push(&item.node)
}

// Remove removes an item from the queue in which it waits. The turn of its lane is not used up.
func (l *Lanes[T]) Remove(item *Item[T]) {
	from := item.in
	from.ranks[item.rank].remove(&item.node)
	item.in = nil
	l.n--
	if from.n--; from.n > 0 {
		return
	}
	l.next.remove(&from.turn)
	from.passed = [Ranks]int{}
	if l.idle++; l.idle > idleLanes {
		l.idle--
		delete(l.lanes, from.name)
	}
}

// Pop removes and returns the next item, or returns nil if there is none.
func (l *Lanes[T]) Pop() *Item[T] {
	if l.n == 0 {
		return nil
	}
	from := l.next.first.of
	l.next.remove(&from.turn)
	l.next.push(&from.turn)
	item := from.ranks[from.choose()].first.of
	l.Remove(item)
	return item
}

// choose returns the rank whose turn it is. The lane is not empty.
func (l *lane[T]) choose() int {
	turn := -1
	for rank := range l.ranks {
		if l.ranks[rank].first != nil && (turn < 0 || l.passed[rank] >= Patience) {
			turn = rank
		}
	}
	for rank := range l.ranks {
		switch {
		case rank == turn || l.ranks[rank].first == nil:
			l.passed[rank] = 0
		case rank > turn:
			l.passed[rank]++
		}
	}
	return turn
}

// Before reports whether an item that was now pushed to a lane would find another in front of it, or another lane that is
// not empty.
func (l *Lanes[T]) Before(name string, rank int) bool {
	own := l.lanes[name]
	if own == nil {
		return l.n > 0
	}
	for r := range rank + 1 {
		if own.ranks[r].first != nil {
			return true
		}
	}
	return l.n > own.n
}

// Heads returns the first item of each rank of each lane, in no particular order.
func (l *Lanes[T]) Heads() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, of := range l.lanes {
			for rank := range of.ranks {
				if first := of.ranks[rank].first; first != nil && !yield(first.of.Value) {
					return
				}
			}
		}
	}
}
