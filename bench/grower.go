package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

// grower is an engine on a store that is made to grow.
type grower struct {
	engine *conveyor.Engine
	runs   int64 // number of resources applied so far; their names have the numbers below it
}

// newGrower makes an engine with two drivers and a pipeline for each of them. One driver does nothing, the other driver
// waits for a signal.
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

// startGrower makes a grower and starts its engine.
func startGrower(ctx context.Context, st store.Store) (*grower, error) {
	g, err := newGrower(ctx, st)
	if err != nil {
		return nil, err
	}
	return g, g.engine.Start(ctx)
}

// withGrower opens a store in dir, starts a grower on the store, calls do, and closes the store. do must shut the engine
// down before it returns nil.
func withGrower(ctx context.Context, kind storeKind, dir string, do func(*grower) error) (err error) {
	st, err := kind.open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	g, err := startGrower(ctx, st)
	if err != nil {
		return err
	}
	return do(g)
}

func awaitSignal(context.Context, *conveyor.Request) (conveyor.Result, error) {
	return conveyor.Await("go", 0), nil
}

// growerName returns the name of the nth resource. Names sort by their numbers.
func growerName(n int64) string { return fmt.Sprintf("thing-%09d", n) }

// fill applies n more resources, at most flight of them at once. It waits for their runs, except in the pipeline "wait",
// whose runs wait for a signal. It returns the time that all of this took.
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

// waitUntilIdle waits until at most unfinished runs have not ended, and no run is ready or executing.
func (g *grower) waitUntilIdle(ctx context.Context, unfinished int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, runTimeout, errStuck)
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

func (g *grower) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return g.engine.Shutdown(ctx)
}
