package main

import (
	"context"
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

// sizes makes a store grow from size to size, measures at each, and ends with the start of another engine on it.
func (m *growthMeasurement) sizes(ctx context.Context) error {
	base := heapInUse()
	st, err := m.kind.open(ctx, m.dir)
	if err != nil {
		return err
	}
	grow, err := startGrower(ctx, st)
	if err != nil {
		return err
	}
	for _, size := range m.plan.sizes {
		m.logf("%s: growing to %s resources", m.kind.name, grouped(int64(size)))
		row, err := grow.measureAt(ctx, size)
		if err != nil {
			return err
		}
		row.store, row.size = m.kind.name, size
		row.heap = (heapInUse() - base) / float64(size)
		used, err := diskUsage(m.dir)
		if err != nil {
			return err
		}
		if row.disk = float64(used) / float64(size); used == 0 {
			row.disk = unknown
		}
		m.found.sizes = append(m.found.sizes, row)
	}
	if err := m.interleave(ctx, grow); err != nil {
		return err
	}
	return m.restart(ctx, st, grow)
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
