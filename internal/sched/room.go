package sched

import "container/heap"

// room bounds the active runs of a pipeline. A run is active when it has begun. A task that is about to begin takes its
// place first, and keeps the place while it waits for a worker or for a place of a driver. It is therefore never in line for
// a driver with which it could not begin, and the tasks that wait for the room wait nowhere else. Pool.mu guards the fields.
//
// Invariant: if a task is in the line, there is no place. Unless the limit was lowered, begun + len(entered) is at most limit.
type room[K comparable, T any] struct {
	pipeline string
	limit    int   // 0 means no limit
	asOf     int64 // the revision of the record of the pipeline from which the limit is
	deleted  bool  // the pipeline is deleted, and the room is needed until the last run has left

	begun   int                      // tasks that have begun
	entered map[*Task[K, T]]struct{} // tasks that have a place and have not begun
	line    roomLine[K, T]
}

// membership is where a task stands with the rooms. The zero value stands for a task that has no place and is in no line.
type membership[K comparable, T any] struct {
	of       *room[K, T] // the room in which the task has a place; otherwise nil
	line     *room[K, T] // the room in whose line the task is; otherwise nil
	at       int32       // the index in the line
	deciding bool        // the task is about to begin with its place, which cannot be taken away now
}

// AcquireRun takes a place for a task that is about to begin, and reports whether the task has one now. If the run limit
// does not allow another run, the task gets its turn as soon as it has a place. The oldest task is first. A task that gets
// no place leaves the lines of the drivers. The caller must then call Began or Stay.
//
// If known is set, limit is the limit in the record of the pipeline at the revision asOf. Otherwise the pipeline has no
// record. If LimitRuns has been called with a newer revision since the record was read, a task with a place gets another
// turn, because the new definition can need other drivers. AcquireRun also reports whether the pool had no run limit for
// the pipeline before.
func (p *Pool[K, T]) AcquireRun(pipeline string, known bool, limit int, asOf int64, t *Task[K, T]) (acquired, first bool) {
	p.mu.Lock()
	first = p.rooms[pipeline] == nil
	r := p.roomLocked(pipeline)
	r.deleted = r.deleted || first && !known
	changed := known && p.limitLocked(r, limit, asOf)
	if t.room.of != r && t.room.line != r {
		changed = p.leaveLocked(t) || changed // the room of another pipeline, with which the run could not begin
		if r.free() {
			t.room.of = r
			r.entered[t] = struct{}{}
		} else {
			t.room.line = r
			heap.Push(&r.line, t)
		}
	}
	acquired = t.room.of == r
	t.room.deciding = acquired
	if acquired && known && asOf < r.asOf {
		p.readyLocked(t)
		changed = true
	}
	p.mu.Unlock()
	if changed {
		p.spawnWorkers()
	}
	return acquired, first
}

// Stay notes that a task has not begun after a decision. If keep is set, the task waits for a worker or for a place of a
// driver, and keeps its place within the run limit. Otherwise it gives the place back and leaves the lines of the drivers;
// it stays in the line for a place if AcquireRun has put it there.
func (p *Pool[K, T]) Stay(t *Task[K, T], keep bool) {
	p.mu.Lock()
	changed := false
	t.room.deciding = false
	switch r := t.room.of; {
	case t.begun:
	case !keep:
		p.leaveLinesLocked(t)
		changed = p.leaveRoomLocked(t)
	case r != nil && r.over():
		p.refitLocked(r)
		changed = true
	}
	p.mu.Unlock()
	if changed {
		p.spawnWorkers()
	}
}

// beganInRoomLocked counts a task that has begun among the active runs of its pipeline.
func (p *Pool[K, T]) beganInRoomLocked(t *Task[K, T]) {
	t.room.deciding = false
	if r := t.room.of; r != nil {
		delete(r.entered, t)
		r.begun++
	}
}

// leaveLocked removes a task from its room, from the line for one, and from the lines of the drivers. It reports whether
// another task can have got a place.
func (p *Pool[K, T]) leaveLocked(t *Task[K, T]) (changed bool) {
	p.leaveLinesLocked(t)
	if r := t.room.line; r != nil {
		heap.Remove(&r.line, int(t.room.at))
		t.room.line = nil
		p.dropUnusedLocked(r)
	}
	return p.leaveRoomLocked(t)
}

// leaveRoomLocked gives the place of a task back. It reports whether the task had one.
func (p *Pool[K, T]) leaveRoomLocked(t *Task[K, T]) bool {
	r := t.room.of
	if r == nil {
		return false
	}
	t.room.of = nil
	if t.begun {
		r.begun--
	} else {
		delete(r.entered, t)
	}
	p.fillLocked(r)
	p.dropUnusedLocked(r)
	return true
}

