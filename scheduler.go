package conveyor

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conveyor-go/conveyor/internal/asynclog"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/internal/sched"
)

// scheduler carries out what pipeline.go decides: it is where workers, due times and shutdown meet. Whose turn it is
// stands in its pool. What a run is doing is in its journey while somebody works on it, and in the store otherwise.
//
// Lock order: journey.mu before the lock of the pool. Neither is held across a call of a driver, of the store or of a
// logger.
type scheduler struct {
	opts    Options // defaults filled in, never written again
	ledger  *ledger.Ledger
	view    run.Reader // ledger, as decisions see it
	limits  run.Limits
	events  *feed
	log     *asynclog.Logger
	tails   runlog.Followers
	pool    *pool
	drivers registry
	strays  strays
	waiters waiters
	flusher flusher
	upkeep  *upkeep

	// workers call drivers. Their number is Options.Workers at most; a worker takes on run after run and leaves when none is
	// ready. One whose call was given up is there until that returns, and no longer counts.
	workers errgroup.Group
	// aside is everything else: the loop, and what must not wait for a worker.
	aside sync.WaitGroup

	ending    atomic.Bool     // set when the contexts of all attempts, those to come too, shall end with ErrShutdown
	base      context.Context // for the store: what a driver has done is recorded, whoever has left
	giveUp    chan struct{}   // closed by the last part of shutdown: what cannot be recorded then is not tried again
	done      chan struct{}   // closed when the scheduler has stopped
	observing *observing      // set by start, before anything happens; nil without an observer
	nudge     chan struct{}   // any goroutine sends, the loop receives, nobody closes; size 1: a nudge, not a queue

	mu   sync.Mutex // guards lost
	lost []loss     // what could not be recorded before the end
}

// pool knows of each unfinished run where it waits and for what.
type pool = sched.Pool[record.Key, *journey]

// task is what the pool knows of a run.
type task = sched.Task[record.Key, *journey]

func newScheduler(opts Options, l *ledger.Ledger, events *feed) *scheduler {
	s := &scheduler{
		opts: opts, ledger: l, events: events, log: asynclog.New(opts.Logger),
		base:   context.Background(),
		giveUp: make(chan struct{}), done: make(chan struct{}), nudge: make(chan struct{}, 1),
	}
	s.view = l.View(s.base)
	s.limits = run.Limits{
		ErrorText: opts.Limits.ErrorText, Attempts: opts.Limits.Attempts,
		Interruptions: opts.Limits.Interruptions, Steps: opts.Limits.Steps,
	}
	s.pool = sched.NewPool[record.Key, *journey](opts.Workers, func() { s.employ(nil) }, s.drivers.forgetPlanner)
	s.flusher.init(s)
	return s
}

// loop moves what has come due to the ready queue.
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
		if next := s.pool.TakeDue(int64(record.TimeOf(time.Now()))); next != 0 {
			timer.Reset(time.Until(record.Time(next).Time()))
		} else {
			timer.Stop()
		}
	}
}

func (s *scheduler) wakeLoop() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// schedule has the journey looked at when the time comes; 0 takes that back. Until then its run is in this state, and so
// many calls of drivers are about to be made for it.
func (s *scheduler) schedule(j *journey, due record.Time, state plan.State, calls int) {
	if s.pool.At(&j.task, int64(due), uint8(state), calls, j.held.Run.IsBlockedBy) {
		s.wakeLoop()
	}
}

// enqueue has the journey looked at as soon as a worker is free.
func (s *scheduler) enqueue(j *journey) { s.pool.Ready(&j.task) }

// employ starts a worker, beginning with an attempt if there is one. The caller has reserved its place.
func (s *scheduler) employ(a *attempt) {
	s.workers.Go(func() error { s.work(a); return nil })
}

// beside runs fn in a goroutine that shutdown waits for, where the caller must not be held up by a store that fails. It
// reports false if the scheduler has stopped.
func (s *scheduler) beside(fn func()) bool {
	return s.pool.IfBefore(sched.Stopped, func() { s.aside.Go(fn) })
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
			s.call(a, &a.out)
			next, late := s.ended(a, &a.out, !s.turnOver(since))
			if late { // somebody else works in its place
				finished = true
				return
			}
			a = next
			continue
		}
		t := s.pool.Next()
		if t == nil {
			finished = true
			return
		}
		since = time.Now()
		a = s.drive(t.Owner, message{}, true)
	}
}

// longestTurn is how long a run may keep a worker from step to step while others wait for one. Steps that are quicker
// follow one another without a commit in between; a run of long ones takes turns with the others.
const longestTurn = 100 * time.Millisecond

// turnOver says that a worker should go on with another run than the one it has had since then.
func (s *scheduler) turnOver(since time.Time) bool {
	return time.Since(since) >= longestTurn && s.pool.Waiting() > 0
}

// take returns the journey of an unfinished run, made if it is not known.
func (s *scheduler) take(id string, key record.Key, lane string) *journey {
	return s.pool.Take(id, lane, uint8(plan.Queued), func() *task {
		j := &journey{task: task{ID: id, Key: key}, strewn: 1}
		j.Owner = j
		return &j.task
	}).Owner
}

// forget drops a journey that has ended, or that never came to be, and tells those who wait for its end.
func (s *scheduler) forget(j *journey) {
	for _, w := range s.drop(j, plan.Unset) {
		w <- nil
	}
}

// drop takes a journey out of all that holds it, and returns those who wait for its end. The state is the last one of
// a run that has ended.
func (s *scheduler) drop(j *journey, ended plan.State) (waiting []chan *Run) {
	s.pool.Remove(&j.task, uint8(ended))
	s.flusher.forget(j.log) // its lines are written, or never will be
	waiting = s.waiters.take(j.ID)
	s.tails.Wake(j.ID)
	return waiting
}

// wait returns a channel that tells when the run ends, and a function that gives the wait up. If the run is known it has
// not ended, and the channel tells for certain.
func (s *scheduler) wait(run string) (ended <-chan *Run, known bool, giveUp func()) {
	// In this order: a run that is dropped after it was known finds the one who waits.
	w := s.waiters.add(run)
	return w, s.pool.Goes(run), func() { s.waiters.remove(run, w) }
}

// dismiss ends the waiting for a run that a closed store holds up, and has who comes later read it. Who does learns of that.
func (s *scheduler) dismiss(j *journey) {
	s.pool.Strand(&j.task)
	for _, w := range s.waiters.take(j.ID) {
		w <- nil
	}
}

func (s *scheduler) accepting() error {
	if s.draining() {
		return ErrClosed
	}
	return nil
}

func (s *scheduler) draining() bool { return s.pool.Phase() >= sched.Draining }

// waiters are told when runs end.
type waiters struct {
	mu   sync.Mutex             // guards runs
	runs map[string][]chan *Run // each gets the run when it ends, or nil if it is to be read; size 1
}

func (w *waiters) add(run string) chan *Run {
	c := make(chan *Run, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runs == nil {
		w.runs = map[string][]chan *Run{}
	}
	w.runs[run] = append(w.runs[run], c)
	return c
}

func (w *waiters) remove(run string, c chan *Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs[run] = slices.DeleteFunc(w.runs[run], func(other chan *Run) bool { return other == c })
	if len(w.runs[run]) == 0 {
		delete(w.runs, run)
	}
}

func (w *waiters) take(run string) []chan *Run {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.runs[run]
	delete(w.runs, run)
	return all
}
