package main

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/conveyor-go/conveyor"
)

// sizeRow is what things cost at one size.
type sizeRow struct {
	store string
	size  int

	step spread  // seconds a step, over all runs in flight
	heap float64 // bytes in use for each resource at rest
	disk float64 // bytes on disk for each finished run; unknown for a store in memory

	// Seconds each: a Get, and pages of a hundred at the beginning, and where a tenth is left.
	get                             spread
	listFirst, listDeep             spread
	runsFirst, runsDeep, runsNewest spread
}

// pageSize is how many resources or runs are listed at once.
const pageSize = 100

// sizes makes a store grow from size to size, measures at each, and ends with the start of another engine on it.
func (b *bench) sizes(ctx context.Context, plan growthPlan, kind storeKind, dir string, g *growth) error {
	base := heapInUse()
	st, err := kind.open(ctx, dir)
	if err != nil {
		return err
	}
	grow, err := newGrower(ctx, st)
	if err != nil {
		return err
	}
	if err := grow.engine.Start(ctx); err != nil {
		return err
	}
	for _, size := range plan.sizes {
		b.logf("%s: growing to %s resources", kind.name, grouped(int64(size)))
		row, err := grow.measureAt(ctx, size)
		if err != nil {
			return err
		}
		row.store, row.size = kind.name, size
		row.heap = (heapInUse() - base) / float64(size)
		used, err := diskUsage(dir)
		if err != nil {
			return err
		}
		if row.disk = float64(used) / float64(size); used == 0 {
			row.disk = unknown
		}
		g.sizes = append(g.sizes, row)
	}
	if err := b.takeTurns(ctx, plan, kind, dir, grow, g); err != nil {
		return err
	}
	return b.restart(ctx, plan, kind, dir, st, grow, g)
}

// measureAt makes the store grow to a size, the last tenths of it in measured blocks.
func (g *grower) measureAt(ctx context.Context, size int) (row sizeRow, err error) {
	block := min(size/(2*growthBlocks), 5_000)
	if _, err := g.fill(ctx, "five", size-int(g.runs)-growthBlocks*block, fillFlight); err != nil {
		return row, err
	}
	var perStep []float64
	for range growthBlocks {
		took, err := g.fill(ctx, "five", block, growthFlight)
		if err != nil {
			return row, err
		}
		perStep = append(perStep, took.Seconds()/float64(block*steps))
	}
	row.step = spreadOf(perStep)
	return row, g.measureReads(ctx, size, &row)
}

func (g *grower) measureReads(ctx context.Context, size int, row *sizeRow) error {
	deep := growerName(int64(size) * 9 / 10)
	object, err := g.engine.Get(ctx, conveyor.Key{Type: "thing", Name: deep})
	if err != nil {
		return err
	}
	early, err := g.engine.Get(ctx, conveyor.Key{Type: "thing", Name: growerName(int64(size) / 10)})
	if err != nil {
		return err
	}
	pages := []struct {
		into *spread
		read func() error
	}{
		{&row.get, func() error { return g.getAny(ctx, size) }},
		{&row.listFirst, func() error { return g.listPage(ctx, "") }},
		{&row.listDeep, func() error { return g.listPage(ctx, deep) }},
		{&row.runsFirst, func() error { return g.runsPage(ctx, conveyor.RunFilter{}) }},
		{&row.runsDeep, func() error { return g.runsPage(ctx, conveyor.RunFilter{After: object.Status.Run}) }},
		{&row.runsNewest, func() error {
			return g.runsPage(ctx, conveyor.RunFilter{After: early.Status.Run, Newest: true})
		}},
	}
	for _, page := range pages {
		if *page.into, err = timed(page.read); err != nil {
			return err
		}
	}
	return nil
}

func (g *grower) getAny(ctx context.Context, size int) error {
	_, err := g.engine.Get(ctx, conveyor.Key{Type: "thing", Name: growerName(rand.Int64N(int64(size)))})
	return err
}

func (g *grower) listPage(ctx context.Context, after string) error {
	return readAll(g.engine.List(ctx, conveyor.ResourceFilter{Type: "thing", After: after, Limit: pageSize}))
}

func (g *grower) runsPage(ctx context.Context, f conveyor.RunFilter) error {
	f.Limit = pageSize
	return readAll(g.engine.Runs(ctx, f))
}

func readAll[T any](values iter.Seq2[T, error]) error {
	for _, err := range values {
		if err != nil {
			return err
		}
	}
	return nil
}

// timed calls do some hundred times and tells how long one call took.
func timed(do func() error) (spread, error) {
	const calls = 50
	var each []float64
	for range growthBlocks {
		start := time.Now()
		for range calls {
			if err := do(); err != nil {
				return spread{}, err
			}
		}
		each = append(each, time.Since(start).Seconds()/calls)
	}
	return spreadOf(each), nil
}
