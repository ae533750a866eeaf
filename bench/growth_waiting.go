package main

import (
	"context"
	"runtime"
)

// waitingRow is what runs take that wait for a signal.
type waitingRow struct {
	store      string
	waiting    int
	heap       float64 // bytes in use for each of them, in engine and store
	engine     float64 // of those, what is free again when the engine is gone
	goroutines [2]int  // with none and with all of them waiting
}

// waitingRuns parks runs and weighs them.
func (m *growthMeasurement) waitingRuns(ctx context.Context) error {
	m.logf("%s: parking %s runs", m.kind.name, grouped(int64(m.plan.waiting)))
	return withGrower(ctx, m.kind, m.dir, func(grow *grower) error { return m.weighWaiting(ctx, grow) })
}

func (m *growthMeasurement) weighWaiting(ctx context.Context, grow *grower) error {
	if _, err := grow.fill(ctx, "five", fillFlight, fillFlight); err != nil { // every worker has been at work
		return err
	}
	row := waitingRow{store: m.kind.name, waiting: m.plan.waiting}
	none := heapInUse()
	row.goroutines[0] = runtime.NumGoroutine()
	if _, err := grow.fill(ctx, "wait", m.plan.waiting, fillFlight); err != nil {
		return err
	}
	if err := grow.waitUntilIdle(ctx, m.plan.waiting); err != nil {
		return err
	}
	all := heapInUse()
	row.goroutines[1] = runtime.NumGoroutine()
	if err := grow.shutdown(ctx); err != nil {
		return err
	}
	*grow = grower{}
	row.heap = (all - none) / float64(m.plan.waiting)
	row.engine = (all - heapInUse()) / float64(m.plan.waiting)
	m.found.waiting = append(m.found.waiting, row)
	return nil
}
