package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// sample is one measurement.
type sample struct {
	rate     float64 // runs/s
	p50, p99 float64 // seconds for a run
	// The values for a run; unknown if negative.
	allocs, bytes, written, disk, syncs float64
}

// measure opens a contender, warms it up, and measures it under load.
func (b *bench) measure(ctx context.Context, c contender, dir string, flight int, d time.Duration) (_ sample, err error) {
	s, err := c.open(ctx, site{dir: dir, flight: flight, do: func(string, int) {}})
	if err != nil {
		return sample{}, fmt.Errorf("open: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, s.close(end))
	}()

	l := &loadGenerator{session: s}
	if _, err := l.run(ctx, min(flight, 16), d/10); err != nil {
		return sample{}, fmt.Errorf("warm up: %w", err)
	}
	runtime.GC()
	before, err := b.meter.read(s, dir)
	if err != nil {
		return sample{}, err
	}
	out, err := l.run(ctx, flight, d)
	if err != nil {
		return sample{}, err
	}
	after, err := b.meter.read(s, dir)
	if err != nil {
		return sample{}, err
	}
	return newSample(out, before, after), nil
}

func newSample(out outcome, before, after counters) sample {
	runs := float64(out.runs)
	per := func(before, after int64) float64 {
		if before < 0 || after < 0 {
			return unknown
		}
		return float64(after-before) / runs
	}
	return sample{
		rate:    runs / out.elapsed.Seconds(),
		p50:     percentile(out.latencies, 50).Seconds(),
		p99:     percentile(out.latencies, 99).Seconds(),
		allocs:  float64(after.allocs-before.allocs) / runs,
		bytes:   float64(after.bytes-before.bytes) / runs,
		written: per(before.written, after.written),
		disk:    max(per(before.disk, after.disk), 0), // a truncated log does not count as negative use
		syncs:   per(before.syncs, after.syncs),
	}
}
