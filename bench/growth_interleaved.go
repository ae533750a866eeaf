package main

import (
	"context"
	"errors"
	"path/filepath"
)

// interleavedRow is what a step costs among few resources and among many, measured in turn, so that what the machine does
// besides hits both alike.
type interleavedRow struct {
	store             string
	few, many         int    // resources before the first turn
	fewStep, manyStep spread // seconds a step, over all runs in flight
}

// interleave measures a store that has grown against another of the same kind that has not.
func (b *bench) interleave(
	ctx context.Context, plan growthPlan, kind storeKind, dir string, many *grower, g *growth,
) (err error) {
	row := interleavedRow{store: kind.name, few: min(budgetFew, plan.sizes[len(plan.sizes)-1]), many: int(many.runs)}
	b.logf("%s: %s and %s resources in turn", kind.name, grouped(int64(row.few)), grouped(int64(row.many)))
	st, err := kind.open(ctx, filepath.Join(dir, "few"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	few, err := newGrower(ctx, st)
	if err != nil {
		return err
	}
	if err := few.engine.Start(ctx); err != nil {
		return err
	}
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
	g.interleaved = append(g.interleaved, row)
	return few.shutdown(ctx)
}
