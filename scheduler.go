package conveyor

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conveyor-go/conveyor/internal/asynclog"
	"github.com/conveyor-go/conveyor/internal/fair"
)

// scheduler carries out what pipeline.go decides. It knows of each unfinished run only where to find it: in the queue
// of those that can go on, in the heap of those that wait for a time, or among those that wait for a driver. What a
// run is doing is in its journey while somebody works on it, and in the store otherwise.
//
// Lock order: journey.mu before scheduler.mu. Neither is held across a call of a driver, of the store or of a logger.
type scheduler struct {
	opts   Options // defaults filled in, never written again
	ledger *ledger
	events *feed
	log    *asynclog.Logger
	tails  tails
	heard  func(kind string)       // has resources run that no driver listened to; set by New
	resync func() (instant, error) // has resources run again that are due, and says when the next one is; set by New

	// workers call drivers. Their number is Options.Workers at most, of which free may be added; a worker takes on run after
	// run and leaves when none is ready. One whose call was given up is there until that returns, and no longer counts.
	workers errgroup.Group
	// aside is everything else: the loop, and what must not wait for a worker.
	aside sync.WaitGroup

	ending    atomic.Bool     // set when the contexts of all attempts, those to come too, shall end with ErrShutdown
	base      context.Context // for the store: what a driver has done is recorded, whoever has left
	giveUp    chan struct{}   // closed by the last part of shutdown: what cannot be recorded then is not tried again
	done      chan struct{}   // closed when the scheduler has stopped
	observing *observing      // set by start, before anything happens; nil without an observer

	pool

	// Guarded by pool.mu.
	waiters   map[string][]chan *Run // get the run when it ends, or nil if it is to be read; size 1
	flush     map[*runLog]*journey   // logs with lines that are not written
	flushAt   time.Time              // when they shall be; zero for never
	flushing  bool
	resyncAt  instant // when a resource is to be run again, as far as is known; 0 for never
	resyncing bool
	untidy    map[Key]struct{} // resources whose past is to be looked through
	tidying   bool             // somebody is at it
	lost      []loss           // what could not be recorded before the end
}

// pool decides whose turn it is: it holds what waits, for a worker, a time, a slot, a driver or a stray call, and counts what
// is under way. It knows nothing of records, of the store or of what a call is.
type pool struct {
	limit int            // of workers
	nudge chan struct{}  // any goroutine sends, the loop receives, nobody closes; size 1: a nudge, not a queue
	spawn func(*attempt) // starts a worker; set by newScheduler

	mu       sync.Mutex // guards all below
	phase    phase
	journeys map[string]*task // every unfinished run that this engine knows, by id
	ready    fair.Lanes[*task]
	due      dueHeap
	free     int // workers that may be added
	calls    int // calls of drivers, from the commit of their start to their return
	drivers  map[string]*driver
	rooms    map[string]*slots             // of pipelines, by name
	blocked  map[string]map[*task]struct{} // by the driver that is not registered
	strays   map[Key][]*attempt            // calls that were given up and have not returned, by resource
	held     map[Key][]*task               // wait for the strays of their resource
	showing  [numStates]int                // journeys, by the state of their run
	endings  [numStates]int64              // runs that have ended, by how they did
	exempt   int                           // workers whose driver called Shutdown: they are not waited for
	stuck    int                           // workers whose call was given up: the number of strays
	drained  chan struct{}                 // closed when no worker is left that must be waited for; made by shutdown
	quiet    chan struct{}                 // closed when no call is under way that must be waited for; made by shutdown
	idle     chan struct{}                 // closed when no call is under way that was not given up; made by shutdown
}

type phase uint8

const (
	phaseNew phase = iota
	phaseRunning
	phaseDraining
	phaseStopping
	phaseStopped
)

func newScheduler(opts Options, l *ledger, events *feed) *scheduler {
	s := &scheduler{
		opts: opts, ledger: l, events: events, log: asynclog.New(opts.Logger),
		giveUp: make(chan struct{}), done: make(chan struct{}),
		pool: pool{
			limit: opts.Workers, nudge: make(chan struct{}, 1),
			journeys: map[string]*task{}, free: opts.Workers, drivers: map[string]*driver{}, rooms: map[string]*slots{},
			blocked: map[string]map[*task]struct{}{}, strays: map[Key][]*attempt{}, held: map[Key][]*task{},
		},
		waiters: map[string][]chan *Run{}, flush: map[*runLog]*journey{}, untidy: map[Key]struct{}{},
	}
	s.pool.spawn = s.employ
	s.base = context.Background()
	return s
}

// loop moves what has come due to the ready queue, and has logs written.
func (s *scheduler) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-s.nudge:
		case <-timer.C:
		}
		if next := s.takeDue(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
		s.hire()
	}
}

