package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
)

// growthPlan says up to which sizes the growth is measured.
type growthPlan struct {
	sizes      []int // numbers of resources, each with a finished run of five steps; ascending
	waiting    int   // number of runs that wait with Await
	unfinished int   // number of unfinished runs that Start loads, on the store with the largest of sizes
	pipelines  []int // numbers of steps of the pipelines
	stepsBlock int   // number of steps in each measurement of a pipeline
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
	if !o.has(partGrowth) { // the budgets need nothing else
		p.sizes, p.pipelines = []int{1_000_000}, nil
	}
	return p
}

// growth holds the results of the measurements of growth.
type growth struct {
	sizes       []sizeRow
	interleaved []interleavedRow
	waiting     []waitingRow
	starts      []startRow
	pipelines   []pipelineRow
}

// growthBlocks is how many times each cost is measured.
const growthBlocks = 5

// growthFlight is the number of runs in flight while a cost is measured. fillFlight is the number of runs in flight while
// the store is filled.
const (
	growthFlight = 100
	fillFlight   = 1000
)

// growth measures both kinds of store.
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

// growthMeasurement measures one kind of store.
type growthMeasurement struct {
	*bench
	plan  growthPlan
	kind  storeKind
	dir   string // an empty folder for the store
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

// heapInUse returns the bytes of the live objects, after a garbage collection.
func heapInUse() float64 {
	runtime.GC()
	runtime.GC() // the objects that the finalizers of the first collection released
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return float64(mem.HeapAlloc)
}
