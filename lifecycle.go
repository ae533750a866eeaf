package conveyor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// start takes up every unfinished run and begins to work.
func (s *scheduler) start(ctx context.Context) error {
	if err := s.mayStart(); err != nil {
		return err
	}
	found, err := s.recover(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	s.mu.Lock()
	if err := s.mayStartLocked(); err != nil {
		s.mu.Unlock()
		return err
	}
	s.phase = phaseRunning
	s.observing = s.observe()
	for _, f := range found {
		j := s.journeyLocked(f.id, f.key, "")
		j.lane = laneOf(f.pipeline, f.key)
		if f.begun && f.pipeline != "" && j.room == nil {
			j.room = s.roomLocked(f.pipeline)
			j.room.busy++
		}
		s.showsLocked(j, f.state)
		s.scheduleLocked(j, f.due)
	}
	for _, j := range s.journeys { // those found, and those applied before the start
		if j.due == 0 {
			s.enqueueLocked(j)
		}
	}
	s.resyncAt = toInstant(time.Now()) // to find out what is due
	s.aside.Go(s.loop)
	s.mu.Unlock()
	s.hire()
	return nil
}

func (s *scheduler) mayStart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mayStartLocked()
}

func (s *scheduler) mayStartLocked() error {
	switch s.phase {
	case phaseNew:
		return nil
	case phaseRunning:
		return fmt.Errorf("%w: the engine was started already", ErrConflict)
	default:
		return ErrClosed
	}
}

// found is an unfinished run that a former process left behind.
type found struct {
	id       string
	key      Key
	pipeline string
	begun    bool
	state    State
	due      instant // 0 for at once
}

// recover reads the unfinished runs, and none of the others. A run whose records are damaged is reported to the
// logger and left alone; it does not stop the others.
func (s *scheduler) recover(ctx context.Context) (runs []found, err error) {
	for r, err := range s.ledger.store.List(ctx, store.Query{Prefix: activePrefix}) {
		if err != nil {
			return nil, err
		}
		id := r.Key[len(activePrefix):]
		run, err := s.ledger.run(ctx, id)
		switch {
		case err == nil:
			due := run.sleepsUntil()
			if due != 0 && run.awaits() {
				signaled, err := s.ledger.signaled(ctx, id)
				if err != nil {
					return nil, err
				}
				if signaled {
					due = 0
				}
			}
			runs = append(runs, found{
				id: id, key: run.rec.key(), pipeline: run.rec.Pipeline, begun: run.plan != nil, state: run.state(), due: due,
			})
		case errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrNotFound), errors.Is(err, ErrNotFound):
			s.opts.Logger.Error("unfinished run cannot be read; leaving it alone", "run", id, "error", err)
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
	drained, own := s.drain(ctx)
	if drained == nil {
		return nil // stopped before
	}
	if own != nil {
		defer s.unexempt(own)
	}
	last, limited := ctx.Deadline()
	var patience <-chan time.Time // nil, and so never, when ctx has no deadline
	var reserve time.Duration
	if limited {
		left := max(time.Until(last), 0)
		reserve = min(shutdownReserve, left/4)
		patience = time.After(left - reserve)
	}
	select {
	case <-drained:
		return s.stop(ctx, own)
	case <-patience:
	case <-ctx.Done():
	case <-s.done: // another call was faster
	}
	if !limited {
		reserve = shutdownReserve
	}
	s.endAttempts()
	select {
	case <-drained:
	case <-time.After(reserve - reserve/4): // the rest is for recording what is given up
	case <-s.done:
	}
	return s.stop(ctx, own)
}

// endAttempts ends the contexts of all attempts. Those that start meanwhile end theirs when they have been added to
// their journey.
func (s *scheduler) endAttempts() {
	s.ending.Store(true)
	for _, a := range s.running() {
		a.cancel(ErrShutdown)
	}
}

// drain has nothing new started from here on.
func (s *scheduler) drain(ctx context.Context) (drained chan struct{}, own *attempt) {
	a, _ := ctx.Value(contextKey{}).(*attempt)
	if a != nil {
		a.journey.mu.Lock()
		defer a.journey.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == phaseStopped {
		return nil, nil
	}
	if a != nil && s.journeys[a.journey.id] == a.journey && !a.returned && !a.abandoned {
		own = a // a driver shuts down the engine it runs in: to wait for it would be to wait for ever
		if a.exempt.CompareAndSwap(false, true) {
			s.exempt++
		}
	}
	s.phase = max(s.phase, phaseDraining)
	if s.drained == nil {
		s.drained = make(chan struct{})
	}
	s.checkDrainedLocked()
	return s.drained, own
}

// unexempt takes back that an attempt need not be waited for.
func (s *scheduler) unexempt(a *attempt) {
	if a.exempt.CompareAndSwap(true, false) {
		s.mu.Lock()
		s.exempt--
		s.mu.Unlock()
	}
}

// stop gives up what is left, and joins everything but that. It returns an error that names what it gave up.
func (s *scheduler) stop(ctx context.Context, own *attempt) error {
	s.mu.Lock()
	if s.phase < phaseStopping {
		s.phase = phaseStopping
		close(s.giveUp)
	}
	s.mu.Unlock()
	for _, a := range s.running() {
		if a != own {
			s.abandon(a)
		}
	}
	left := s.straying()
	s.flushAll()
	s.mu.Lock()
	first := s.phase != phaseStopped
	s.phase = phaseStopped
	if first {
		close(s.done)
	}
	alone := s.stuck+s.exempt == 0
	s.mu.Unlock()
	if own == nil {
		s.aside.Wait()
	}
	if alone {
		_ = s.workers.Wait() // they return nil
	}
	if first {
		s.events.close() // after those who had something to tell
	}
	if own == nil {
		s.observing.finish(timeLeft(ctx))
	}
	if len(left) == 0 {
		return nil
	}
	cause := context.Cause(ctx)
	if cause == nil {
		cause = context.DeadlineExceeded // it is about to be
	}
	return fmt.Errorf("conveyor: shutdown: still running: %s: %w", describeAttempts(left), cause)
}

// timeLeft is what remains of the time given to Shutdown.
func timeLeft(ctx context.Context) time.Duration {
	if last, limited := ctx.Deadline(); limited {
		return max(time.Until(last), 0)
	}
	return shutdownReserve
}

// flushAll writes the log lines that are left.
func (s *scheduler) flushAll() {
	s.mu.Lock()
	logs := slices.Collect(maps.Values(s.flush))
	clear(s.flush)
	s.mu.Unlock()
	for _, j := range logs {
		s.drive(j, message{}, false)
	}
}
