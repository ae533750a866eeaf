package main

import (
	"context"
)

// sizeRow holds the costs at one size.
type sizeRow struct {
	store string
	size  int

	step spread  // seconds for a step: the elapsed time divided by the steps of all runs
	heap float64 // bytes in use for each idle resource
	disk float64 // bytes on the disk for each finished run; unknown for a store in memory

	// Seconds for a Get, for a page of a hundred at the beginning, and for a page after nine tenths of the list.
	get                             spread
	listFirst, listDeep             spread
	runsFirst, runsDeep, runsNewest spread
}

// sizes fills a store from size to size and measures at each size. Then it measures the start of another engine on the
// filled store.
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

// measureAt fills the store up to size. It measures while it adds the last growthBlocks blocks. A block has at most 5,000
// resources, and all blocks together have at most half of size.
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
