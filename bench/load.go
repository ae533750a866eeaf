package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// maxRuns bounds a load, whatever its time.
const maxRuns = 5_000_000

// loadGenerator keeps runs in flight: each caller does one after the other.
type loadGenerator struct {
	session session
	next    atomic.Int64 // number of the next run
}

// outcome is what a load came to.
type outcome struct {
	runs      int
	elapsed   time.Duration   // until the last of them had ended
	latencies []time.Duration // sorted
}

// run begins runs for a time, and returns when all have ended. The first that fails ends it.
func (l *loadGenerator) run(ctx context.Context, flight int, d time.Duration) (outcome, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d+runTimeout, errStuck)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	callers := make([][]time.Duration, flight)
	start := time.Now()
	for i := range callers {
		group.Go(func() (err error) {
			callers[i], err = l.runCaller(ctx, start.Add(d))
			return err
		})
	}
	err := group.Wait()
	elapsed := time.Since(start)
	latencies := slices.Concat(callers...)
	slices.Sort(latencies)
	return outcome{runs: len(latencies), elapsed: elapsed, latencies: latencies}, err
}

var errStuck = fmt.Errorf("a run has not ended within %s", runTimeout)

// runCaller does one run after the other until the time has come, and at least one.
func (l *loadGenerator) runCaller(ctx context.Context, until time.Time) (latencies []time.Duration, err error) {
	for now := time.Now(); len(latencies) == 0 || now.Before(until); {
		n := l.next.Add(1)
		if n > maxRuns {
			return latencies, nil
		}
		id := runName(n)
		if err := l.session.run(ctx, id); err != nil {
			return latencies, fmt.Errorf("%s: %w", id, err)
		}
		end := time.Now()
		latencies = append(latencies, end.Sub(now))
		now = end
	}
	return latencies, nil
}
