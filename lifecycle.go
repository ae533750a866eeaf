package conveyor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/internal/call"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/sched"
	"github.com/conveyor-go/conveyor/store"
)

// start takes up every unfinished run and begins to work.
func (s *scheduler) start(ctx context.Context) error {
	if err := startable(s.pool.Phase()); err != nil {
		return err
	}
	found, err := s.recover(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, f := range found {
		lane := laneOf(f.pipeline, f.key)
		pipeline := f.pipeline
		if !f.begun {
			pipeline = ""
		}
		s.pool.Restore(&s.take(f.id, f.key, lane).task, lane, pipeline, uint8(f.state), int64(f.due))
	}
	return startable(s.pool.Begin(func() {
		s.observer = s.observe()
		s.upkeep.start()
		s.background.Go(s.loop)
	}))
}

// startable says why an engine in this phase cannot be started, or nothing.
func startable(phase sched.Phase) error {
	switch phase {
	case sched.New:
		return nil
	case sched.Running:
		return fmt.Errorf("%w: the engine was started already", ErrConflict)
	default:
		return ErrClosed
	}
}

// found is an unfinished run that a former process left behind.
type found struct {
	id       string
	key      record.Key
	pipeline string
	begun    bool
	state    plan.State
	due      record.Time // 0 for at once
}

// recover reads the unfinished runs, and none of the others. A run whose records are damaged is reported to the
// logger and left alone; it does not stop the others.
func (s *scheduler) recover(ctx context.Context) (runs []found, err error) {
	for r, err := range s.ledger.Store.List(ctx, store.Query{Prefix: record.ActivePrefix}) {
		if err != nil {
			return nil, err
		}
		id := r.Key[len(record.ActivePrefix):]
		run, err := s.ledger.Run(ctx, id)
		switch {
		case err == nil:
			due := run.SleepsUntil()
			if due != 0 && run.Awaits() {
				signaled, err := s.ledger.Signaled(ctx, id)
				if err != nil {
					return nil, err
				}
				if signaled {
					due = 0
				}
			}
			runs = append(runs, found{
				id: id, key: run.Rec.Key(), pipeline: run.Rec.Pipeline, begun: run.Plan != nil, state: run.State(), due: due,
			})
		case errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrNotFound), errors.Is(err, ErrNotFound):
			s.log.Error("unfinished run cannot be read; leaving it alone", "run", id, "error", err)
		default:
			return nil, err
		}
	}
	return runs, nil
}

// shutdownReserve is the part of the time given to Shutdown that is kept for drivers to return in after their
// contexts have ended: a quarter of it, and at most this.
const shutdownReserve = time.Second

// shutdown is a sequence: take nothing new, let attempts finish, cancel the rest, record what happened, join
// everyone.
func (s *scheduler) shutdown(ctx context.Context) error {
	drains, own, stopped := s.drain(ctx)
	if stopped {
		return s.rejoin(ctx, drains, own)
	}
	reserve := shutdownReserve
	last, limited := ctx.Deadline()
	var left time.Duration
	if limited {
		left = max(time.Until(last), 0)
		reserve = min(reserve, left/4)
	}
	if s.finished(ctx, drains, limited, left-reserve) {
		return s.stop(ctx, drains, own)
	}
	s.endAttempts()
	select {
	case <-drains.Drained:
	case <-time.After(reserve - reserve/4): // the rest is for recording what is given up
	case <-s.done:
	}
	return s.stop(ctx, drains, own)
}

// finished waits for the attempts to finish by themselves, and reports whether they have. Without a limit it is as patient
// with drivers as they need; then a store that fails, or does not answer, has ShutdownGrace to record what they did.
func (s *scheduler) finished(ctx context.Context, drains sched.Drains, limited bool, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var quiet <-chan struct{}
	if !limited {
		timer.Stop()
		quiet = drains.Quiet
	}
	for {
		select {
		case <-drains.Drained:
			return true
		case <-quiet:
			quiet = nil
			timer.Reset(s.opts.ShutdownGrace)
		case <-timer.C:
			if limited || !s.pool.Calling() {
				return false
			}
			timer.Reset(s.opts.ShutdownGrace) // a call that was about to be made when the others returned
		case <-ctx.Done():
			return false
		case <-s.done: // another call was faster
			return false
		}
	}
}

// endAttempts ends the contexts of all attempts. Those that start meanwhile end theirs when they have been added to
// their journey.
func (s *scheduler) endAttempts() {
	s.ending.Store(true)
	for _, a := range s.runningAttempts() {
		a.Cancel(ErrShutdown)
	}
}

// drain has nothing new started from here on. It returns the attempt whose driver is the caller, if there is one, and
// whether the scheduler has stopped already.
func (s *scheduler) drain(ctx context.Context) (drains sched.Drains, own *attempt, stopped bool) {
	if a, _ := call.MakerOf(ctx).(*attempt); a != nil && a.sched == s {
		a.Unreturned(func() {
			own = a // a driver shuts down the engine it runs in: to wait for it would be to wait for ever
			if a.inShutdown.CompareAndSwap(false, true) {
				s.pool.Exempt(1)
			}
		})
	}
	drains, phase := s.pool.Drain()
	return drains, own, phase == sched.Stopped
}

// unexempt takes note that a driver which called Shutdown has returned from its own call.
func (s *scheduler) leaveShutdown(a *attempt) {
	if a.inShutdown.CompareAndSwap(true, false) {
		s.pool.Exempt(-1)
	}
}

