package main

import (
	"context"
	"errors"
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
func (b *bench) waitingRuns(ctx context.Context, plan growthPlan, kind storeKind, dir string, g *growth) (err error) {
	b.logf("%s: parking %s runs", kind.name, grouped(int64(plan.waiting)))
	st, err := kind.open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	grow, err := newGrower(ctx, st)
	if err != nil {
		return err
	}
	if err := grow.engine.Start(ctx); err != nil {
		return err
	}
	if _, err := grow.fill(ctx, "five", fillFlight, fillFlight); err != nil { // every worker has been at work
		return err
	}
	row := waitingRow{store: kind.name, waiting: plan.waiting}
	none := heapInUse()
	row.goroutines[0] = runtime.NumGoroutine()
	if _, err := grow.fill(ctx, "wait", plan.waiting, fillFlight); err != nil {
		return err
	}
	if err := grow.waitUntilIdle(ctx, plan.waiting); err != nil {
		return err
	}
	all := heapInUse()
	row.goroutines[1] = runtime.NumGoroutine()
	if err := grow.shutdown(ctx); err != nil {
		return err
	}
	*grow = grower{}
	row.heap = (all - none) / float64(plan.waiting)
	row.engine = (all - heapInUse()) / float64(plan.waiting)
	g.waiting = append(g.waiting, row)
	runtime.KeepAlive(st)
	return nil
}
