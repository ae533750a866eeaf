package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	storefile "github.com/conveyor-go/conveyor/store/file"
	storememory "github.com/conveyor-go/conveyor/store/memory"
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
	sizes     []sizeRow
	turns     []turnsRow
	waiting   []waitingRow
	starts    []startRow
	pipelines []pipelineRow
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
		for _, part := range []func(context.Context, growthPlan, storeKind, string, *growth) error{
			b.pipelines, b.waitingRuns, b.sizes,
		} {
			if err := b.inFolder(func(dir string) error { return part(ctx, plan, kind, dir, g) }); err != nil {
				return nil, fmt.Errorf("%s: %w", kind.name, err)
			}
			runtime.GC()
		}
	}
	return g, nil
}

func (b *bench) inFolder(do func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(b.dir, "growth-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return do(dir)
}

// storeKind is one of the stores that are measured.
type storeKind struct {
	name string
	open func(ctx context.Context, dir string) (store.Store, error)
	// reopen closes a store and opens it again, as the next process would. A store in memory stays as it is.
	reopen func(ctx context.Context, st store.Store, dir string) (store.Store, error)
}

var storeKinds = []storeKind{
	{
		name: "store/memory",
		open: func(context.Context, string) (store.Store, error) { return storememory.New(), nil },
		reopen: func(_ context.Context, st store.Store, _ string) (store.Store, error) {
			return st, nil
		},
	},
	{
		name: "store/file",
		open: openFile,
		reopen: func(ctx context.Context, st store.Store, dir string) (store.Store, error) {
			if err := st.Close(); err != nil {
				return nil, err
			}
			return openFile(ctx, dir)
		},
	},
}

func openFile(ctx context.Context, dir string) (store.Store, error) {
	return storefile.Open(ctx, filepath.Join(dir, "conveyor.db"), storefile.Options{})
}

// grower is an engine on a store that is made to grow.
type grower struct {
	engine *conveyor.Engine
	runs   int64 // resources applied so far, of the numbers below it
}

// newGrower makes an engine with a driver that does nothing, another that awaits a signal, and a pipeline for each.
func newGrower(ctx context.Context, st store.Store) (*grower, error) {
	e, err := conveyor.New(st, conveyor.Options{Workers: fillFlight})
	if err != nil {
		return nil, err
	}
	if err := e.Register("step", stepDriver(func(string, int) {})); err != nil {
		return nil, err
	}
	if err := e.Register("wait", conveyor.DriverFunc(awaitSignal)); err != nil {
		return nil, err
	}
	if err := e.SavePipeline(ctx, pipeline("five", steps)); err != nil {
		return nil, err
	}
	wait := conveyor.PipelineSpec{Name: "wait", Resource: "thing", Steps: []conveyor.Step{{Driver: "wait"}}}
	return &grower{engine: e}, e.SavePipeline(ctx, wait)
}

func awaitSignal(context.Context, *conveyor.Request) (conveyor.Result, error) {
	return conveyor.Await("go", 0), nil
}

// growerName is the name of the nth resource. Names sort by their numbers.
func growerName(n int64) string { return fmt.Sprintf("thing-%09d", n) }

// fill applies n more resources, so many at once, and waits for their runs unless their pipeline waits itself.
func (g *grower) fill(ctx context.Context, pipeline string, n, flight int) (time.Duration, error) {
	first := g.runs
	g.runs += int64(n)
	start := time.Now()
	err := concurrently(ctx, flight, n, func(ctx context.Context, i int) error {
		run, err := g.engine.Apply(ctx, object(growerName(first+int64(i)), pipeline))
		if err != nil || pipeline == "wait" {
			return err
		}
		if run, err = g.engine.Wait(ctx, run.ID); err == nil {
			err = run.Err()
		}
		return err
	})
	return time.Since(start), err
}

// settle waits until no more than so many runs are unfinished, and none of them is at work.
func (g *grower) settle(ctx context.Context, unfinished int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errStuck)
	defer cancel()
	for {
		stats, err := g.engine.Stats(ctx)
		if err != nil {
			return err
		}
		if stats.Unfinished <= unfinished && stats.Busy == 0 && stats.Ready == 0 {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// heapInUse is what the live objects take, after what is not live has been collected.
func heapInUse() float64 {
	runtime.GC()
	runtime.GC() // what finalizers let go of in the first
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return float64(mem.HeapAlloc)
}
