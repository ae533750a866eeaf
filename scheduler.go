package conveyor

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conveyor-go/conveyor/internal/asynclog"
	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/store"
)

// scheduler carries out the transitions that package run decides. It joins the workers, the due times and the shutdown.
// The pool decides which run is next. The state of a run is in its runner while somebody works on the run, and in the
// store otherwise.
//
// Lock order: runner.mu comes before the lock of the pool. Neither is held across a call of a driver, of the store or
// of a logger.
type scheduler struct {
	store       store.Store // opened and closed by the caller of New
	opts        Options     // with the defaults filled in; never written again
	ledger      *ledger.Ledger
	view        run.Reader // the ledger, for decisions
	limits      run.Limits
	accepts     store.Limits // of the store; a decision is divided if its commit would pass them
	logRoom     runlog.Room
	events      *feed
	log         *asynclog.Logger
	followers   runlog.Followers
	pool        *pool
	drivers     registry
	wrapped     Call // the call of a driver with Options.Wrap around it; nil without any
	pauses      pauses
	abandoned   abandonedCalls
	waiters     waiters
	driverWaits driverWaits
	flusher     flusher
	upkeep      *upkeep
	fleet       *fleet   // nil unless the store is shared
	postbox     *postbox // nil unless the engine applies letters
	clock       *clock.Watch

	// workers call drivers. There are at most Options.Workers of them. A worker works on one run after the other and ends
	// when no run is ready. A worker whose call was abandoned ends when the call returns. Until then it is not counted.
	workers errgroup.Group
	// background are all other goroutines: the loop, and work that must not wait for a worker.
	background *background

	ending       atomic.Bool     // set when the contexts of all attempts, also of later ones, must end with ErrShutdown
	base         context.Context // for the store; never ends: what a driver has done is recorded even if the caller has left
	stopRetrying chan struct{}   // closed by shutdown: a store call that fails after this is not tried again
	done         chan struct{}   // closed when the scheduler has stopped
	observer     *observerLoop   // set by start, before anything else starts; nil without an observer
	wake         chan struct{}   // any goroutine sends, the loop receives, nobody closes; size 1: one wake-up is enough

	mu             sync.Mutex      // guards unrecordedRuns
	unrecordedRuns []unrecordedRun // runs of which something could not be recorded before the end
}

// pool decides which run is next. It knows for each unfinished run where the run waits, and for what.
type pool = sched.Pool[record.Key, *runner]

// task is the part of a runner that the pool knows.
type task = sched.Task[record.Key, *runner]

func newScheduler(st store.Store, opts Options, l *ledger.Ledger, events *feed) *scheduler {
	s := &scheduler{
		store: st, opts: opts, ledger: l, events: events, log: asynclog.New(opts.Logger),
		base:         context.Background(),
		stopRetrying: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	s.view = l.View(s.base)
	s.limits = run.Limits{
		ErrorText: opts.Limits.ErrorText, Attempts: opts.Limits.Attempts,
		Interruptions: opts.Limits.Interruptions, Steps: opts.Limits.Steps,
	}
	s.obey(store.LimitsOf(st))
	s.pool = sched.NewPool[record.Key, *runner](opts.Workers, func() int64 { return clock.Now().UnixNano() }, func() { s.startWorker(nil) }, s.drivers.forgetPlanner)
	s.drivers.pool = s.pool
	s.pauses.init(s.pool)
	s.clock = clock.NewWatch(s.clockSet)
	s.background = &background{pool: s.pool}
	s.flusher.init(s)
	return s
}

// obey bounds the decisions about runs and the writes of logs by what the store accepts.
func (s *scheduler) obey(accepts store.Limits) {
	if !record.Bounded(accepts) {
		return
	}
	s.accepts = accepts
	const inPlan = 64 // bytes that a plan has more than the document it comes from
	_, most := s.opts.Limits.fill(accepts)
	s.limits.Plan = most.Document + inPlan
	ops := s.ledger.Batch
	if accepts.Ops > 0 {
		ops = accepts.Ops - run.OpsOfRest - 1 // one record of log lines
	}
	s.limits.Changes = max(ops/run.OpsOfStep, 1)
	s.logRoom.Chunk, s.logRoom.Bytes = record.LogChunk(accepts, s.opts.Limits.LogLine)
	s.logRoom.Records = s.ledger.Batch - 1 // one op checks the run
}

// loop gives runs their turn when their due times have come. It returns when the scheduler has stopped.
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
		now, _ := s.now()
		next, late := s.pool.TakeDue(int64(now))
		if len(late) > 0 {
			s.background.Go(func() { s.driveLate(late) })
		}
		if next != 0 {
			timer.Reset(min(clock.Until(record.Time(next).Time()), longestSleep))
		} else {
			timer.Stop()
		}
	}
}

