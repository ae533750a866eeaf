// Quickstart moves one resource along a pipeline of two drivers, in memory.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Build is a resource. Its spec is the desired state.
type Build struct {
	conveyor.Meta
	Spec struct {
		Repository string `json:"repository"`
	} `json:"spec"`
}

// Cloner and Tester are drivers. Each of them carries out one step.
type Cloner struct{}
type Tester struct{}

func (Cloner) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	var build Build
	if err := req.Resource.Decode(&build); err != nil {
		return conveyor.Result{}, conveyor.Permanent(err)
	}
	fmt.Println("clone", build.Spec.Repository)
	return conveyor.DoneWith("/src/app"), nil // later steps can read this output
}

func (Tester) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	var folder string
	if err := req.Output("1", &folder); err != nil {
		return conveyor.Result{}, err
	}
	fmt.Println("test", folder)
	return conveyor.Done(), nil
}

func main() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	check(engine.Register("cloner", Cloner{}))
	check(engine.Register("tester", Tester{}))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "ci", Resource: "build",
		Steps: []conveyor.Step{{Driver: "cloner"}, {Driver: "tester"}},
	}))
	check(engine.Start(ctx))

	build := &Build{Meta: conveyor.Meta{Name: "app", Type: "build", Pipeline: "ci"}}
	build.Spec.Repository = "https://example.com/app.git"
	run, err := engine.Apply(ctx, build)
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State)
	check(engine.Shutdown(ctx))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
