// Retry lets a run fail, removes the cause, and continues with the step that failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync/atomic"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Image is a resource. Its spec is the desired state.
type Image struct {
	conveyor.Meta
	Spec struct {
		Source string `json:"source"`
	} `json:"spec"`
}

// Registry is a driver that pushes images. It refuses them while it is full.
type Registry struct{ full atomic.Bool }

func (r *Registry) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	var digest string
	if err := req.Output("build", &digest); err != nil { // a retry of this run can read this output too
		return conveyor.Result{}, err
	}
	if r.full.Load() {
		return conveyor.Result{}, conveyor.Permanent(errors.New("the registry is full"))
	}
	fmt.Println("push", digest)
	return conveyor.Done(), nil
}

func build(ctx context.Context, req *conveyor.Request, image *Image) (conveyor.Result, error) {
	fmt.Println("build", image.Spec.Source, "(this takes an hour)")
	return conveyor.DoneWith("sha256:c0ffee"), nil
}

func announce(ctx context.Context, req *conveyor.Request, image *Image) (conveyor.Result, error) {
	fmt.Println("announce", image.Name)
	return conveyor.Done(), nil
}

func main() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	registry := new(Registry)
	registry.full.Store(true)
	check(engine.Register("builder", conveyor.For(build)))
	check(engine.Register("registry", registry))
	check(engine.Register("announcer", conveyor.For(announce)))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "publish", Resource: "image",
		Steps: []conveyor.Step{
			{ID: "build", Driver: "builder"}, {ID: "push", Driver: "registry"}, {ID: "announce", Driver: "announcer"},
		},
	}))
	check(engine.Start(ctx))

	image := &Image{Meta: conveyor.Meta{Name: "app", Type: "image", Pipeline: "publish"}}
	image.Spec.Source = "./app"
	first, err := engine.Apply(ctx, image)
	check(err)
	first, err = engine.Wait(ctx, first.ID)
	check(err)
	report("first run", first)

	fmt.Println("make room in the registry")
	registry.full.Store(false)
	second, err := engine.Retry(ctx, first.ID, conveyor.RetryFrom{}) // the zero value: repeat the steps that were not done
	check(err)
	second, err = engine.Wait(ctx, second.ID)
	check(err)
	report("second run", second)
	fmt.Println("it repeats the first one:", second.Of == first.ID)
	check(engine.Shutdown(ctx))
}

func report(title string, run *conveyor.Run) {
	fmt.Println(title, run.State)
	for _, step := range run.Steps {
		fmt.Println(strings.TrimSpace(fmt.Sprintln("-", step.ID, step.State, step.Reason)))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