// driveLate drives the runs whose deadlines have come. They have no worker, and need none to end.
func (s *scheduler) driveLate(late []*runner) {
	var group errgroup.Group
	group.SetLimit(lateAtOnce) // so that a store can write several ends together
	for _, r := range late {
		if s.draining() {
			break // the next process finds them late
		}
		group.Go(func() error { s.drive(r, message{}, false); return nil })
	}
	_ = group.Wait()
}

// lateAtOnce bounds the runs that are driven at the same time because their deadlines have come.
const lateAtOnce = 32

// longestSleep bounds the time until the engine looks at the clock while something is due at a later time. It is how late
// the engine can notice that the machine has slept, or that the clock was set.
const longestSleep = time.Minute

// now returns the time of day, and the same moment for measuring what lasts. If the clock was set, the runs know it when
// now returns.
func (s *scheduler) now() (record.Time, time.Time) {
	wall, moment := s.clock.Now()
	return record.TimeOf(wall), moment
}

// clockSet tells the runs that the clock was set. Each run that waits for a time gets a turn, in which it corrects what is
// on record and goes on if its time has come.
func (s *scheduler) clockSet(by time.Duration) {
	s.log.Warn("the clock was set, or the machine has slept", "by", by)
	for _, r := range s.pool.Owners() {
		r.clockSet.Add(int64(by))
	}
	s.pool.Wake(int64(by))
	s.wakeLoop()
	s.upkeep.clockSet()
}

// wakeLoop makes the loop look at the due times again. It never blocks.
func (s *scheduler) wakeLoop() {
	nudge(s.wake)
}