// takeDue enqueues what is due, and returns the time of what comes next; zero for nothing.
func (s *scheduler) takeDue(now time.Time) (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > 0 && s.due[0].due <= toInstant(now) {
		j := heap.Pop(&s.due).(*task)
		j.due = 0
		s.enqueueLocked(j)
	}
	if len(s.due) > 0 {
		next = s.due[0].due.time()
	}
	if !s.flushAt.IsZero() && !s.flushing {
		if s.flushAt.After(now) {
			next = earlier(next, s.flushAt)
		} else {
			s.startFlushLocked()
		}
	}
	if s.resyncAt != 0 && !s.resyncing && s.phase == phaseRunning {
		if s.resyncAt > toInstant(now) {
			next = earlier(next, s.resyncAt.time())
		} else {
			s.startResyncLocked()
		}
	}
	return next
}

// earlier returns the earlier of two times, of which the first may be zero, for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func (s *pool) wakeLoop() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// schedule has the journey looked at when the time comes; 0 takes that back. Until then its run is in this state, and so
// many calls of drivers are about to be made for it.
func (s *pool) schedule(j *task, due instant, state State, calls int, blockedBy func(driver string) bool) {
	s.mu.Lock()
	s.calls += calls
	s.showsLocked(j, state)
	if len(j.blocked) > 0 {
		s.unblockLocked(j, blockedBy)
	}
	first := s.scheduleLocked(j, due)
	s.mu.Unlock()
	if first {
		s.wakeLoop()
	}
}

func (s *pool) scheduleLocked(j *task, due instant) (first bool) {
	switch {
	case due == 0 && j.due == 0, s.journeys[j.id] != j:
		return false
	case due == 0:
		heap.Remove(&s.due, j.heapAt)
		j.due = 0
		return false
	case j.due == 0:
		j.due = due
		heap.Push(&s.due, j)
	default:
		j.due = due
		heap.Fix(&s.due, j.heapAt)
	}
	return s.due[0] == j
}

// enqueue has the journey looked at as soon as a worker is free.
func (s *pool) enqueue(j *task) {
	s.mu.Lock()
	s.enqueueLocked(j)
	s.mu.Unlock()
	s.hire()
}

func (s *pool) enqueueLocked(j *task) {
	if !j.queued && s.journeys[j.id] == j {
		j.queued, j.since = true, time.Now()
		s.ready.Push(j.lane, j)
	}
}

// hire adds workers while journeys are ready for them.
func (s *pool) hire() {
	s.mu.Lock()
	n := 0
	if s.phase == phaseRunning {
		n = min(s.free, s.ready.Len())
		s.free -= n
	}
	s.mu.Unlock()
	for range n {
		s.spawn(nil)
	}
}

// employ starts a worker, beginning with an attempt if there is one. The caller has reserved its place.
func (s *scheduler) employ(a *attempt) {
	s.workers.Go(func() error { s.work(a); return nil })
}

// reserve takes a place for a worker, if one is free and nobody has been waiting for it.
func (s *pool) reserve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phaseRunning || s.free == 0 || s.ready.Len() > 0 {
		return false
	}
	s.free--
	return true
}

// vacate gives a worker's place back.
func (s *pool) vacate() {
	s.mu.Lock()
	s.vacateLocked()
	s.mu.Unlock()
	s.hire()
}

func (s *pool) vacateLocked() {
	s.free++
	s.checkDrainedLocked()
}

// checkDrainedLocked tells Shutdown of the workers that have left.
func (s *pool) checkDrainedLocked() {
	if s.drained == nil {
		return
	}
	if s.limit-s.free+s.stuck <= s.exempt {
		closeOnce(s.drained)
	}
	if s.calls <= s.exempt {
		closeOnce(s.quiet)
	}
	if s.calls == s.stuck {
		closeOnce(s.idle)
	}
}

// closeOnce closes a channel unless it is closed. Whoever else may do so holds the same lock.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// beside runs fn in a goroutine that shutdown waits for, where the caller must not be held up by a store that fails. It
// reports false if the scheduler has stopped.
func (s *scheduler) beside(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == phaseStopped {
		return false
	}
	s.aside.Go(fn)
	return true
}

// work is a worker: it goes on with one run after the other until none is ready.
func (s *scheduler) work(a *attempt) {
	finished := false
	defer func() {
		// A driver that calls runtime.Goexit ends this goroutine. What is left to do needs another one.
		if !finished {
			s.aside.Go(func() { s.goneWith(a) })
		}
	}()
	since := time.Now()
	for {
		if a != nil {
			o := new(outcome)
			s.call(a, o)
			next, late := s.ended(a, o, !s.turnOver(since))
			if late { // somebody else works in its place
				finished = true
				return
			}
			a = next
			continue
		}
		t := s.takeReady()
		if t == nil {
			finished = true
			return
		}
		since = time.Now()
		a = s.drive(t.owner, message{}, true)
	}
}

