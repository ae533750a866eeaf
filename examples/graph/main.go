// Graph runs three checks concurrently, tolerates the failure of one of them, and cleans up at the end in any case.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Release is a resource. Its spec is the desired state.
type Release struct {
	conveyor.Meta
	Spec struct {
		Version string `json:"version"`
	} `json:"spec"`
}

// release is a graph, because some of its steps name the steps that they come after. The three checks start concurrently
// when the fetch has succeeded. The package has no After. It is made when all the steps listed before it have ended. The
// run goes on if the lint fails.
var release = conveyor.PipelineSpec{
	Name: "release", Resource: "release",
	Steps: []conveyor.Step{
		{ID: "fetch", Driver: "fetcher"},
		{ID: "lint", Driver: "linter", After: []string{"fetch"}, ContinueOnError: true},
		{ID: "test", Driver: "tester", After: []string{"fetch"}},
		{ID: "scan", Driver: "scanner", After: []string{"fetch"}},
		{ID: "package", Driver: "packager"},
	},
	Finally: []conveyor.Step{{ID: "clean", Driver: "cleaner"}},
}

func main() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	for _, name := range []string{"fetcher", "tester", "scanner", "packager"} {
		check(engine.Register(name, conveyor.DriverFunc(succeed)))
	}
	check(engine.Register("linter", conveyor.DriverFunc(complain)))
	check(engine.Register("cleaner", conveyor.DriverFunc(clean)))
	check(engine.SavePipeline(ctx, release))
	check(engine.Start(ctx))

	r := &Release{Meta: conveyor.Meta{Name: "v7", Type: "release", Pipeline: "release"}}
	r.Spec.Version = "v7"
	run, err := engine.Apply(ctx, r)
	check(err)
	run, err = engine.Wait(ctx, run.ID)
	check(err)
	for _, step := range run.Steps {
		fmt.Println(strings.TrimSpace(fmt.Sprintln("-", step.ID, step.State, step.Reason)))
	}
	fmt.Println("the run", run.State)
	fmt.Println()
	check(run.Mermaid(os.Stdout)) // release.Mermaid draws the pipeline without states
	check(engine.Shutdown(ctx))
}

func succeed(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return conveyor.Done(), nil
}

func complain(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return conveyor.Result{}, conveyor.Permanent(errors.New("two lines are too long"))
}

// clean is called when all other steps have ended. The request says how they ended.
func clean(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	fmt.Println("clean up after a run that", req.Outcome)
	return conveyor.Done(), nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
