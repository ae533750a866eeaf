package conveyortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

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
// The call is made by a separate engine, in a run that is as given. Other drivers make it so: they return the given
// outputs in the steps before, and they stand in for the driver in the calls of its step that come before this one. The
// signal, the checkpoint, the interruption and the outcome of the Steps are real ones. Therefore every method of the
// request works, and the engine handles the answer of the driver as in production. The engine has ended when Attempt
// returns. Attempt fails the test if it cannot make the call.
func Attempt(t testing.TB, d conveyor.Driver, given Given) Outcome {
	t.Helper()
	o, err := attempt(t.Context(), d, given)
	if err != nil {
		t.Fatalf("conveyortest: attempt: %v", err)
	}
	return o
}

func attempt(ctx context.Context, d conveyor.Driver, given Given) (o Outcome, err error) {
	t, err := newTrial(d, &given)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, t.records.Close()) }()
	if given.Resumed {
		if err := t.interrupt(ctx); err != nil {
			return o, err
		}
	}
	return t.call(ctx)
}

// trial is the run of one Attempt.
type trial struct {
	given    *Given
	resource *conveyor.Object
	newer    *conveyor.Object // the resource in another generation
	pipeline conveyor.PipelineSpec
	records  *memory.Store
	run      string          // its id; empty until the resource is applied
	driver   conveyor.Driver // of the step under test
	before   int             // the calls of stand-ins that are left
	calls    Recorder        // of the driver under test
	crash    func()          // makes the present engine crash
	ended    atomic.Bool     // the Steps have ended as given
}

// newTrial returns a trial without an engine, or an error if there cannot be such a run.
func newTrial(d conveyor.Driver, given *Given) (t *trial, err error) {
	if d == nil {
		return nil, errors.New("the driver is nil")
	}
	if err := given.check(); err != nil {
		return nil, err
	}
	t = &trial{given: given, records: memory.New()}
	if t.resource, err = given.object(); err != nil {
		return nil, err
	}
	if t.pipeline, err = given.pipeline(t.resource); err != nil {
		return nil, err
	}
	t.newer = t.resource.Clone()
	if t.newer.Spec = []byte("0"); sameJSON(t.resource.Spec, t.newer.Spec) {
		t.newer.Spec = []byte("1")
	}
	var calls []conveyor.Driver
	for _, d := range append(given.standIns(func() { t.crash() }), t.calls.Record(d)) {
		calls = append(calls, t.guarded(d))
	}
	t.before = len(calls) - 1
	t.driver = InTurn(append(calls, conveyor.DriverFunc(untilTheEnd))...)
	return t, nil
}

// guarded returns a driver that calls d if the request is as given so far.
func (t *trial) guarded(d conveyor.Driver) conveyor.Driver {
	return conveyor.DriverFunc(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		switch {
		case req.Attempt > 1:
			return conveyor.Result{}, conveyor.Permanent(errors.New("the time was over before the call"))
		case req.Outcome != t.given.Outcome, t.given.Outcome != conveyor.StateUnset && !t.ended.Load():
			return conveyor.Result{}, conveyor.Permanent(errors.New("the steps before have not ended as given"))
		}
		return d.Reconcile(ctx, req)
	})
}

// untilTheEnd is the driver of every call after the one under test. It waits until the run is canceled.
func untilTheEnd(ctx context.Context, _ *conveyor.Request) (conveyor.Result, error) {
	<-ctx.Done()
	return conveyor.Result{}, context.Cause(ctx)
}

// interrupt has the stand-ins called by an engine that crashes in the last of these calls.
func (t *trial) interrupt(ctx context.Context) error {
	alive, die := context.WithCancel(ctx)
	defer die()
	records := &crashStore{Store: t.records, onCrash: die}
	t.crash = records.crash
	e, err := t.newEngine(records)
	if err != nil {
		return err
	}
	defer abandon(e)
	err = t.start(ctx, e)
	var run *conveyor.Run
	if err == nil {
		run, err = e.Wait(alive, t.run)
	}
	switch {
	case records.isCrashed():
		t.before = 0
		return nil
	case err != nil:
		return err
	}
	return notCalled(run)
}

// call has the driver under test called by an engine, and returns the outcome.
func (t *trial) call(ctx context.Context) (o Outcome, err error) {
	e, err := t.newEngine(t.records)
	if err != nil {
		return o, err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err = errors.Join(err, e.Shutdown(end))
	}()
	events := e.Watch(ctx, conveyor.WatchOptions{Resource: t.resource.Key()})
	if err := t.start(ctx, e); err != nil {
		return o, err
	}
	if o.State, o.Reason, err = t.awaitStep(events); err != nil {
		return o, err
	}
	run, err := endRun(ctx, e, t.run)
	if err != nil {
		return o, err
	}
	made := t.calls.Calls()
	if len(made) == 0 {
		return o, notCalled(run)
	}
	o.setResult(run, made[0])
	return o, nil
}

// newEngine returns an engine with the drivers of the run, which is not started.
//
// Its policy has no end of attempts, so that a step that would be retried differs from one that has failed for good. The
// second attempt never reaches the driver.
func (t *trial) newEngine(records store.Store) (*conveyor.Engine, error) {
	e, err := conveyor.New(records, conveyor.Options{Retry: conveyor.RetryPolicy{MaxAttempts: -1}})
	if err != nil {
		return nil, err
	}
	return e, errors.Join(
		e.Register(outputGiver, conveyor.DriverFunc(t.given.giveOutput)),
		e.Register(outcomeGiver, ending{t.given, e, t.newer, &t.ended}),
		e.Register(underTest, t.driver),
	)
}

// start starts an engine. If there is no run yet, start applies the resource and sends the given signal.
func (t *trial) start(ctx context.Context, e *conveyor.Engine) error {
	if t.run != "" {
		return e.Start(ctx)
	}
	if err := errors.Join(e.SavePipeline(ctx, t.pipeline), e.Start(ctx)); err != nil {
		return err
	}
	run, err := e.Apply(ctx, t.resource)
	if err != nil {
		return err
	}
	t.run = run.ID
	if s := t.given.Signal; s != nil && !s.TimedOut {
		err = e.Signal(ctx, run.ID, s.name(), s.Payload) // the step takes it as soon as it awaits it
	}
	if errors.Is(err, conveyor.ErrConflict) { // the run has ended, and says why
		err = nil
	}
	return err
}

// awaitStep returns the state and the reason that the call under test has given the step. The state is 0 if the run has
// ended without such a call.
func (t *trial) awaitStep(events iter.Seq2[conveyor.Event, error]) (state conveyor.State, reason string, err error) {
	before := t.before // calls that begin before the one under test
	for event, err := range events {
		switch {
		case err != nil:
			return 0, "", err
		case event.Run != t.run:
		case event.Kind == conveyor.EventRun && event.State.Final():
			return 0, "", nil
		case event.Step != underTest || event.State == conveyor.StateQueued:
		case event.State == conveyor.StateRunning:
			before--
		case before < 0:
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

// notCalled returns the error of a run in which something went wrong before the call under test. The run says what: the
// engine has refused a given output, for example.
func notCalled(run *conveyor.Run) error {
	return fmt.Errorf("the driver was not called: %s", describe(run))
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
	case errors.As(run.Err(), &failure) && failure.Step == underTest:
		o.Err = failure.Err
	default:
		o.Err = errors.New(failed.Error)
	}
}
