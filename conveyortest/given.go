package conveyortest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor"
)

// Given is the input of the call that [Attempt] makes. The zero value works. All fields go together.
type Given struct {
	// Resource is the resource of the run. The driver gets a copy, and Resource itself is not changed. A missing name,
	// type or pipeline is filled in.
	Resource conveyor.Resource
	// Outputs are the outputs that earlier steps returned with [conveyor.DoneWith], by the ids of the steps. nil means
	// that there are no earlier outputs.
	Outputs map[string]any
	// Settings are the settings of the step. They are encoded as JSON and become the With of the step. nil means that the
	// step has none.
	Settings any
	// Timeout limits the attempt. 0 means no limit: a driver that does not return holds the test up.
	Timeout time.Duration
	// Signal is how the step's wait for a signal has ended: it is what [conveyor.Request.Signal] returns. nil means that
	// the step has not awaited a signal.
	Signal *Signal
	// Checkpoint is what an earlier call of the step has saved: it is what [conveyor.Request.Restore] finds. It is encoded
	// as JSON. nil means that nothing was saved. Any other value was saved, also 0 and an empty text.
	Checkpoint any
	// Resumed means that the call repeats one that a crash has cut short (see [conveyor.Request].Resumed). false means
	// that no call was cut short.
	Resumed bool
	// Outcome is how the Steps of the pipeline have ended: succeeded, failed, canceled or superseded. The driver is then
	// called for a step of Finally, as in [conveyor.Request].Outcome. The zero value means that the driver is called for
	// one of the Steps.
	Outcome conveyor.State
	// OutcomeReason is why the Steps have ended as Outcome says: the error of the step that failed, the reason of
	// [conveyor.Engine.Cancel], or the reason of the [conveyor.Halt] with which the Steps succeeded. The
	// OutcomeReason of the request is what the engine makes of it: that of a failure names the step too. Empty means that
	// there was no such reason, and for a failure that the text of the error does not matter. It must be empty if a newer
	// generation has superseded the Steps, because the engine itself gives the reason then.
	OutcomeReason string
}

// Signal is how the wait of a step for a signal has ended (see [Given]). The zero value is a signal that has come without
// a payload.
type Signal struct {
	// Name is the name of the signal. It is for whoever reads the test: a request does not tell the name. Empty means
	// "signal".
	Name string
	// Payload is the payload, as it was passed to [conveyor.Engine.Signal]: it is encoded as JSON, and nil is null.
	Payload any
	// TimedOut means that the wait has timed out, so that there is no Payload. false means that the signal has come.
	TimedOut bool
}

// The steps of a given run, besides those that have given outputs, and their drivers.
const (
	underTest    = "under-test"    // the step under test, and its driver
	outputGiver  = "given"         // the driver of the steps that have outputs
	lastStep     = "last"          // the last one of Steps, if the step under test is one of Finally
	outcomeGiver = "given-outcome" // the driver of lastStep
)

// outcomes are the states in which the Steps of a run can end.
var outcomes = []conveyor.State{conveyor.StateSucceeded, conveyor.StateFailed, conveyor.StateCanceled, conveyor.StateSuperseded}

