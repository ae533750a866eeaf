package conveyor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
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
		s.pool.Release()
	}
}

// GraceOver gives up a driver that has not returned though it was told to.
func (a *attempt) GraceOver() { a.sched.abandon(a) }

// abandon records the outcome of an attempt without its driver, which has not returned though it was told to.
func (s *scheduler) abandon(a *attempt) {
	if !s.disown(a) {
		return
	}
	cause := context.Cause(a.Context())
	s.drive(a.journey, message{outcome: &outcome{
		attempt: a, cause: cause, ended: time.Now(), err: fmt.Errorf("%w, and the driver did not return", cause),
	}}, false)
}

// disown has what a driver will return discarded; it reports false if the driver has returned.
func (s *scheduler) disown(a *attempt) bool {
	return a.Abandon(func() {
		s.pool.Abandoned(a.journey.Key)
		s.strays.add(a)
	})
}

// strays are the calls that were given up and have not returned.
type strays struct {
	mu    sync.Mutex // guards calls
	calls map[*attempt]struct{}
}

func (s *strays) add(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[*attempt]struct{}{}
	}
	s.calls[a] = struct{}{}
}

func (s *strays) remove(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, a)
}

// list returns them, the oldest first.
func (s *strays) list() []*attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	attempts := slices.Collect(maps.Keys(s.calls))
	sortByStart(attempts)
	return attempts
}

// running lists the attempts under way.
func (s *scheduler) running() (attempts []*attempt) {
	for _, j := range s.pool.Owners() {
		j.mu.Lock()
		for _, a := range j.flying {
			if a.Running() {
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
		names = append(names, fmt.Sprintf("run %s step %s (driver %s, resource %s)", a.journey.ID, a.step.ID, a.driver.name, a.journey.Key))
	}
	return strings.Join(names, "; ")
}