// nudge sends to a channel of size 1 unless there is a value in it: one wake-up is enough.
func nudge(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// schedule arranges that a runner is driven at the time due, and at its deadline whether a worker is free or not; 0 cancels
// an earlier time. Until then the run is in the given state. calls is the number of driver calls that are about to be made
// for the run. Of the drivers and pauses for which the run has waited, it goes on waiting for those for which still returns
// true.
func (s *scheduler) schedule(r *runner, due, deadline record.Time, state plan.State, calls int, still func(name string) bool) {
	if s.pool.At(&r.task, int64(due), int64(deadline), uint8(state), calls, still) {
		s.wakeLoop()
	}
}

// enqueue arranges that a runner is driven as soon as a worker is free.
func (s *scheduler) enqueue(r *runner) { s.pool.Ready(&r.task) }

// startWorker starts a worker, which makes the attempt a first if a is not nil. The caller has reserved a worker's
// place in the pool. If the scheduler has stopped, startWorker gives the place and the attempt up.
func (s *scheduler) startWorker(a *attempt) {
	started := s.pool.IfBefore(sched.Stopped, func() {
		s.workers.Go(func() error { s.workerLoop(a); return nil })
	})
	switch {
	case started:
	case a != nil:
		a.drop()
	default:
		s.pool.Release()
	}
}

// background counts the goroutines that shutdown waits for, besides the workers, and the calls that it must not overtake.
// It is a [call.Group].
//
// Invariant: nothing is added after the pool has reached the phase Stopped, because shutdown waits from then on, and a
// WaitGroup does not allow that the count leaves zero while somebody waits.
type background struct {
	pool    *pool
	running sync.WaitGroup
}

// Enter counts one more, unless the scheduler has stopped.
func (b *background) Enter() bool { return b.enterBefore(sched.Stopped) }

// enterBefore counts one more, unless the pool has reached a phase, which is Stopped at the latest.
func (b *background) enterBefore(phase sched.Phase) bool {
	return b.pool.IfBefore(phase, func() { b.running.Add(1) })
}

// Leave reverses an Enter, or an enterBefore.
func (b *background) Leave() { b.running.Done() }

// Go runs fn in a goroutine that is counted. It returns false, and does not run fn, if the scheduler has stopped. It is
// for callers that a failing store must not delay.
func (b *background) Go(fn func()) bool { return b.goBefore(sched.Stopped, fn) }

// goBefore is Go with the condition of enterBefore.
func (b *background) goBefore(phase sched.Phase, fn func()) bool {
	if !b.enterBefore(phase) {
		return false
	}
	go func() {
		defer b.Leave()
		fn()
	}()
	return true
}

// until returns what call returns, or the cause of ctx if ctx ends before: call goes on then, and late is called if it succeeds. A panic
// of call is the caller's, unless it comes late.
func (s *scheduler) until(ctx context.Context, call func() error, late func()) error {
	var err error
	var panicked any
	returned := make(chan struct{})
	work := func() {
		defer func() {
			panicked = recover()
			close(returned)
			if panicked == nil && err == nil && late != nil && ctx.Err() != nil {
				late()
			}
		}()
		err = call()
	}
	if !s.background.Go(work) {
		work() // with an error, as the scheduler has stopped
	}
	if !closedBefore(ctx, returned) {
		return context.Cause(ctx)
	}
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// workerLoop is the goroutine of a worker. It works on one run after the other until no run is ready.
func (s *scheduler) workerLoop(a *attempt) {
	finished := false
	defer func() {
		// A driver that calls runtime.Goexit ends this goroutine. The next run needs another worker.
		if !finished {
			a.endedByGoexit()
		}
	}()
	since := time.Now()
	for {
		if a != nil {
			a.call(&a.out)
			next, late := a.callReturned(&a.out, !s.shouldYield(a.runner, since))
			if late { // another worker has replaced this one
				finished = true
				return
			}
			a = next
			continue
		}
		s.upkeep.help()
		t := s.pool.Next()
		if t == nil {
			finished = true
			return
		}
		since = time.Now()
		a = s.drive(t.Owner, message{}, true)
	}
}

// longestTurn bounds how long a run keeps a worker from step to step while other runs wait for a worker. Quick steps
// follow one another without a commit in between. A run of slow steps takes turns with the runs of other pipelines, and
// with the runs of its pipeline that have begun.
const longestTurn = 100 * time.Millisecond

// shouldYield reports whether a worker that has worked on one run since the given time should take another run next.
func (s *scheduler) shouldYield(r *runner, since time.Time) bool {
	return time.Since(since) >= longestTurn && s.pool.Contended(&r.task)
}

// take returns the runner of an unfinished run. If the pool does not know the run, take makes the runner. The run may
// then have leftovers from an earlier time.
func (s *scheduler) take(id string, key record.Key, lane string) *runner {
	return s.pool.Take(id, lane, uint8(plan.Queued), func() *task {
		r := &runner{task: task{ID: id, Key: key}, leftovers: 1}
		r.Owner = r
		return &r.task
	}).Owner
}

// forget removes the runner of a run that has ended or was never committed, and wakes the callers that wait for the end
// of the run.
func (s *scheduler) forget(r *runner) {
	for _, w := range s.drop(r, plan.Unset) {
		w <- nil
	}
}

// drop removes a runner from everything that refers to it, and returns the channels of the callers that wait for the
// end of the run. If the run has ended, ended is its final state.
func (s *scheduler) drop(r *runner, ended plan.State) (waiting []chan *Run) {
	s.pool.Remove(&r.task, uint8(ended))
	s.flusher.forget(r.log) // the lines of the log are written, or will never be written
	waiting = s.waiters.take(r.ID)
	s.followers.Wake(r.ID)
	return waiting
}

// failWaiters wakes the callers that wait for the end of a run that cannot continue because the store is closed. Later
// callers read the run from the store. Both get the error of the store.
func (s *scheduler) failWaiters(r *runner) {
	s.pool.Strand(&r.task)
	for _, w := range s.waiters.take(r.ID) {
		w <- nil
	}
}

// accepting returns ErrClosed if Shutdown has begun.
func (s *scheduler) accepting() error {
	if s.draining() {
		return ErrClosed
	}
	return nil
}

// draining reports whether Shutdown has begun.
func (s *scheduler) draining() bool { return s.pool.Phase() >= sched.Draining }
