package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	storefile "github.com/conveyor-go/conveyor/store/file"
	storememory "github.com/conveyor-go/conveyor/store/memory"
)

var conveyorMemory = contender{
	name:    "Conveyor, store/memory",
	class:   memory,
	module:  "github.com/conveyor-go/conveyor",
	records: "the resource, the run, and the start and outcome of each step",
	open: func(ctx context.Context, at site) (session, error) {
		return openEngine(ctx, storememory.New(), at.flight, at.do)
	},
}

var conveyorFile = contender{
	name:    "Conveyor, store/file",
	class:   durable,
	module:  "github.com/conveyor-go/conveyor",
	records: "the resource, the run, and the start and outcome of each step",
	syncs: "two fdatasyncs a transaction, before the call that commits returns and before the next step starts; " +
		"commits that come at the same time share one",
	open: openConveyorFile,
}

func openConveyorFile(ctx context.Context, at site) (session, error) {
	path := filepath.Join(at.dir, "conveyor.db")
	st, err := storefile.Open(ctx, path, storefile.Options{})
	if err != nil {
		return nil, err
	}
	s, err := openEngine(ctx, st, at.flight, at.do)
	if err != nil {
		return nil, err
	}
	return &conveyorFileSession{engineSession: s, path: path}, nil
}

type conveyorFileSession struct {
	*engineSession
	path string
}

func (s *conveyorFileSession) synced() (int64, error) { return boltSyncs(s.path) }

// engineSession is an engine that executes the five steps of each resource.
type engineSession struct {
	store  store.Store
	engine *conveyor.Engine
}

// openEngine starts an engine with a pipeline of five steps on st. The session owns st and closes it.
func openEngine(ctx context.Context, st store.Store, workers int, do step) (*engineSession, error) {
	e, err := conveyor.New(st, conveyor.Options{Workers: workers})
	if err != nil {
		return nil, err
	}
	if err := e.Register("step", stepDriver(do)); err != nil {
		return nil, err
	}
	if err := e.SavePipeline(ctx, pipeline("five", steps)); err != nil {
		return nil, err
	}
	return &engineSession{store: st, engine: e}, e.Start(ctx)
}

func stepDriver(do step) conveyor.Driver {
	return conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
		do(req.Resource.Name, int(req.Step.ID[0]-'0'))
		return conveyor.Done(), nil
	})
}

// pipeline returns a pipeline of n steps with the same driver. The ids of the steps are their numbers.
func pipeline(name string, n int) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{Name: name, Resource: "thing", Steps: make([]conveyor.Step, n)}
	for i := range p.Steps {
		p.Steps[i].Driver = "step"
	}
	return p
}

func (s *engineSession) run(ctx context.Context, id string) error {
	run, err := s.apply(ctx, id)
	if err != nil {
		return err
	}
	if run, err = s.engine.Wait(ctx, run.ID); err != nil {
		return err
	}
	if run.State != conveyor.StateSucceeded {
		return fmt.Errorf("run %s is %s: %w", run.ID, run.State, run.Err())
	}
	return nil
}

func (s *engineSession) apply(ctx context.Context, id string) (*conveyor.Run, error) {
	return s.engine.Apply(ctx, object(id, "five"))
}

func object(name, pipeline string) *conveyor.Object {
	raw, err := json.Marshal(newSpec(name))
	if err != nil {
		panic(err) // two strings always marshal
	}
	return &conveyor.Object{Meta: conveyor.Meta{Name: name, Type: "thing", Pipeline: pipeline}, Spec: raw}
}

func (s *engineSession) close(ctx context.Context) error {
	if err := s.engine.Shutdown(ctx); err != nil {
		return err
	}
	return s.store.Close()
}
