// Approval holds a deployment back until somebody approves it. The run fails if nobody approves it in time.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Deployment is a resource. Its spec names the version to deploy, and how long to wait for an approval.
type Deployment struct {
	conveyor.Meta
	Spec struct {
		Version string            `json:"version"`
		Timeout conveyor.Duration `json:"timeout"`
	} `json:"spec"`
}

// gate is called twice: the first call asks for the approval, and the second call reads the answer. Between the two
// calls no goroutine is held. On a durable store, the wait survives a restart of the program.
func gate(ctx context.Context, req *conveyor.Request, d *Deployment) (conveyor.Result, error) {
	var approver string
	answered, err := req.Signal(&approver)
	switch {
	case errors.Is(err, conveyor.ErrTimeout):
		return conveyor.Result{}, conveyor.Permanent(fmt.Errorf("nobody approved within %s", d.Spec.Timeout))
	case err != nil:
		return conveyor.Result{}, err
	case !answered:
		fmt.Printf("%s %s: please approve\n", d.Name, d.Spec.Version)
		return conveyor.Await("approval", time.Duration(d.Spec.Timeout)), nil
	}
	fmt.Printf("%s %s: approved by %s\n", d.Name, d.Spec.Version, approver)
	return conveyor.Done(), nil
}

func deploy(ctx context.Context, req *conveyor.Request, d *Deployment) (conveyor.Result, error) {
	fmt.Printf("%s %s: live\n", d.Name, d.Spec.Version)
	return conveyor.Done(), nil
}

func main() {
	ctx := context.Background()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	check(engine.Register("gate", conveyor.For(gate)))
	check(engine.Register("deployer", conveyor.For(deploy)))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "release", Resource: "deployment",
		Steps: []conveyor.Step{{ID: "approve", Driver: "gate"}, {ID: "deploy", Driver: "deployer"}},
	}))
	check(engine.Start(ctx))

	approved := begin(ctx, engine, "shop", "v7", time.Hour)
	check(engine.Signal(ctx, approved.ID, "approval", "ada")) // a signal that comes before the wait is kept
	report(ctx, engine, approved)

	forgotten := begin(ctx, engine, "blog", "v3", 20*time.Millisecond)
	report(ctx, engine, forgotten)
	check(engine.Shutdown(ctx))
}

func begin(ctx context.Context, engine *conveyor.Engine, name, version string, timeout time.Duration) *conveyor.Run {
	d := &Deployment{Meta: conveyor.Meta{Name: name, Type: "deployment", Pipeline: "release"}}
	d.Spec.Version, d.Spec.Timeout = version, conveyor.Duration(timeout)
	run, err := engine.Apply(ctx, d)
	check(err)
	return run
}

func report(ctx context.Context, engine *conveyor.Engine, run *conveyor.Run) {
	run, err := engine.Wait(ctx, run.ID)
	check(err)
	fmt.Printf("%s: %s\n", run.Resource.Name, run.State)
	for _, step := range run.Steps {
		fmt.Println(strings.TrimSpace(fmt.Sprintln("-", step.ID, step.State, step.Reason)))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
