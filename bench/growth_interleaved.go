package main

import (
	"context"
	"path/filepath"
)

// interleavedRow holds the cost of a step among few resources and among many resources. The two measurements are
// interleaved, so that other work of the machine affects both of them equally.
type interleavedRow struct {
	store             string
	few, many         int    // number of resources before the first measurement
	fewStep, manyStep spread // seconds for a step: the elapsed time divided by the steps of all runs
}

// interleave measures a filled store and a new, small store of the same kind by turns.
func (m *growthMeasurement) interleave(ctx context.Context, many *grower) error {
	row := interleavedRow{store: m.kind.name, few: min(budgetFew, m.plan.sizes[len(m.plan.sizes)-1]), many: int(many.runs)}
	m.logf("%s: %s and %s resources in turn", m.kind.name, grouped(int64(row.few)), grouped(int64(row.many)))
	err := withGrower(ctx, m.kind, filepath.Join(m.dir, "few"), func(few *grower) error {
		return row.measure(ctx, few, many)
	})
	if err != nil {
		return err
	}
	m.found.interleaved = append(m.found.interleaved, row)
	return nil
}

// measure sets the costs in row, and shuts the engine of few down.
func (row *interleavedRow) measure(ctx context.Context, few, many *grower) error {
	if _, err := few.fill(ctx, "five", row.few, fillFlight); err != nil {
		return err
	}
	var costs [2][]float64
	block := row.few / 10
	for range growthBlocks {
		for i, grow := range []*grower{few, many} {
			took, err := grow.fill(ctx, "five", block, growthFlight)
			if err != nil {
				return err
			}
			costs[i] = append(costs[i], took.Seconds()/float64(block*steps))
		}
	}
	row.fewStep, row.manyStep = spreadOf(costs[0]), spreadOf(costs[1])
	return few.shutdown(ctx)
}
