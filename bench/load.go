package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// maxRuns is the most runs of a load, regardless of its duration.
const maxRuns = 5_000_000

// loadGenerator keeps a number of runs in flight. Each of its callers does one run after the other.
type loadGenerator struct {
	session session
	next    atomic.Int64 // number of the last run that was begun
}

// outcome is the result of a load.
type outcome struct {
	runs      int
	elapsed   time.Duration   // until the last run ended
	latencies []time.Duration // sorted
}

// run begins runs for the duration d, and returns when all runs have ended. After the first error it begins no more runs,
// and returns the error.
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

// runCaller does one run after the other until the time until, and at least one run.
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
