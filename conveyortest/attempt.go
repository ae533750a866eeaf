package conveyortest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Given is the input of the call that [Attempt] makes. The zero value works.
type Given struct {
	// Resource is the resource of the run. The driver gets a copy, and Resource itself is not changed. A missing name,
	// type or pipeline is filled in.
	Resource conveyor.Resource
	// Outputs are the outputs that earlier steps returned with [conveyor.DoneWith], by the ids of the steps.
	Outputs map[string]any
	// Settings are the settings of the step. They are encoded as JSON and become the With of the step.
	Settings any
	// Timeout limits the attempt. 0 means no limit.
	Timeout time.Duration
}

// Outcome is the outcome of one call of a driver.
type Outcome struct {
	// State is the state of the step after the call: succeeded, skipped, failed for good, retrying, or waiting.
	State  conveyor.State
	Reason string // the recorded reason of a skip, a halt or a failure
	// Result and Err are what the driver returned. If the driver panicked, Err is a [*conveyor.PanicError]. If the
	// engine refused the output, Err says why.
	Result conveyor.Result
	Err    error
	// Output is the output as later steps read it.
	Output json.RawMessage
}

// Permanent reports whether the step failed for good, so that there would be no retry.
func (o Outcome) Permanent() bool { return o.State == conveyor.StateFailed }

// Attempt calls a driver once and returns the outcome.
//
// The call is made by a separate engine, for the last step of a pipeline. The earlier steps of the pipeline have
// returned the given outputs. Therefore every method of the request works, and the engine handles the answer of the
// driver as in production. The engine has ended when Attempt returns. Attempt fails the test if it cannot make the
// call.
func Attempt(t testing.TB, d conveyor.Driver, given Given) Outcome {
	t.Helper()
	o, err := attempt(t.Context(), d, given)
	if err != nil {
		t.Fatalf("conveyortest: attempt: %v", err)
	}
	return o
}

// underTest names the step and the driver under test.
const underTest = "under-test"

func attempt(ctx context.Context, d conveyor.Driver, given Given) (o Outcome, err error) {
	if d == nil {
		return o, errors.New("the driver is nil")
	}
	resource, err := given.object()
	if err != nil {
		return o, err
	}
	pipeline, err := given.pipeline(resource)
	if err != nil {
		return o, err
	}
	// The policy has no end of attempts, so that a step that would be retried differs from one that has failed for
	// good. The second attempt never reaches the driver.
	records := memory.New()
	e, err := conveyor.New(records, conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: -1}})
	if err != nil {
		return o, err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err = errors.Join(err, e.Shutdown(end), records.Close())
	}()
	var calls Recorder
	if err := given.start(ctx, e, pipeline, calls.Record(d)); err != nil {
		return o, err
	}
	run, err := o.apply(ctx, e, resource)
	if err != nil {
		return o, err
	}
	made := calls.Calls()
	if len(made) == 0 {
		return o, fmt.Errorf("the driver was not called: %s", describe(run)) // the engine has refused a given output
	}
	o.setResult(run, made[0])
	return o, nil
}

// start registers the driver under test and the driver of the earlier steps, and starts the engine.
func (g *Given) start(ctx context.Context, e *conveyor.Engine, pipeline conveyor.PipelineSpec, d conveyor.Driver) error {
	return errors.Join(
		e.Register("given", conveyor.DriverFunc(func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			return conveyor.DoneWith(g.Outputs[req.Step.ID]), nil
		})),
		e.Register(underTest, &firstCall{driver: d}),
		e.SavePipeline(ctx, pipeline),
		e.Start(ctx),
	)
}

// apply applies the resource, and sets State and Reason once the driver has been called. It returns the run at that time.
func (o *Outcome) apply(ctx context.Context, e *conveyor.Engine, resource *conveyor.Object) (*conveyor.Run, error) {
	events := e.Watch(ctx, conveyor.WatchOptions{Resource: resource.Key()})
	applied, err := e.Apply(ctx, resource)
	if err != nil {
		return nil, err
	}
	if o.State, o.Reason, err = awaitStep(events); err != nil {
		return nil, err
	}
	return endRun(ctx, e, applied.ID)
}

