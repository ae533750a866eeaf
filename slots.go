package conveyor

import (
	"fmt"
	"slices"
	"sort"
)

// driver is a registered driver with its slots.
type driver struct {
	name string
	impl Driver
	opts driverOptions

	// Guarded by scheduler.mu.
	busy     int   // slots in use
	promised int   // slots kept for journeys that waited for one and are on their way
	waiting  queue // journeys that want a slot
}

// register adds a driver and wakes the runs that wait for it.
func (s *scheduler) register(d *driver) error {
	s.mu.Lock()
	if s.phase >= phaseDraining {
		s.mu.Unlock()
		return ErrClosed
	}
	if _, taken := s.drivers[d.name]; taken {
		s.mu.Unlock()
		return fmt.Errorf("%w: driver %q", ErrExists, d.name)
	}
	s.drivers[d.name] = d
	for j := range s.blocked[d.name] {
		j.blocked = slices.DeleteFunc(j.blocked, func(name string) bool { return name == d.name })
		s.enqueueLocked(j)
	}
	delete(s.blocked, d.name)
	s.mu.Unlock()
	s.hire()
	return nil
}

// driver returns the registered driver, or notes that the journey waits for it and returns nil.
func (s *scheduler) driver(name string, j *journey) *driver {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.drivers[name]
	if d == nil && s.journeys[j.id] == j && !slices.Contains(j.blocked, name) {
		if s.blocked[name] == nil {
			s.blocked[name] = map[*journey]struct{}{}
		}
		s.blocked[name][j] = struct{}{}
		j.blocked = append(j.blocked, name)
	}
	return d
}

// listeners returns the names of the drivers that listen to a type, in order.
func (s *scheduler) listeners(kind string) (names []string) {
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
func (s *scheduler) listened() (types []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.drivers {
		types = append(types, d.opts.listen...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// takeSlot takes a slot of a driver, or has the journey enqueued when it gets one.
func (s *scheduler) takeSlot(d *driver, j *journey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(j.promises, d); i >= 0 {
		j.promises = slices.Delete(j.promises, i, i+1)
		d.promised--
	} else if d.opts.concurrency > 0 && d.busy+d.promised >= d.opts.concurrency {
		if !slices.Contains(j.waitsFor, d) {
			j.waitsFor = append(j.waitsFor, d)
			d.waiting.push(j)
		}
		return false
	}
	d.busy++
	return true
}

func (s *scheduler) releaseSlot(d *driver) {
	s.mu.Lock()
	d.busy--
	s.promiseLocked(d)
	s.mu.Unlock()
	s.hire()
}

// returnPromises gives back the slots that were kept for a journey and that it did not take.
func (s *scheduler) returnPromises(j *journey) {
	s.mu.Lock()
	for _, d := range j.promises {
		d.promised--
		s.promiseLocked(d)
	}
	j.promises = nil
	s.mu.Unlock()
	s.hire()
}

// promiseLocked keeps the free slots of a driver for the journeys that have waited longest, so that nobody who comes
// later overtakes them.
func (s *scheduler) promiseLocked(d *driver) {
	for d.busy+d.promised < d.opts.concurrency {
		j := d.waiting.pop()
		if j == nil {
			return
		}
		j.waitsFor = slices.DeleteFunc(j.waitsFor, func(w *driver) bool { return w == d })
		if s.journeys[j.id] != j {
			continue // it ended meanwhile
		}
		d.promised++
		j.promises = append(j.promises, d)
		s.enqueueLocked(j)
	}
}
