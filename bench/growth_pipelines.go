package main

import (
	"context"
	"fmt"
	"slices"
)

// pipelineRow holds the cost of a step in a pipeline of a given length.
type pipelineRow struct {
	store  string
	steps  int
	flight int
	step   spread // seconds for a step: the elapsed time divided by the steps of all runs
}

// pipelines measures pipelines of different lengths by turns. Each measurement has the same number of steps.
func (m *growthMeasurement) pipelines(ctx context.Context) error {
	if len(m.plan.pipelines) == 0 {
		return nil
	}
	m.logf("%s: pipelines of different lengths", m.kind.name)
	return withGrower(ctx, m.kind, m.dir, func(grow *grower) error { return m.measureLengths(ctx, grow) })
}

func (m *growthMeasurement) measureLengths(ctx context.Context, grow *grower) error {
	for _, n := range m.plan.pipelines {
		if err := grow.engine.SavePipeline(ctx, pipeline(lengthName(n), n)); err != nil {
			return err
		}
	}
	flight := min(growthFlight, m.plan.stepsBlock/slices.Max(m.plan.pipelines)) // the same for all lengths
	costs := make([][]float64, len(m.plan.pipelines))
	for block := range growthBlocks + 1 {
		for i, n := range m.plan.pipelines {
			runs := max(m.plan.stepsBlock/n, 1)
			took, err := grow.fill(ctx, lengthName(n), runs, flight)
			if err != nil {
				return err
			}
			if block > 0 { // the first block is the warm-up
				costs[i] = append(costs[i], took.Seconds()/float64(runs*n))
			}
		}
	}
	for i, n := range m.plan.pipelines {
		m.found.pipelines = append(m.found.pipelines,
			pipelineRow{store: m.kind.name, steps: n, flight: flight, step: spreadOf(costs[i])})
	}
	return grow.shutdown(ctx)
}

func lengthName(n int) string { return fmt.Sprintf("steps-%d", n) }
