package conveyor

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fair"
	"github.com/conveyor-go/conveyor/store"
)

// slots bound how many journeys have a thing at once: attempts of a driver, or runs of a pipeline. Guarded by
// scheduler.mu.
type slots struct {
	limit    int               // 0 for none
	busy     int               // in use
	promised int               // kept for journeys that waited for one and are on their way
	waiting  fair.Lanes[*task] // journeys that want one
	dead     int               // of those, that have ended since
	asOf     store.Revision    // of the pipeline's record that the limit is from
	pipeline string            // their pipeline; empty for the slots of a driver
	gone     bool              // it was deleted: they are needed until the last of its runs has ended
}

// driver is a registered driver with its slots.
type driver struct {
	name string
	impl Driver
	opts driverOptions
	slots
}

// register adds a driver and wakes the runs that wait for it.
func (s *pool) register(d *driver) error {
	s.mu.Lock()
	if s.phase >= phaseDraining {
		s.mu.Unlock()
		return ErrClosed
	}
	if _, taken := s.drivers[d.name]; taken {
		s.mu.Unlock()
		return fmt.Errorf("%w: driver %q", ErrExists, d.name)
	}
	s.knowLocked(d)
	s.mu.Unlock()
	s.hire()
	return nil
}

func (s *pool) knowLocked(d *driver) {
	s.drivers[d.name] = d
	for j := range s.blocked[d.name] {
		j.blocked = slices.DeleteFunc(j.blocked, func(name string) bool { return name == d.name })
		s.enqueueLocked(j)
	}
	delete(s.blocked, d.name)
}

// plansWith has the runs of a pipeline planned by p from here on; nil leaves it as it is.
func (s *pool) plansWith(pipeline string, p Planner) {
	if p == nil {
		return
	}
	s.mu.Lock()
	s.knowLocked(&driver{name: plannerName(pipeline), impl: planner{p}})
	s.mu.Unlock()
	s.hire()
}

// driver returns the registered driver, or notes that the journey waits for it and returns nil.
func (s *pool) driver(name string, j *task) *driver {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.drivers[name]
	if d == nil && s.journeys[j.id] == j && !slices.Contains(j.blocked, name) {
		if s.blocked[name] == nil {
			s.blocked[name] = map[*task]struct{}{}
		}
		s.blocked[name][j] = struct{}{}
		j.blocked = append(j.blocked, name)
	}
	return d
}

// missing says what a step lacks whose driver is not registered.
func missing(driver string) string {
	if pipeline, planned := strings.CutPrefix(driver, plannerName("")); planned {
		return fmt.Sprintf("pipeline %q has a Planner, and this program has not saved it with one", pipeline)
	}
	return fmt.Sprintf("driver %q is not registered", driver)
}

