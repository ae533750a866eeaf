package rig

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"

	"github.com/conveyor-go/conveyor"
)

// PipelineOf returns a pipeline "p" for resources of type "r" whose steps use these drivers.
func PipelineOf(drivers ...string) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{Name: "p", Resource: "r"}
	for _, d := range drivers {
		p.Steps = append(p.Steps, conveyor.Step{Driver: d})
	}
	return p
}

// GraphOf returns a pipeline whose steps are written as "id" or "id<before,before", all for driver "d". A step "id<" starts
// at once.
func GraphOf(steps ...string) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{Name: "p", Resource: "r"}
	for _, text := range steps {
		id, after, written := strings.Cut(text, "<")
		step := conveyor.Step{ID: id, Driver: "d"}
		switch {
		case after != "":
			step.After = strings.Split(after, ",")
		case written:
			step.After = conveyor.AtOnce()
		}
		p.Steps = append(p.Steps, step)
	}
	return p
}

// Named gives a pipeline another name.
func Named(name string, p conveyor.PipelineSpec) conveyor.PipelineSpec {
	p.Name = name
	return p
}

// AtMost limits the runs of a pipeline that are under way at once.
func AtMost(p conveyor.PipelineSpec, runs int) conveyor.PipelineSpec {
	p.MaxRuns = runs
	return p
}

// Queueing has a pipeline reconcile every change of a resource, in order.
func Queueing(p conveyor.PipelineSpec) conveyor.PipelineSpec {
	p.OnChange = conveyor.Queue
	return p
}

// FanOut is a pipeline "p" with a step for each element of the resource's spec, or with the steps that Func returns.
type FanOut struct {
	conveyor.PipelineSpec
	Func  func(ctx context.Context, res *conveyor.Object) ([]conveyor.Step, error)
	Calls *atomic.Int64
}

// NewFanOut returns a pipeline with a step for each element of the resource's spec.
func NewFanOut() FanOut {
	return FanOut{PipelineSpec: conveyor.PipelineSpec{Name: "p", Resource: "r"}, Calls: new(atomic.Int64)}
}

// Plan implements [conveyor.Planner].
func (f FanOut) Plan(ctx context.Context, res *conveyor.Object) (steps []conveyor.Step, err error) {
	f.Calls.Add(1)
	if f.Func != nil {
		return f.Func(ctx, res)
	}
	var elements []string
	if err := json.Unmarshal(res.Spec, &elements); err != nil {
		return nil, conveyor.Permanent(err)
	}
	for _, e := range elements {
		steps = append(steps, conveyor.Step{Driver: "d", Name: e, With: JSON(e)})
	}
	return steps, nil
}

// Object returns a resource of type "r" along pipeline "p".
func Object(name string, spec any) *conveyor.Object {
	o := &conveyor.Object{Meta: conveyor.Meta{Type: "r", Name: name, Pipeline: "p"}}
	if spec != nil {
		o.Spec = JSON(spec)
	}
	return o
}

// Along returns a resource of type "r" along a pipeline.
func Along(pipeline, name string) *conveyor.Object {
	o := Object(name, nil)
	o.Pipeline = pipeline
	return o
}

// Loose returns a resource of a type without a pipeline.
func Loose(kind, name string, spec any) *conveyor.Object {
	o := Object(name, spec)
	o.Type, o.Pipeline = kind, ""
	return o
}

// JSON returns the JSON of a value that has one.
func JSON(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// StatesOf returns the states of the steps of a run.
func StatesOf(run *conveyor.Run) (states []string) {
	for _, s := range run.Steps {
		states = append(states, s.State.String())
	}
	return states
}
