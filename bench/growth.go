package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
)

// growthPlan says how far things grow.
type growthPlan struct {
	sizes      []int // resources, each with a finished run of five steps; ascending
	waiting    int   // runs parked with Await
	unfinished int   // runs for Start to take up, among the largest of sizes
	pipelines  []int // numbers of steps
	stepsBlock int   // steps in each measurement of a pipeline
}

func (o options) growthPlan() growthPlan {
	if o.quick {
		return growthPlan{
			sizes: []int{2_000, 20_000}, waiting: 5_000, unfinished: 1_000, pipelines: []int{5, 50, 250}, stepsBlock: 2_000,
		}
	}
	p := growthPlan{
		sizes: []int{1_000, 10_000, 100_000, 1_000_000}, waiting: 100_000, unfinished: 100_000,
		pipelines: []int{5, 50, 250}, stepsBlock: 20_000,
	}
	if !o.has(partGrowth) { // the budgets need no more
		p.sizes, p.pipelines = []int{1_000_000}, nil
	}
	return p
}

// growth is what was measured as things grow.
type growth struct {
	sizes       []sizeRow
	interleaved []interleavedRow
	waiting     []waitingRow
	starts      []startRow
	pipelines   []pipelineRow
}

// growthBlocks is how many times each of the costs is measured.
const growthBlocks = 5

// growthFlight is how many runs are in flight while a cost is measured, and fillFlight while things are made to grow.
const (
	growthFlight = 100
	fillFlight   = 1000
)

// growth measures both stores.
func (b *bench) growth(ctx context.Context, plan growthPlan) (*growth, error) {
	g := &growth{}
	for _, kind := range storeKinds {
		for _, measure := range []func(*growthMeasurement, context.Context) error{
			(*growthMeasurement).pipelines, (*growthMeasurement).waitingRuns, (*growthMeasurement).sizes,
		} {
			err := b.inFolder(func(dir string) error {
				return measure(&growthMeasurement{bench: b, plan: plan, kind: kind, dir: dir, found: g}, ctx)
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", kind.name, err)
			}
			runtime.GC()
		}
	}
	return g, nil
}

// growthMeasurement is the measurement of one store.
type growthMeasurement struct {
	*bench
	plan  growthPlan
	kind  storeKind
	dir   string // an empty folder of its own, for the store
	found *growth
}

func (b *bench) inFolder(do func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(b.dir, "growth-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return do(dir)
}

// heapInUse is what the live objects take, after what is not live has been collected.
func heapInUse() float64 {
	runtime.GC()
	runtime.GC() // what finalizers let go of in the first
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return float64(mem.HeapAlloc)
}
