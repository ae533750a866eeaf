package main

import (
	"context"
	"runtime"
)

// waitingRow holds what runs use while they wait for a signal.
type waitingRow struct {
	store      string
	waiting    int
	heap       float64 // bytes in use for each waiting run, in the engine and in the store
	engine     float64 // the part of heap that is free again after the engine is released
	goroutines [2]int  // the number with no run waiting, and with all runs waiting
}

// waitingRuns measures the memory and the goroutines of runs that wait for a signal.
func (m *growthMeasurement) waitingRuns(ctx context.Context) error {
	m.logf("%s: parking %s runs", m.kind.name, grouped(int64(m.plan.waiting)))
	return withGrower(ctx, m.kind, m.dir, func(grow *grower) error { return m.weighWaiting(ctx, grow) })
}

func (m *growthMeasurement) weighWaiting(ctx context.Context, grow *grower) error {
	if _, err := grow.fill(ctx, "five", fillFlight, fillFlight); err != nil { // start all workers
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
	*grow = grower{} // releases the engine; withGrower keeps the store
	row.heap = (all - none) / float64(m.plan.waiting)
	row.engine = (all - heapInUse()) / float64(m.plan.waiting)
	m.found.waiting = append(m.found.waiting, row)
	return nil
}
