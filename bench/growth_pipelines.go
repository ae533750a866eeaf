package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// pipelineRow is what a step costs in a pipeline of so many.
type pipelineRow struct {
	store  string
	steps  int
	flight int
	step   spread // seconds a step, over all runs in flight
}

// pipelines measures pipelines of different lengths in turn, the same number of steps of each.
func (b *bench) pipelines(ctx context.Context, plan growthPlan, kind storeKind, dir string, g *growth) (err error) {
	if len(plan.pipelines) == 0 {
		return nil
	}
	b.logf("%s: pipelines of different lengths", kind.name)
	st, err := kind.open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	grow, err := newGrower(ctx, st)
	if err != nil {
		return err
	}
	for _, n := range plan.pipelines {
		if err := grow.engine.SavePipeline(ctx, pipeline(lengthName(n), n)); err != nil {
			return err
		}
	}
	if err := grow.engine.Start(ctx); err != nil {
		return err
	}
	flight := min(growthFlight, plan.stepsBlock/slices.Max(plan.pipelines)) // the same for all
	costs := make([][]float64, len(plan.pipelines))
	for block := range growthBlocks + 1 {
		for i, n := range plan.pipelines {
			runs := max(plan.stepsBlock/n, 1)
			took, err := grow.fill(ctx, lengthName(n), runs, flight)
			if err != nil {
				return err
			}
			if block > 0 { // the first one is for warming up
				costs[i] = append(costs[i], took.Seconds()/float64(runs*n))
			}
		}
	}
	for i, n := range plan.pipelines {
		g.pipelines = append(g.pipelines, pipelineRow{store: kind.name, steps: n, flight: flight, step: spreadOf(costs[i])})
	}
	return grow.shutdown(ctx)
}

func lengthName(n int) string { return fmt.Sprintf("steps-%d", n) }