// longestTurn is how long a run may keep a worker from step to step while others wait for one. Steps that are quicker
// follow one another without a commit in between; a run of long ones takes turns with the others.
const longestTurn = 100 * time.Millisecond

// turnOver says that a worker should go on with another run than the one it has had since then.
func (s *pool) turnOver(since time.Time) bool {
	if time.Since(since) < longestTurn {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready.Len() > 0
}

// takeReady returns the next ready journey, or gives up the worker's place.
func (s *pool) takeReady() *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == phaseRunning {
		if j, ok := s.ready.Pop(func(j *task) bool { return s.journeys[j.id] == j }); ok {
			j.queued = false
			return j
		}
	}
	s.vacateLocked()
	return nil
}

// ended takes note that the call of a driver has returned. A worker gets the attempt to go on with, if there is one, or
// learns that it came too late.
func (s *scheduler) ended(a *attempt, o *outcome, worker bool) (next *attempt, late bool) {
	if a.unwatch != nil && a.unwatch() {
		s.aside.Done()
	}
	a.free()
	j := a.journey
	j.mu.Lock()
	late = a.abandoned
	a.returned = true
	if a.timer != nil && a.timer.Stop() {
		s.aside.Done()
	}
	j.mu.Unlock()
	s.unexempt(a)
	s.releaseSlot(&a.driver.slots, 1)
	if late {
		s.strayReturned(a)
		return nil, true
	}
	return s.drive(j, message{outcome: o}, worker), false
}

// journeyLocked returns the journey of a run, made if it is not known.
func (s *pool) journeyLocked(id string, key Key, lane string) *task {
	j := s.journeys[id]
	if j == nil {
		o := &journey{task: task{id: id, key: key, lane: lane, state: StateQueued}, strewn: 1}
		o.owner, j = o, &o.task
		s.journeys[id] = j
		s.showing[j.state]++
	}
	return j
}

// take returns the journey of an unfinished run, made if it is not known.
func (s *pool) take(id string, key Key, lane string) *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journeyLocked(id, key, lane)
}

// forget drops a journey that has ended, or that never came to be, and tells those who wait for its end.
func (s *scheduler) forget(j *journey) {
	for _, w := range s.drop(j) {
		w <- nil
	}
}

// drop takes a journey out of all that holds it, and returns those who wait for its end.
func (s *scheduler) drop(j *journey) (waiting []chan *Run) {
	s.mu.Lock()
	if t := &j.task; s.journeys[j.id] == t {
		s.scheduleLocked(t, 0)
		delete(s.journeys, j.id)
		s.showing[j.state]--
		s.unblockLocked(t, func(string) bool { return false })
		s.stopWaitingLocked(t)
		s.returnPromisesLocked(t) // nobody looks at it any more who would
	}
	s.leaveRoomLocked(&j.task)
	delete(s.flush, j.log) // its lines are written, or never will be
	waiting = s.waiters[j.id]
	delete(s.waiters, j.id)
	s.mu.Unlock()
	s.hire() // there may be room for another
	s.tails.wake(j.id)
	return waiting
}

// unblockLocked takes note that a journey waits for no other drivers than those.
func (s *pool) unblockLocked(j *task, still func(driver string) bool) {
	j.blocked = slices.DeleteFunc(j.blocked, func(name string) bool {
		if still(name) {
			return false
		}
		delete(s.blocked[name], j)
		if len(s.blocked[name]) == 0 {
			delete(s.blocked, name)
		}
		return true
	})
}

// wait returns a channel that tells when the run ends, and a function that gives the wait up. If the run is known it has
// not ended, and the channel tells for certain.
func (s *scheduler) wait(run string) (ended <-chan *Run, known bool, giveUp func()) {
	w := make(chan *Run, 1)
	s.mu.Lock()
	s.waiters[run] = append(s.waiters[run], w)
	j := s.journeys[run]
	known = j != nil && !j.stranded
	s.mu.Unlock()
	return w, known, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiters[run] = slices.DeleteFunc(s.waiters[run], func(c chan *Run) bool { return c == w })
		if len(s.waiters[run]) == 0 {
			delete(s.waiters, run)
		}
	}
}

// dismiss ends the waiting for a run that a closed store holds up, and has who comes later read it. Who does learns of that.
func (s *scheduler) dismiss(j *journey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.stranded = true
	for _, w := range s.waiters[j.id] {
		w <- nil
	}
	delete(s.waiters, j.id)
}

func (s *pool) accepting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase >= phaseDraining {
		return ErrClosed
	}
	return nil
}

func (s *pool) draining() bool { return s.accepting() != nil }
