package conveyor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"
)

// goneWith takes the place of a worker whose goroutine a driver ended, or the release of an admission after the driver had
// answered.
func (s *scheduler) goneWith(a *attempt) {
	o := a.answer
	if o == nil {
		o = &outcome{attempt: a, err: &PanicError{Value: "runtime.Goexit was called"}}
		a.close(o)
	}
	if _, late := s.ended(a, o, false); !late {
		s.vacate()
	}
}

// watch sees to it that an attempt whose time is up does not hold up its run for ever. Without a deadline there is
// nothing to watch for: whoever ends the context calls end.
func (s *scheduler) watch(a *attempt) {
	if a.stop == nil {
		return
	}
	s.aside.Add(1)
	a.unwatch = context.AfterFunc(a.ctx, func() {
		defer s.aside.Done()
		s.patience(a)
	})
}

// end ends the context of an attempt.
func (s *scheduler) end(a *attempt, cause error) {
	a.cancel(cause)
	s.patience(a)
}

// patience gives an attempt whose context has ended some time to return.
func (s *scheduler) patience(a *attempt) {
	a.journey.mu.Lock()
	defer a.journey.mu.Unlock()
	if a.returned || a.abandoned || a.timer != nil {
		return
	}
	s.aside.Add(1)
	a.timer = time.AfterFunc(abandonAfter, func() {
		defer s.aside.Done()
		s.abandon(a)
	})
}

// abandon records the outcome of an attempt without its driver, which has not returned though it was told to.
func (s *scheduler) abandon(a *attempt) {
	if !s.disown(a) {
		return
	}
	cause := context.Cause(a.ctx)
	s.drive(a.journey, message{outcome: &outcome{
		attempt: a, cause: cause, ended: time.Now(), err: fmt.Errorf("%w, and the driver did not return", cause),
	}}, false)
}

// disown has what a driver will return discarded; it reports false if the driver has returned.
func (s *scheduler) disown(a *attempt) bool {
	j := a.journey
	j.mu.Lock()
	if a.returned || a.abandoned {
		j.mu.Unlock()
		return false
	}
	a.abandoned = true
	if a.timer != nil && a.timer.Stop() {
		s.aside.Done() // it is not the timer that calls
	}
	// With both locks held: a driver that returns at this very moment must find its call among the strays, or it would
	// stay there for ever.
	s.mu.Lock()
	s.strays[j.key] = append(s.strays[j.key], a)
	s.stuck++
	s.free++ // it keeps its slot, and nothing else
	s.checkDrainedLocked()
	s.mu.Unlock()
	j.mu.Unlock()
	s.hire()
	return true
}

// strayReturned lets the resource of a given-up call go on.
func (s *pool) strayReturned(a *attempt) {
	s.mu.Lock()
	s.stuck--
	s.checkDrainedLocked()
	key := a.journey.key
	s.strays[key] = slices.DeleteFunc(s.strays[key], func(other *attempt) bool { return other == a })
	if len(s.strays[key]) == 0 {
		delete(s.strays, key)
		for _, j := range s.held[key] {
			s.enqueueLocked(j)
		}
		delete(s.held, key)
	}
	s.mu.Unlock()
	s.hire()
}

// hold parks the journey while a given-up call for its resource has not returned, so that there are never two.
func (s *pool) hold(j *task) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.strays[j.key]) == 0 {
		return false
	}
	if !slices.Contains(s.held[j.key], j) {
		s.held[j.key] = append(s.held[j.key], j)
	}
	return true
}

// straying lists the calls that were given up and have not returned.
func (s *pool) straying() (attempts []*attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, strays := range s.strays {
		attempts = append(attempts, strays...)
	}
	sortByStart(attempts)
	return attempts
}

// running lists the attempts under way.
func (s *pool) running() (attempts []*attempt) {
	s.mu.Lock()
	journeys := slices.Collect(maps.Values(s.journeys))
	s.mu.Unlock()
	for _, t := range journeys {
		j := t.owner
		j.mu.Lock()
		for _, a := range j.flying {
			if !a.returned && !a.abandoned {
				attempts = append(attempts, a)
			}
		}
		j.mu.Unlock()
	}
	sortByStart(attempts)
	return attempts
}

func sortByStart(attempts []*attempt) {
	sort.Slice(attempts, func(a, b int) bool { return attempts[a].started.Before(attempts[b].started) })
}

// describeAttempts names attempts for an error.
func describeAttempts(attempts []*attempt) string {
	var names []string
	for _, a := range attempts {
		names = append(names, fmt.Sprintf("run %s step %s (driver %s, resource %s)", a.journey.id, a.step.ID, a.driver.name, a.journey.key))
	}
	return strings.Join(names, "; ")
}
