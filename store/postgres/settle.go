package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/conveyor-go/conveyor/store/internal/again"
)

// grace is how much longer than Patience a commit tries to find out what came of it. After that time the server has either
// finished it or refuses it, because it comes too late.
const grace = 10 * time.Second

// doubtful is how long after that the writes can still come, if the clock of the server is set.
const doubtful = time.Second

// settle finds out whether an attempt has happened, and makes sure that it does not happen later. It returns an error if it could
// not find out.
func (s *Store) settle(ctx context.Context, group int64, deadline time.Time) (happened bool, done outcome, err error) {
	deadline = deadline.Add(s.grace)
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	var wait again.Pause
	for {
		call, cancel := context.WithTimeout(ctx, s.opts.Patience*2/3)
		happened, done, err = s.callSettle(call, group, s.clock.at(deadline))
		cancel()
		switch {
		case err == nil:
			return happened, done, nil
		case code(err) == codeLate:
			s.setClock(ctx)
		case !errors.Is(err, errLost) && !passing(err):
			return false, outcome{}, err
		}
		if errors.Is(err, errLost) {
			s.breaks.note()
		}
		if wait.Next(ctx); ctx.Err() != nil {
			return false, outcome{}, err
		}
	}
}

// doubt notes that an attempt is not settled.
func (s *Store) doubt(group int64) {
	s.settling <- struct{}{}
	defer func() { <-s.settling }()
	s.doubts = append(s.doubts, group)
	s.inDoubt.Store(true)
}

// settleDoubts settles the attempts of which a commit has returned ErrUnknown. It returns nil if there are none left.
func (s *Store) settleDoubts(ctx context.Context) error {
	if !s.inDoubt.Load() {
		return nil
	}
	select {
	case s.settling <- struct{}{}:
	case <-ctx.Done(): // another caller settles them, which can take long
		return context.Cause(ctx)
	}
	defer func() { <-s.settling }()
	for len(s.doubts) > 0 {
		if err := s.settleDoubt(ctx, s.doubts[0]); err != nil {
			return err
		}
		s.doubts = s.doubts[1:]
	}
	s.inDoubt.Store(false)
	return nil
}

func (s *Store) settleDoubt(ctx context.Context, group int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Patience/3)
	defer cancel()
	clock, err := s.readClock(ctx)
	if err != nil {
		return err
	}
	happened, done, err := s.callSettle(ctx, group, clock.at(time.Now().Add(s.opts.Patience/3)))
	if err == nil && happened {
		s.teller.note(done.base+1, [][]byte{nil}) // whoever knows the first commit of a group knows all
	}
	return err
}

// callSettle calls the function settle once.
func (s *Store) callSettle(ctx context.Context, group, until int64) (happened bool, done outcome, err error) {
	err = s.inTurn(ctx, &s.settleCall, [][]byte{s.writer[:], int64Value(group), int64Value(until)}, func(v [][]byte) error {
		return errors.Join(scanBool(v[0], &happened), scan(v[1], &done.base), scanInts(v[2], &done.failed))
	})
	return happened, done, err
}

// serverClock is what the clock of the server has shown, and a time that was not later.
type serverClock struct {
	shown int64 // microseconds
	sent  time.Time
}

// at returns what the clock of the server shows at a time, or somewhat more.
func (c serverClock) at(t time.Time) int64 { return c.shown + t.Sub(c.sent).Microseconds() }

// readClock reads the clock of the server.
func (s *Store) readClock(ctx context.Context) (serverClock, error) {
	c := serverClock{sent: time.Now()}
	err := s.row(ctx, s.clockSQL, nil, &c.shown)
	return c, err
}

// setClock reads the clock of the server anew, because it was set, or because the machine has slept. Only the leader calls it.
func (s *Store) setClock(ctx context.Context) {
	if c, err := s.readClock(ctx); err == nil {
		s.clock = c
	}
}
