package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// app is one start of the program.
type app struct {
	data     string
	pipeline conveyor.PipelineSpec
	build    *DockerBuild
	resume   string    // resumeYes, resumeNo, or empty
	in       io.Reader // where questions are answered; nil if nobody can answer
	log      string    // the id of a step; if set, run prints its log and builds nothing
	registry string    // host:port of the built-in registry; set while run is executing
	// wrap, if set, returns the driver that is registered in place of its argument. Tests use it.
	wrap func(conveyor.Driver) conveyor.Driver
}

const (
	storeFile   = "conveyor.db"
	keptRuns    = 20 // runs, and generations, of each resource that are kept with their logs
	stepTimeout = 30 * time.Minute
	stopTime    = 4 * time.Second // how long a running step has to end when the program is stopped
)

// run builds, or continues the run that an earlier start left unfinished.
func (a *app) run(ctx context.Context, out io.Writer) (err error) {
	if a.log != "" {
		return a.printLog(ctx, out)
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	registry, err := startRegistry()
	if err != nil {
		return err
	}
	defer registry.Close()
	a.registry = registry.Addr()
	e, err := a.engine(ctx, st)
	if err != nil {
		return err
	}
	return a.drive(ctx, e, out)
}

// open opens the store in the data folder.
func (a *app) open(ctx context.Context) (*file.Store, error) {
	st, err := file.Open(ctx, filepath.Join(a.data, storeFile), file.Options{})
	if errors.Is(err, store.ErrLocked) {
		return nil, fmt.Errorf("another dockerpipeline is at work in %s (killing go run leaves its program at work); "+
			"wait for it, end it, or choose another -data: %w", a.data, err)
	}
	return st, err
}

// engine returns an engine with the drivers and the pipeline. The engine is not started.
func (a *app) engine(ctx context.Context, st store.Store) (*conveyor.Engine, error) {
	e, err := conveyor.New(st, conveyor.Options{
		StepTimeout: stepTimeout,
		Retention:   conveyor.Retention{Runs: keptRuns, Revisions: keptRuns},
	})
	if err != nil {
		return nil, err
	}
	work := a.work()
	drivers := map[string]conveyor.Driver{
		"git-cloner":      conveyor.For((&gitCloner{work: work, sample: filepath.Join(a.data, "sample")}).Clone),
		"test-runner":     &testRunner{work: work},
		"builder":         conveyor.For((&builder{work: work}).Build),
		"image-generator": conveyor.For((&imageGenerator{work: work}).Generate),
		"image-pusher":    conveyor.For((&imagePusher{registry: a.registry}).Push),
	}
	for _, step := range a.pipeline.Steps {
		if drivers[step.Driver] == nil {
			return nil, usageError{fmt.Errorf("pipeline: step %s: there is no driver %q", step.ID, step.Driver)}
		}
	}
	for name, driver := range drivers {
		if a.wrap != nil {
			driver = a.wrap(driver)
		}
		if err := e.Register(name, driver); err != nil {
			return nil, err
		}
	}
	if err := e.SavePipeline(ctx, a.pipeline); err != nil {
		return nil, asUsage(err)
	}
	return e, nil
}

// asUsage returns a usageError if the engine rejected a document, and err itself if something else went wrong.
func asUsage(err error) error {
	if errors.Is(err, conveyor.ErrInvalid) || errors.Is(err, conveyor.ErrTooLarge) || errors.Is(err, conveyor.ErrNotFound) {
		return usageError{err}
	}
	return err
}

func (a *app) work() workspace { return workspace{root: filepath.Join(a.data, "work")} }

// drive starts the engine, applies the build, shows the run until the run ends, and stops the engine.
func (a *app) drive(ctx context.Context, e *conveyor.Engine, out io.Writer) error {
	resumed, canceled, err := a.settle(ctx, e, out)
	if err != nil {
		return err
	}
	earlier := a.ofBuild(resumed)
	if err := a.prune(ctx, e, out); err != nil {
		return err
	}
	f := newFollower(ctx, e, a.build.Key())
	defer f.stop()
	if err := e.Start(ctx); err != nil {
		return err
	}
	var run *conveyor.Run
	if err = await(ctx, e, canceled); err == nil {
		run, err = a.apply(ctx, e, earlier)
	}
	if err == nil {
		run, err = f.follow(ctx, run, a.announce(out, run, earlier))
	}
	if err == nil {
		err = await(ctx, e, resumed)
	}
	interrupted := err != nil && ctx.Err() != nil
	if interrupted {
		fmt.Fprintln(out, "stopping; the step under way has a moment to end")
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if interrupted {
		err = fmt.Errorf("stopped; started again with the same flags, it goes on where it was (state in %s)", a.data)
	} else if err == nil {
		err = a.report(run, out)
	}
	return errors.Join(err, e.Shutdown(end))
}

// prune removes the runs that are not kept any more, and the work folders of runs that have ended. The work folder of the last
// run stays until the next start. A folder that cannot be removed is named, and does not hinder this start.
func (a *app) prune(ctx context.Context, e *conveyor.Engine, out io.Writer) error {
	if _, err := e.Prune(ctx, conveyor.PruneOptions{}); err != nil {
		return err
	}
	left, err := a.work().prune(func(id string) (bool, error) {
		run, err := e.GetRun(ctx, id)
		if errors.Is(err, conveyor.ErrNotFound) {
			return false, nil
		}
		return err == nil && !run.State.Final(), err
	})
	if left != nil {
		fmt.Fprintln(out, "work of an earlier run stays on the disk:", printableLines(left.Error()))
	}
	return err
}

// apply returns the run that reconciles the build. If the build is unchanged and an earlier start has finished it, apply
// triggers a new run.
func (a *app) apply(ctx context.Context, e *conveyor.Engine, earlier unfinished) (*conveyor.Run, error) {
	run, err := e.Apply(ctx, a.build)
	if err != nil {
		return nil, asUsage(err)
	}
	// The unfinished run of an earlier start can have ended since the engine was started. That run must not be repeated.
	if run.State.Final() && !earlier.is(run) {
		return e.Trigger(ctx, a.build.Key())
	}
	return run, nil
}