// awaitStep returns the state and the reason that the first call has given the step under test. The state is 0 if the
// run has ended without such a call.
func awaitStep(events iter.Seq2[conveyor.Event, error]) (state conveyor.State, reason string, err error) {
	for event, err := range events {
		if err != nil {
			return 0, "", err
		}
		if event.Kind == conveyor.EventRun && event.State.Final() {
			break
		}
		if event.Step == underTest && event.State != conveyor.StateQueued && event.State != conveyor.StateRunning {
			return event.State, event.Reason, nil
		}
	}
	return 0, "", nil
}

// endRun cancels a run that has not ended, and returns the run as it was before.
func endRun(ctx context.Context, e *conveyor.Engine, id string) (*conveyor.Run, error) {
	run, err := e.GetRun(ctx, id)
	if err != nil {
		return nil, err
	}
	if !run.State.Final() {
		if err := e.Cancel(ctx, run.ID, "one attempt is enough"); err != nil && !errors.Is(err, conveyor.ErrConflict) {
			return nil, err
		}
	}
	return run, nil
}

// setResult sets Result, Err and Output to what the driver has returned and what the engine has recorded of it.
func (o *Outcome) setResult(run *conveyor.Run, call Call) {
	step := run.Step(underTest)
	o.Result, o.Err, o.Output = call.Result, call.Err, step.Output
	if o.Err != nil && !errors.Is(o.Err, errNotReturned) || len(step.Attempts) == 0 || step.Attempts[0].Error == "" {
		return
	}
	failed := step.Attempts[0]
	failure := (*conveyor.StepError)(nil)
	switch {
	case failed.Stack != "" || errors.Is(o.Err, errNotReturned):
		o.Err = &conveyor.PanicError{Value: strings.TrimPrefix(failed.Error, "driver panicked: "), Stack: []byte(failed.Stack)}
	case errors.As(run.Err(), &failure):
		o.Err = failure.Err
	default:
		o.Err = errors.New(failed.Error)
	}
}

// object returns a copy of the resource for the engine, with a name, a type and a pipeline.
func (g *Given) object() (*conveyor.Object, error) {
	o := new(conveyor.Object)
	if g.Resource != nil {
		doc, err := json.Marshal(g.Resource)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(doc, o); err != nil {
			return nil, err
		}
	}
	o.Name = cmp.Or(o.Name, "name")
	o.Type = cmp.Or(o.Type, "type")
	o.Pipeline = cmp.Or(o.Pipeline, "pipeline")
	o.Version = 0
	return o, nil
}

// pipeline returns a pipeline with a step for each output, followed by the step under test.
func (g *Given) pipeline(o *conveyor.Object) (conveyor.PipelineSpec, error) {
	p := conveyor.PipelineSpec{Name: o.Pipeline, Resource: o.Type}
	for _, id := range slices.Sorted(maps.Keys(g.Outputs)) {
		p.Steps = append(p.Steps, conveyor.Step{ID: id, Driver: "given", Retry: &conveyor.RetryPolicy{MaxAttempts: 1}})
	}
	step := conveyor.Step{ID: underTest, Driver: underTest, Timeout: conveyor.Duration(g.Timeout)}
	if g.Settings != nil {
		var err error
		if step.With, err = json.Marshal(g.Settings); err != nil {
			return p, err
		}
	}
	p.Steps = append(p.Steps, step)
	return p, nil
}

// firstCall passes only the first call on to its driver. Every later call waits until the run is canceled.
type firstCall struct {
	driver conveyor.Driver
	called atomic.Bool
}

func (o *firstCall) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	if o.called.CompareAndSwap(false, true) {
		return o.driver.Reconcile(ctx, req)
	}
	<-ctx.Done()
	return conveyor.Result{}, context.Cause(ctx)
}
