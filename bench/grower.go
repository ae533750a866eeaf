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

// startGrower makes a grower and starts its engine.
func startGrower(ctx context.Context, st store.Store) (*grower, error) {
	g, err := newGrower(ctx, st)
	if err != nil {
		return nil, err
	}
	return g, g.engine.Start(ctx)
}

// withGrower opens a store in dir, starts a grower on it, calls do, and closes the store. A do that succeeds has shut the
// engine down.
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

// waitUntilIdle waits until no more than so many runs are unfinished, and none of them is at work.
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
