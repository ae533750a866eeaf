// Package again tries what can fail because a server cannot be reached.
package again

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// The pauses between two attempts to reach a server. The longest one is a small part of the shortest lease that an engine can have: when
// the server is back, no engine shall be taken for dead because it has tried a little later than another one.
const (
	firstPause   = 20 * time.Millisecond
	longestPause = 150 * time.Millisecond
)

// Pause is how long to wait before the next attempt. The zero value is ready for use.
type Pause time.Duration

// Next waits, longer each time, until ctx ends at the latest.
func (p *Pause) Next(ctx context.Context) { p.AtMost(ctx, longestPause) }

// AtMost is Next with another longest pause.
func (p *Pause) AtMost(ctx context.Context, longest time.Duration) {
	*p = min(max(2**p, Pause(firstPause)), Pause(longest))
	timer := time.NewTimer(time.Duration(*p)/2 + rand.N(time.Duration(*p)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Tries are attempts at something that can be tried again after a lost answer.
type Tries struct {
	// Longest is how long an attempt takes at most. It leaves time for another one, because a connection can be silent though others are
	// not.
	Longest time.Duration
	// Passing reports whether an error can be over when the same is tried again.
	Passing func(error) bool
	// Final returns the error with which the tries end that Passing has not let pass.
	Final func(error) error
	// Failed takes note of an error that is passing. It returns the one that says most: this, or what was returned for the attempt before.
	Failed func(before, err error) error
}

// Until calls fn until it succeeds, and no longer than until a deadline. Its error is that of Final, the cause of ctx, or
// [store.ErrUnavailable] with what Failed has returned last.
func (t Tries) Until(ctx context.Context, deadline time.Time, fn func(ctx context.Context) error) error {
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var wait Pause
	var why error
	for {
		attempt, cancel := context.WithTimeout(limited, t.Longest)
		err := fn(attempt)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !t.Passing(err):
			return t.Final(err)
		}
		why = t.Failed(why, err)
		if wait.Next(limited); limited.Err() != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return Unavailable(why)
		}
	}
}

// Unavailable returns the error for a server that could not be reached, and why.
func Unavailable(why error) error { return fmt.Errorf("%w: %w", store.ErrUnavailable, why) }