// stop gives up what is left, and joins everything but that. It returns an error that names what it gave up.
func (s *scheduler) stop(ctx context.Context, drains sched.Drains, own *attempt) error {
	if s.pool.Reach(sched.Stopping) {
		close(s.stopRetrying)
	}
	until, cancel := s.lastMoment(ctx)
	defer cancel()
	recorded := within(until, func() {
		s.abandonAll(func(a *attempt) bool { return !a.inShutdown.Load() })
		s.flusher.flush()
	})
	first := s.pool.Reach(sched.Stopped)
	if first {
		close(s.done)
		s.flusher.alarm.stop()
		s.upkeep.stop()
	}
	if own == nil {
		recorded = s.join(ctx, until, drains) && recorded
	} else if first {
		s.events.Close()
	}
	return s.leftovers(ctx, own, recorded)
}

// rejoin is Shutdown after it has been called before: by a driver, perhaps, which has not returned. What another call has
// named is not named again.
func (s *scheduler) rejoin(ctx context.Context, drains sched.Drains, own *attempt) error {
	if own != nil {
		return nil
	}
	until, cancel := s.lastMoment(ctx)
	defer cancel()
	named := s.abandoned.list()
	if s.join(ctx, until, drains) && len(s.abandoned.list()) <= len(named) {
		return nil
	}
	return s.leftovers(ctx, own, true)
}

// lastMoment is when Shutdown returns whatever the store does. What is to be recorded has a moment even if the deadline has
// passed, or an answer of the store that is on its way would never be known.
func (s *scheduler) lastMoment(ctx context.Context) (context.Context, context.CancelFunc) {
	patience := s.opts.ShutdownGrace
	if last, limited := ctx.Deadline(); limited {
		patience = max(time.Until(last), shutdownReserve/4)
	} else if ctx.Err() != nil {
		patience = shutdownReserve
	}
	return context.WithTimeout(context.WithoutCancel(ctx), patience)
}

// within reports whether fn has returned in time. It is left behind otherwise: nothing can end a call of a store.
func within(until context.Context, fn func()) bool {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		fn()
	}()
	select {
	case <-returned:
		return true
	case <-until.Done():
		return false
	}
}

// abandonAll gives up the attempts that are under way, all at once, so that a store can write them together.
func (s *scheduler) abandonAll(which func(*attempt) bool) {
	var all sync.WaitGroup
	for _, a := range s.runningAttempts() {
		if which(a) {
			all.Go(func() { s.abandon(a) })
		}
	}
	all.Wait()
}

// join waits for all that the scheduler has started. Drivers that called Shutdown themselves return from that by now; they
// are given up later than the others, after half of the time that is left, and half of the rest.
func (s *scheduler) join(ctx, until context.Context, drains sched.Drains) (recorded bool) {
	var patience <-chan time.Time // nil, and so never, where drivers have all the time they need
	reserve, unended := shutdownReserve, ctx.Err() == nil
	if last, limited := ctx.Deadline(); limited {
		left := max(time.Until(last), 0)
		patience, reserve = time.After(left/2), min(left/4, reserve)
	}
	select {
	case <-drains.Idle:
	case <-patience:
		s.endAttempts()
	case <-ctx.Done():
		s.endAttempts()
	}
	select {
	case <-drains.Idle:
	case <-time.After(reserve):
	case <-until.Done():
	}
	if patience == nil && unended {
		var cancel context.CancelFunc
		until, cancel = s.lastMoment(ctx) // what is to be recorded comes only now
		defer cancel()
	}
	recorded = within(until, func() {
		s.abandonAll(func(*attempt) bool { return true })
		s.background.Wait()
		if s.pool.Alone() {
			_ = s.workers.Wait() // they return nil
		}
	})
	s.events.Close() // after those who had something to tell
	s.observer.finish(until)
	s.log.Finish(until)
	return recorded
}

// leftovers is the error that names what did not stop, and what was not recorded.
func (s *scheduler) leftovers(ctx context.Context, own *attempt, recorded bool) error {
	cause := context.Cause(ctx)
	if cause == nil {
		cause = context.DeadlineExceeded // it is about to be
	}
	var problems []string
	if left := slices.DeleteFunc(s.abandoned.list(), func(a *attempt) bool { return a == own }); len(left) > 0 {
		problems = append(problems, "still running: "+describeAttempts(left))
	}
	lost, err := s.unrecorded(recorded)
	if len(lost) > 0 {
		problems = append(problems, "not recorded: "+strings.Join(lost, "; "))
	}
	if !recorded {
		problems = append(problems, "the store has not answered")
	}
	switch {
	case len(problems) == 0:
		return nil
	case err != nil:
		return fmt.Errorf("conveyor: shutdown: %s: %w: %w", strings.Join(problems, "; "), cause, err)
	}
	return fmt.Errorf("conveyor: shutdown: %s: %w", strings.Join(problems, "; "), cause)
}

// losses names the runs of which something is not on record that should be, and the last error of the store for them.
func (s *scheduler) unrecorded(recorded bool) (runs []string, err error) {
	s.mu.Lock()
	lost := slices.Clone(s.unrecordedRuns)
	s.mu.Unlock()
	if !recorded {
		for _, r := range s.pool.Owners() {
			lost = append(lost, unrecordedRun{runner: r})
		}
	}
	for _, l := range lost {
		l.runner.mu.Lock()
		busy := l.runner.busy
		l.runner.mu.Unlock()
		if busy || l.err != nil {
			runs = append(runs, fmt.Sprintf("run %s (resource %s)", l.runner.ID, l.runner.Key))
		}
		err = cmp.Or(l.err, err)
	}
	slices.Sort(runs)
	return slices.Compact(runs), err
}