// free reports whether there is a place.
func (r *room[K, T]) free() bool { return r.limit == 0 || r.begun+len(r.entered) < r.limit }

// over reports whether more tasks have a place than the limit allows.
func (r *room[K, T]) over() bool { return r.limit > 0 && r.begun+len(r.entered) > r.limit }

// fillLocked gives the free places to the oldest tasks in line.
func (p *Pool[K, T]) fillLocked(r *room[K, T]) {
	for len(r.line) > 0 && r.free() {
		t := heap.Pop(&r.line).(*Task[K, T])
		t.room.line, t.room.of = nil, r
		r.entered[t] = struct{}{}
		p.readyLocked(t)
	}
}

// refitLocked makes the room fit a limit that has changed. If too many tasks have a place, those that are not about to begin
// go back into the line, and the oldest of them get the places that are left. Runs that have begun continue.
func (p *Pool[K, T]) refitLocked(r *room[K, T]) {
	if r.over() {
		for t := range r.entered {
			if !t.room.deciding {
				delete(r.entered, t)
				p.leaveLinesLocked(t)
				t.room.of, t.room.line = nil, r
				heap.Push(&r.line, t)
			}
		}
	}
	p.fillLocked(r)
}

// limitLocked sets a limit to the one in the record of a pipeline at the revision asOf. An older revision changes nothing.
// With a newer revision the tasks that have a place and have not begun get a turn, because it is possible that they do not
// need the drivers any more for which they wait. limitLocked reports whether a task can have got a turn.
func (p *Pool[K, T]) limitLocked(r *room[K, T], limit int, asOf int64) (changed bool) {
	if asOf < r.asOf || asOf == r.asOf && limit == r.limit {
		return false
	}
	newer := asOf > r.asOf
	r.asOf = asOf
	if r.limit != limit {
		r.limit = limit
		p.refitLocked(r)
	}
	if newer {
		p.turnForEnteredLocked(r)
	}
	return true
}

// turnForEnteredLocked gives a turn to the tasks that have a place and have not begun.
func (p *Pool[K, T]) turnForEnteredLocked(r *room[K, T]) {
	for t := range r.entered {
		p.readyLocked(t)
	}
}

// roomLocked returns the room of a pipeline, and adds it if there is none.
func (p *Pool[K, T]) roomLocked(pipeline string) *room[K, T] {
	r := p.rooms[pipeline]
	if r == nil {
		r = &room[K, T]{pipeline: pipeline, entered: map[*Task[K, T]]struct{}{}}
		p.rooms[pipeline] = r
	}
	return r
}

// dropUnusedLocked forgets the room of a deleted pipeline when no task is in it or waits for it.
func (p *Pool[K, T]) dropUnusedLocked(r *room[K, T]) {
	if r.deleted && r.begun+len(r.entered)+len(r.line) == 0 && p.rooms[r.pipeline] == r {
		delete(p.rooms, r.pipeline)
		p.left(r.pipeline)
	}
}

// LimitRuns changes how many runs of a pipeline can be active, after the definition of the pipeline has changed. Runs that
// have begun continue. For a deleted pipeline the caller passes no limit, so that the tasks that wait get a turn and notice
// the deletion.
func (p *Pool[K, T]) LimitRuns(pipeline string, limit int, asOf int64, deleted bool) {
	p.mu.Lock()
	r := p.roomLocked(pipeline)
	if asOf >= r.asOf && r.deleted != deleted {
		r.deleted = deleted
		p.turnForEnteredLocked(r)
	}
	p.limitLocked(r, limit, asOf)
	p.dropUnusedLocked(r)
	p.mu.Unlock()
	p.spawnWorkers()
}

// roomLine orders tasks by ID, the oldest first, for package container/heap.
type roomLine[K comparable, T any] []*Task[K, T]

func (l roomLine[K, T]) Len() int { return len(l) }

func (l roomLine[K, T]) Less(a, b int) bool { return l[a].ID < l[b].ID }

func (l roomLine[K, T]) Swap(a, b int) {
	l[a], l[b] = l[b], l[a]
	l[a].room.at, l[b].room.at = int32(a), int32(b)
}

func (l *roomLine[K, T]) Push(x any) {
	t := x.(*Task[K, T])
	t.room.at = int32(len(*l))
	*l = append(*l, t)
}

func (l *roomLine[K, T]) Pop() any {
	last := len(*l) - 1
	t := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	return t
}
