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
	opts      Options // defaults filled in, never written again
	ledger    *ledger.Ledger
	view      run.Reader // ledger, as decisions see it
	limits    run.Limits
	events    *feed
	log       *asynclog.Logger
	followers runlog.Followers
	pool      *pool
	drivers   registry
	abandoned abandonedCalls
	waiters   waiters
	flusher   flusher
	upkeep    *upkeep

	// workers call drivers. Their number is Options.Workers at most; a worker takes on run after run and leaves when none is
	// ready. One whose call was given up is there until that returns, and no longer counts.
	workers errgroup.Group
	// aside is everything else: the loop, and what must not wait for a worker.
	background sync.WaitGroup

	ending       atomic.Bool     // set when the contexts of all attempts, those to come too, shall end with ErrShutdown
	base         context.Context // for the store: what a driver has done is recorded, whoever has left
	stopRetrying chan struct{}   // closed by the last part of shutdown: what cannot be recorded then is not tried again
	done         chan struct{}   // closed when the scheduler has stopped
	observer     *observerLoop   // set by start, before anything happens; nil without an observer
	wake         chan struct{}   // any goroutine sends, the loop receives, nobody closes; size 1: a nudge, not a queue

	mu             sync.Mutex      // guards unrecordedRuns
	unrecordedRuns []unrecordedRun // runs of which something could not be recorded before the end
}

// pool knows of each unfinished run where it waits and for what.
type pool = sched.Pool[record.Key, *runner]

// task is what the pool knows of a run.
type task = sched.Task[record.Key, *runner]

func newScheduler(opts Options, l *ledger.Ledger, events *feed) *scheduler {
	s := &scheduler{
		opts: opts, ledger: l, events: events, log: asynclog.New(opts.Logger),
		base:         context.Background(),
		stopRetrying: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	s.view = l.View(s.base)
	s.limits = run.Limits{
		ErrorText: opts.Limits.ErrorText, Attempts: opts.Limits.Attempts,
		Interruptions: opts.Limits.Interruptions, Steps: opts.Limits.Steps,
	}
	s.pool = sched.NewPool[record.Key, *runner](opts.Workers, func() int64 { return time.Now().UnixNano() }, func() { s.startWorker(nil) }, s.drivers.forgetPlanner)
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
		case <-s.wake:
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
	case s.wake <- struct{}{}:
	default:
	}
}

// schedule has the journey looked at when the time comes; 0 takes that back. Until then its run is in this state, and so
// many calls of drivers are about to be made for it.
func (s *scheduler) schedule(r *runner, due record.Time, state plan.State, calls int) {
	if s.pool.At(&r.task, int64(due), uint8(state), calls, r.held.Run.IsBlockedBy) {
		s.wakeLoop()
	}
}

// enqueue has the journey looked at as soon as a worker is free.
func (s *scheduler) enqueue(r *runner) { s.pool.Ready(&r.task) }

// employ starts a worker, beginning with an attempt if there is one. The caller has reserved its place.
func (s *scheduler) startWorker(a *attempt) {
	s.workers.Go(func() error { s.workerLoop(a); return nil })
}

// beside runs fn in a goroutine that shutdown waits for, where the caller must not be held up by a store that fails. It
// reports false if the scheduler has stopped.
func (s *scheduler) goBackground(fn func()) bool {
	return s.pool.IfBefore(sched.Stopped, func() { s.background.Go(fn) })
}

// work is a worker: it goes on with one run after the other until none is ready.
func (s *scheduler) workerLoop(a *attempt) {
	finished := false
	defer func() {
		// A driver that calls runtime.Goexit ends this goroutine. What is left to do needs another one.
		if !finished {
			s.background.Go(func() { s.endedByGoexit(a) })
		}
	}()
	since := time.Now()
	for {
		if a != nil {
			s.call(a, &a.out)
			next, late := s.callReturned(a, &a.out, !s.shouldYield(since))
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
func (s *scheduler) shouldYield(since time.Time) bool {
	return time.Since(since) >= longestTurn && s.pool.Waiting() > 0
}

// take returns the journey of an unfinished run, made if it is not known.
func (s *scheduler) take(id string, key record.Key, lane string) *runner {
	return s.pool.Take(id, lane, uint8(plan.Queued), func() *task {
		r := &runner{task: task{ID: id, Key: key}, leftovers: 1}
		r.Owner = r
		return &r.task
	}).Owner
}

// forget drops a journey that has ended, or that never came to be, and tells those who wait for its end.
func (s *scheduler) forget(r *runner) {
	for _, w := range s.drop(r, plan.Unset) {
		w <- nil
	}
}

// drop takes a journey out of all that holds it, and returns those who wait for its end. The state is the last one of
// a run that has ended.
func (s *scheduler) drop(r *runner, ended plan.State) (waiting []chan *Run) {
	s.pool.Remove(&r.task, uint8(ended))
	s.flusher.forget(r.log) // its lines are written, or never will be
	waiting = s.waiters.take(r.ID)
	s.followers.Wake(r.ID)
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
func (s *scheduler) failWaiters(r *runner) {
	s.pool.Strand(&r.task)
	for _, w := range s.waiters.take(r.ID) {
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
