// Deletion creates an environment layer by layer, removes the layers in reverse order, and uses the name again.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Environment is a resource. Its spec is the desired state.
type Environment struct {
	conveyor.Meta
	Spec struct {
		Region string `json:"region"`
	} `json:"spec"`
}

// Layer is a driver for one part of an environment. Each part depends on the parts before it.
type Layer struct{ name string }

// Reconcile creates the layer.
func (l Layer) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	var env Environment
	if err := req.Resource.Decode(&env); err != nil {
		return conveyor.Result{}, conveyor.Permanent(err)
	}
	fmt.Printf("  create the %s of %s in %s\n", l.name, env.Name, env.Spec.Region)
	return conveyor.Done(), nil
}

// Finalize removes the layer. With this method Layer is a conveyor.Finalizer: the engine calls it when the resource is
// deleted.
func (l Layer) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	fmt.Printf("  remove the %s of %s\n", l.name, req.Resource.Name)
	return conveyor.Done(), nil
}

func main() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	pipeline := conveyor.PipelineSpec{Name: "layers", Resource: "environment"}
	for _, name := range []string{"network", "database", "app"} {
		check(engine.Register(name, Layer{name}))
		pipeline.Steps = append(pipeline.Steps, conveyor.Step{ID: name, Driver: name})
	}
	check(engine.SavePipeline(ctx, pipeline))
	check(engine.Start(ctx))

	first := apply(ctx, engine, "north")
	fmt.Println("delete")
	run, err := engine.Delete(ctx, first.Key())
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	check(run.Err())
	_, err = engine.Get(ctx, first.Key())
	fmt.Println("gone:", errors.Is(err, conveyor.ErrNotFound))

	second := apply(ctx, engine, "south")
	fmt.Println("another resource of the same name:", first.ID != second.ID)
	check(engine.Shutdown(ctx))
}

func apply(ctx context.Context, engine *conveyor.Engine, region string) *Environment {
	env := &Environment{Meta: conveyor.Meta{Name: "staging", Type: "environment", Pipeline: "layers"}}
	env.Spec.Region = region
	run, err := engine.Apply(ctx, env)
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	check(run.Err())
	fmt.Println("applied", env.Name, "generation", env.Generation)
	return env
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