// check returns an error if no run can be as given.
func (g *Given) check() error {
	switch {
	case g.Outcome != conveyor.StateUnset && !slices.Contains(outcomes, g.Outcome):
		return fmt.Errorf("Outcome: Steps do not end as %s, but as succeeded, failed, canceled or superseded", g.Outcome)
	case g.Outcome == conveyor.StateUnset && g.OutcomeReason != "":
		return errors.New("OutcomeReason: has no meaning without an Outcome")
	case g.Outcome == conveyor.StateSuperseded && g.OutcomeReason != "":
		return errors.New("OutcomeReason: of superseded Steps is made by the engine, and must be empty")
	case g.Signal != nil && g.Signal.TimedOut && g.Signal.Payload != nil:
		return errors.New("Signal: a wait that has timed out has no Payload")
	}
	return nil
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
	once := &conveyor.RetryPolicy{MaxAttempts: 1}
	for _, id := range slices.Sorted(maps.Keys(g.Outputs)) {
		p.Steps = append(p.Steps, conveyor.Step{ID: id, Driver: outputGiver, Retry: once})
	}
	step := conveyor.Step{ID: underTest, Driver: underTest, Timeout: conveyor.Duration(g.Timeout)}
	if g.Settings != nil {
		var err error
		if step.With, err = json.Marshal(g.Settings); err != nil {
			return p, err
		}
	}
	if g.Outcome == conveyor.StateUnset {
		p.Steps = append(p.Steps, step)
		return p, nil
	}
	p.Steps = append(p.Steps, conveyor.Step{ID: lastStep, Driver: outcomeGiver, Retry: once})
	p.Finally = []conveyor.Step{step}
	if g.Outcome == conveyor.StateSuperseded {
		p.OnChange = conveyor.Supersede
	}
	return p, nil
}

// giveOutput is the driver of the steps that have outputs.
func (g *Given) giveOutput(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return conveyor.DoneWith(g.Outputs[req.Step.ID]), nil
}

// ending is the driver of the last one of Steps. It makes the Steps end as given.
type ending struct {
	given  *Given
	engine *conveyor.Engine
	newer  *conveyor.Object // the resource in another generation
	made   *atomic.Bool     // set when the driver was called, so that the steps before it have succeeded
}

func (e ending) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	e.made.Store(true)
	reason, base := e.given.OutcomeReason, context.WithoutCancel(ctx)
	switch e.given.Outcome {
	case conveyor.StateFailed:
		return conveyor.Result{}, errors.New(cmp.Or(reason, "failed as given"))
	case conveyor.StateCanceled:
		if err := e.engine.Cancel(base, req.Run, reason); err != nil {
			return conveyor.Result{}, err
		}
		<-ctx.Done()
		return conveyor.Result{}, context.Cause(ctx)
	case conveyor.StateSuperseded:
		next, err := e.engine.Apply(base, e.newer)
		if err != nil {
			return conveyor.Result{}, err
		}
		<-ctx.Done()
		// The newer generation has done its part, and its run must not call the driver under test.
		return conveyor.Result{}, errors.Join(context.Cause(ctx), e.engine.Cancel(base, next.ID, "one attempt is enough"))
	}
	if reason != "" {
		return conveyor.Halt(reason), nil
	}
	return conveyor.Done(), nil
}

// standIns returns the drivers that are called, one after the other, in the place of the driver under test, so that its
// call is as given. crash must make the engine crash.
func (g *Given) standIns(crash func()) (drivers []conveyor.Driver) {
	switch {
	case g.Signal != nil && g.Signal.TimedOut:
		drivers = append(drivers, g.standIn(conveyor.Await(g.Signal.name(), 1))) // the shortest wait there is
	case g.Signal != nil:
		drivers = append(drivers, g.standIn(conveyor.Await(g.Signal.name(), 0)))
	case g.Checkpoint != nil && !g.Resumed:
		drivers = append(drivers, g.standIn(conveyor.RequeueAfter(0))) // the call under test has the same number
	}
	if !g.Resumed {
		return drivers
	}
	saved := g.standIn(conveyor.Done())
	return append(drivers, conveyor.DriverFunc(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if _, err := saved.Reconcile(ctx, req); err != nil {
			return conveyor.Result{}, err
		}
		crash()
		<-ctx.Done()
		return conveyor.Result{}, context.Cause(ctx)
	}))
}

// standIn returns a driver that saves the given checkpoint and returns a result.
func (g *Given) standIn(result conveyor.Result) conveyor.Driver {
	return conveyor.DriverFunc(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		if g.Checkpoint == nil {
			return result, nil
		}
		// The time of the attempt under test is not that of the stand-ins.
		return result, conveyor.Permanent(req.Checkpoint(context.WithoutCancel(ctx), g.Checkpoint))
	})
}

// name returns the name of the signal.
func (s *Signal) name() string { return cmp.Or(s.Name, "signal") }
