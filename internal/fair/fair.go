// Package fair holds queues that are fair between lanes. It must not know what waits in them. Nothing in it is safe for
// concurrent use.
package fair

import "iter"

// Lanes is a queue that is fair between lanes: the lanes that are not empty take turns, so that one item of a quiet lane
// waits for one item of each busy lane, and not for all of their items. Within a lane the order is first in, first out.
// The zero value is empty.
type Lanes[T any] struct {
	n     int
	lanes map[string]*lane[T]
	next  Queue[*lane[T]] // the lanes that are not empty, in the order of their turns
}

type lane[T any] struct {
	name string
	Queue[T]
}

// idleLanes bounds how many empty lanes are kept for the next time.
const idleLanes = 64

// Len returns the number of items in all lanes.
func (l *Lanes[T]) Len() int { return l.n }

// Push adds an item at the end of a lane.
func (l *Lanes[T]) Push(name string, item T) { l.lane(name).Push(item) }

// PushOrdered adds an item to a lane in front of those items at the end of the lane for which after reports true.
func (l *Lanes[T]) PushOrdered(name string, item T, after func(other T) bool) {
	to := l.lane(name)
	to.Push(item)
	for i := len(to.items) - 1; i > to.head && after(to.items[i-1]); i-- {
		to.items[i-1], to.items[i] = to.items[i], to.items[i-1]
	}
}

// lane returns the lane that an item is about to be pushed to.
func (l *Lanes[T]) lane(name string) *lane[T] {
	to := l.lanes[name]
	if to == nil {
		if l.lanes == nil {
			l.lanes = map[string]*lane[T]{}
		}
		to = &lane[T]{name: name}
		l.lanes[name] = to
	}
	if to.Len() == 0 {
		l.next.Push(to)
	}
	l.n++
	return to
}

// Lane returns the items of a lane. The caller must not change them.
func (l *Lanes[T]) Lane(name string) []T {
	of := l.lanes[name]
	if of == nil {
		return nil
	}
	return of.items[of.head:]
}

// Heads returns the first item of each lane that is not empty, in no particular order.
func (l *Lanes[T]) Heads() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, of := range l.lanes {
			if of.Len() > 0 && !yield(of.First()) {
				return
			}
		}
	}
}

// Pop removes and returns the next item for which live reports true. Items for which live reports false are dropped; a
// dropped item does not use up the turn of its lane.
func (l *Lanes[T]) Pop(live func(T) bool) (item T, ok bool) {
	for l.n > 0 {
		l.n--
		from := l.next.First()
		item := from.Pop()
		alive := live(item)
		if !alive && from.Len() > 0 {
			continue
		}
		l.next.Pop()
		if from.Len() > 0 {
			l.next.Push(from)
		} else if len(l.lanes) > idleLanes {
			delete(l.lanes, from.name)
		}
		if alive {
			return item, true
		}
	}
	return item, false
}

// Keep drops the items for which wanted reports false. The other items keep their order.
func (l *Lanes[T]) Keep(wanted func(T) bool) {
	old := *l
	*l = Lanes[T]{}
	for old.n > 0 { // one item of each lane in turn, so that the order of the turns stays
		name := old.next.First().name
		if item, ok := old.Pop(func(T) bool { return true }); ok && wanted(item) {
			l.Push(name, item)
		}
	}
}
