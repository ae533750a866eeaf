package main

import (
	"context"
	"errors"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// startRow holds the time that an engine needs to continue unfinished runs.
type startRow struct {
	store                string
	finished, unfinished int
	open                 float64 // seconds to open the store
	start                float64 // seconds until Start returns
	drained              float64 // seconds from then until the queued runs have ended
	queued               int     // how many of the unfinished runs are queued; the others wait for a signal
}

// restart leaves unfinished runs in a filled store, and measures the start of the next engine on the store. It closes the
// store.
func (m *growthMeasurement) restart(ctx context.Context, st store.Store, grow *grower) (err error) {
	row := startRow{
		store: m.kind.name, finished: int(grow.runs), unfinished: m.plan.unfinished, queued: m.plan.unfinished / 10,
	}
	m.logf("%s: leaving %s runs unfinished", m.kind.name, grouped(int64(row.unfinished)))
	if err := grow.leaveUnfinished(ctx, st, row.unfinished-row.queued, row.queued); err != nil {
		return errors.Join(err, st.Close())
	}
	*grow = grower{} // release the memory of this engine before the next engine is measured

	m.logf("%s: starting on what is unfinished", m.kind.name)
	begin := time.Now()
	if st, err = m.kind.reopen(ctx, st, m.dir); err != nil {
		return err
	}
	row.open = time.Since(begin).Seconds()
	defer func() { err = errors.Join(err, st.Close()) }()

	next, err := newGrower(ctx, st)
	if err != nil {
		return err
	}
	if err := row.measure(ctx, next); err != nil {
		return err
	}
	m.found.starts = append(m.found.starts, row)
	return next.shutdown(ctx)
}

// measure measures the start of an engine, and the queued runs that the engine executes then.
func (row *startRow) measure(ctx context.Context, next *grower) error {
	begin := time.Now()
	if err := next.engine.Start(ctx); err != nil {
		return err
	}
	row.start = time.Since(begin).Seconds()
	begin = time.Now()
	if err := next.waitUntilIdle(ctx, row.unfinished-row.queued); err != nil {
		return err
	}
	row.drained = time.Since(begin).Seconds()
	return nil
}

// leaveUnfinished makes runs that wait for a signal, and shuts the engine down. Then it queues runs with another engine
// that is never started.
func (g *grower) leaveUnfinished(ctx context.Context, st store.Store, parked, queued int) error {
	if _, err := g.fill(ctx, "wait", parked, fillFlight); err != nil {
		return err
	}
	if err := g.waitUntilIdle(ctx, parked); err != nil {
		return err
	}
	if err := g.shutdown(ctx); err != nil {
		return err
	}
	idle, err := newGrower(ctx, st)
	if err != nil {
		return err
	}
	first := g.runs
	err = concurrently(ctx, fillFlight, queued, func(ctx context.Context, i int) error {
		_, err := idle.engine.Apply(ctx, object(growerName(first+int64(i)), "five"))
		return err
	})
	return errors.Join(err, idle.shutdown(ctx))
}