// listeners returns the names of the drivers that listen to a type, in order.
func (s *pool) listeners(kind string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, d := range s.drivers {
		if slices.Contains(d.opts.listen, kind) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// listened returns the types that some driver listens to.
func (s *pool) listened() (types []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.drivers {
		types = append(types, d.opts.listen...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// takeSlot takes a slot, or has the journey enqueued when it gets one.
func (s *pool) takeSlot(of *slots, j *task) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeSlotLocked(of, j)
}

func (s *pool) takeSlotLocked(of *slots, j *task) bool {
	taken := of.busy + of.promised
	if i := slices.Index(j.promises, of); i >= 0 {
		j.promises = slices.Delete(j.promises, i, i+1)
		of.promised--
		taken = of.busy // the limit may have been lowered since the promise
	}
	if of.limit > 0 && taken >= of.limit {
		if !slices.Contains(j.waitsFor, of) {
			j.waitsFor = append(j.waitsFor, of)
			if of.pipeline != "" {
				of.waiting.PushOrdered(j.lane, j, func(other *task) bool { return other.id > j.id }) // several workers may have come upon runs at once
			} else {
				of.waiting.Push(j.lane, j)
			}
		}
		return false
	}
	of.busy++
	return true
}

// releaseSlot gives a slot back; calls is 1 if it was in use, and 0 if the call did not come to be.
func (s *pool) releaseSlot(of *slots, calls int) {
	s.mu.Lock()
	s.calls -= calls
	s.checkDrainedLocked()
	of.busy--
	s.promiseLocked(of)
	s.mu.Unlock()
	s.hire()
}

// returnPromises gives back the slots that were kept for a journey and that it did not take.
func (s *pool) returnPromises(j *task) {
	s.mu.Lock()
	s.returnPromisesLocked(j)
	s.mu.Unlock()
	s.hire()
}

func (s *pool) returnPromisesLocked(j *task) {
	for _, of := range j.promises {
		of.promised--
		s.promiseLocked(of)
		s.demolishLocked(of)
	}
	j.promises = nil
}

// promiseLocked keeps the free slots for the journeys whose turn it is, so that nobody who comes later overtakes them.
func (s *pool) promiseLocked(of *slots) {
	for of.limit == 0 || of.busy+of.promised < of.limit {
		j, ok := of.waiting.Pop(func(j *task) bool {
			live := s.journeys[j.id] == j
			if !live {
				of.dead--
			}
			return live
		})
		if !ok {
			return
		}
		j.waitsFor = slices.DeleteFunc(j.waitsFor, func(w *slots) bool { return w == of })
		of.promised++
		j.promises = append(j.promises, of)
		s.enqueueLocked(j)
	}
}

// stopWaitingLocked takes note that a journey which has ended waits for nothing. It stays in the queues until its turn
// comes, or until most of a queue is of that kind.
func (s *pool) stopWaitingLocked(j *task) {
	for _, of := range j.waitsFor {
		if of.dead++; of.dead*2 > of.waiting.Len() {
			of.waiting.Keep(func(j *task) bool { return s.journeys[j.id] == j })
			of.dead = 0
		}
	}
	j.waitsFor = nil
}

// enterRoom counts a run that is about to begin among those of its pipeline, or has it enqueued when there is room. The
// limit is that of the pipeline's record, if there is one. It tells whether there was no such room before.
func (s *pool) enterRoom(name string, known bool, limit int, asOf store.Revision, j *task) (entered, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.rooms[name] == nil
	room := s.roomLocked(name)
	room.gone = room.gone || first && !known
	if known {
		s.limitLocked(room, limit, asOf)
	}
	if j.room == room {
		return true, first
	}
	s.leaveRoomLocked(j) // of another pipeline, along which it could not begin
	if !s.takeSlotLocked(room, j) {
		return false, first
	}
	j.room = room
	return true, first
}

// limitLocked changes how many runs of a pipeline may be at work, as a revision of its record says. What an older one
// said is past.
func (s *pool) limitLocked(room *slots, limit int, rev store.Revision) {
	if rev < room.asOf {
		return
	}
	room.asOf = rev
	if room.limit != limit {
		room.limit = limit
		s.promiseLocked(room)
	}
}

func (s *pool) roomLocked(pipeline string) *slots {
	room := s.rooms[pipeline]
	if room == nil {
		room = &slots{pipeline: pipeline}
		s.rooms[pipeline] = room
	}
	return room
}

// leaveRoom is the reverse of enterRoom.
func (s *pool) leaveRoom(j *task) {
	s.mu.Lock()
	s.leaveRoomLocked(j)
	s.mu.Unlock()
	s.hire()
}

func (s *pool) leaveRoomLocked(j *task) {
	if room := j.room; room != nil {
		j.room = nil
		room.busy--
		s.promiseLocked(room)
		s.demolishLocked(room)
	}
}

// demolishLocked lets go of the room of a pipeline that was deleted, and of its Planner, when nobody is left in it.
func (s *pool) demolishLocked(room *slots) {
	if room.gone && room.busy+room.promised+room.waiting.Len() == 0 && s.rooms[room.pipeline] == room {
		delete(s.rooms, room.pipeline)
		delete(s.drivers, plannerName(room.pipeline))
	}
}

// limitRuns changes how many runs of a pipeline may be at work, after its definition has changed. Those that have begun
// go on. A pipeline that is gone has no limit: what waited for room is to learn of it. And so is what waits for a slot of
// a driver, which it may need no more.
func (s *pool) limitRuns(pipeline string, limit int, rev store.Revision, gone bool) {
	s.mu.Lock()
	room := s.roomLocked(pipeline)
	if rev >= room.asOf {
		room.gone = gone
	}
	s.limitLocked(room, limit, rev)
	for _, d := range s.drivers {
		for _, j := range d.waiting.Lane(pipeline) {
			if j.room == nil { // it has pinned nothing yet
				s.enqueueLocked(j)
			}
		}
	}
	s.demolishLocked(room)
	s.mu.Unlock()
	s.hire()
}
