package conveyor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
)

// Driver is the code of a step. It is registered under a name (see [Engine.Register]) and called for each attempt.
type Driver interface {
	// Reconcile brings the world to what req.Resource wants, as far as this step goes.
	//
	// What it returns has one meaning each:
	//
	//	Done(), nil              the step succeeded; so does the zero Result
	//	DoneWith(v), nil         the same, and v is the step's output for later steps
	//	Skip(reason), nil        the step was not needed; the run goes on
	//	Halt(reason), nil        the run ends here, successfully
	//	RequeueAfter(d), nil     not finished; call again after d; this is no failure and uses no attempt
	//	Await(signal, d), nil    not finished; call again when the signal comes, or after d
	//	_, err                   the attempt failed; it is retried as the step's RetryPolicy says
	//	_, Permanent(err)        the step failed, no retry
	//	_, RetryAfter(d, err)    the attempt failed; the next one starts after d
	//
	// A panic, and a call of runtime.Goexit, is a failed attempt.
	//
	// The start of an attempt is on record before Reconcile is called, and its outcome before anything else happens
	// to the run. If the process dies in between, Reconcile is called again with the same Attempt, the same
	// [Request.IdempotencyKey] and Resumed set: at least once, so make the effect idempotent or use the key.
	//
	// ctx ends when the attempt's time is over, when the run is canceled or superseded, and when the engine shuts
	// down; [context.Cause] tells which: ErrTimeout, ErrCanceled, ErrSuperseded, ErrShutdown. A driver should then
	// return soon. What it returns is recorded all the same; an error after ErrShutdown uses no attempt. A driver
	// that does not return within five seconds of the end of its context is given up: it keeps its slot until it returns,
	// what it returns then is discarded, and no other attempt for the same resource starts before. Another worker takes
	// the place of its own, so that it holds up nobody else; what bounds the calls that hang is [Concurrency].
	//
	// The methods of an error that it returns, and of a value that it panics with, are called as part of the call.
	//
	// Reconcile is called concurrently for different resources (see [Concurrency]), and for steps of one run that have
	// no order between them, and may call any method of the engine. The request and all it refers to belong to the driver.
	Reconcile(ctx context.Context, req *Request) (Result, error)
}

// Finalizer is an optional ability of a [Driver]: to undo, when a resource is deleted, what Reconcile has done for it.
type Finalizer interface {
	// Finalize takes away what belongs to req.Resource, as far as this step goes. It is called in a run of its own (see
	// [Engine.Delete]), in the reverse order of the steps, and follows all that is said of Reconcile: what its answers
	// mean, retries, timeouts, repetition after a crash. It may be called for a resource for which Reconcile was never
	// called or never succeeded.
	Finalize(ctx context.Context, req *Request) (Result, error)
}

// DriverFunc makes a Driver of a function.
type DriverFunc func(ctx context.Context, req *Request) (Result, error)

// Reconcile calls f.
func (f DriverFunc) Reconcile(ctx context.Context, req *Request) (Result, error) { return f(ctx, req) }

// For makes a Driver of a function that wants the resource as its own Go type. A resource that cannot be decoded
// into R fails the step for good.
//
//	conveyor.For(func(ctx context.Context, req *conveyor.Request, build *DockerBuild) (conveyor.Result, error) { … })
func For[R any, P interface {
	*R
	Resource
}](fn func(ctx context.Context, req *Request, res P) (Result, error)) Driver {
	return DriverFunc(func(ctx context.Context, req *Request) (Result, error) {
		res := P(new(R))
		if err := req.Resource.Decode(res); err != nil {
			return Result{}, Permanent(err)
		}
		return fn(ctx, req, res)
	})
}

// Request is what a driver is given for one attempt. It is the driver's own: changing it changes nothing else.
type Request struct {
	// Resource as it was when the run started: its spec is the run's generation, however often it changed since.
	Resource *Object
	// Cause says why the run exists.
	Cause Cause
	// Run is the id of the run. Ids sort by the time at which runs were created.
	Run string
	// Step is the step of the pipeline. For a resource without a pipeline its ID and Driver are the driver's name.
	Step Step
	// Attempt counts from 1. A requeue, a shutdown or a crash does not count, so the number comes again after those.
	Attempt int
	// Resumed tells that an earlier call for this attempt may have begun and was cut short by a crash or a shutdown,
	// so that part of its work may be done.
	Resumed bool
	// Outcome, for a step of Finally, is how the steps have ended: succeeded, failed, canceled or superseded. It is
	// unset for every other step. OutcomeReason says why, where there is a reason.
	Outcome       State
	OutcomeReason string
	// Log is kept with the step (see [Engine.Logs]) and passed on to the engine's logger.
	Log *slog.Logger

	resourceID string
	attempt    *attempt        // nil for a request that no engine has made
	signal     json.RawMessage // nil when none was delivered
	timedOut   bool            // instead of a delivery
}

// IdempotencyKey is the same for every call of this step in this run, and differs between steps, runs, and
// incarnations of a name. Give it to the outside services that can recognise a repeated request. It has the form
// "resource id/run id/step id".
func (r *Request) IdempotencyKey() string {
	return r.resourceID + "/" + r.Run + "/" + r.Step.ID
}

// Output decodes what an earlier step of this run returned with [DoneWith] into a pointer. It returns [ErrNotFound]
// if there is no such step, or it had no output when this attempt started, and [ErrInvalid] if it does not fit.
func (r *Request) Output(step string, into any) error {
	if r.attempt == nil {
		return fmt.Errorf("%w: output of step %q: the request was not made by an engine", ErrNotFound, step)
	}
	data, err := r.attempt.journey.output(step)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w: output of step %q into %T: %w", ErrInvalid, step, into, err)
	}
	return nil
}

// Settings decodes the step's With into a pointer, and leaves it alone if the step has none. It returns
// [ErrInvalid] if it does not fit.
func (r *Request) Settings(into any) error {
	if len(r.Step.With) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.Step.With, into); err != nil {
		return fmt.Errorf("%w: settings of step %q into %T: %w", ErrInvalid, r.Step.ID, into, err)
	}
	return nil
}

// Checkpoint saves how far the step has got, in place of what it saved before. When it returns nil, v survives a crash,
// and Restore gives it to every later call of this step in this run, with which it goes. v is encoded as JSON; it is an
// [ErrTooLarge] over [Limits].Output, and an [ErrInvalid] if it cannot be encoded. [ErrConflict] tells that the step has
// an outcome already, because this call was given up.
func (r *Request) Checkpoint(ctx context.Context, v any) error {
	if r.attempt == nil {
		return fmt.Errorf("%w: checkpoint: the request was not made by an engine", ErrClosed)
	}
	data, err := document.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: checkpoint of type %T: %w", ErrInvalid, v, err)
	}
	return r.attempt.save(ctx, data)
}

// Restore decodes what Checkpoint saved last, in this call or an earlier one, into a pointer. It reports false, and
// leaves into alone, if nothing was saved. It returns [ErrInvalid] if what was saved does not fit, and an error of the
// store.
func (r *Request) Restore(into any) (bool, error) {
	if r.attempt == nil {
		return false, nil
	}
	data, err := r.attempt.saved()
	if err != nil || data == nil {
		return false, err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("%w: checkpoint of step %q into %T: %w", ErrInvalid, r.Step.ID, into, err)
	}
	return true, nil
}

// Signal decodes the payload of the signal that the step awaited (see [Await]) into a pointer, or into nothing if that
// is nil, and reports true. It
// reports false if the step has awaited none, and false with [ErrTimeout] if it has waited in vain. A later attempt of
// the step sees the same, until it awaits another.
func (r *Request) Signal(into any) (bool, error) {
	switch {
	case r.timedOut:
		return false, fmt.Errorf("%w: step %q waited for a signal that did not come", ErrTimeout, r.Step.ID)
	case r.signal == nil:
		return false, nil
	case into == nil:
		return true, nil
	}
	if err := json.Unmarshal(r.signal, into); err != nil {
		return false, fmt.Errorf("%w: signal to step %q into %T: %w", ErrInvalid, r.Step.ID, into, err)
	}
	return true, nil
}

// Result is what an attempt that did not fail came to. The zero Result is [Done].
type Result struct {
	kind   resultKind
	output any
	reason string
	delay  time.Duration
}

type resultKind uint8

const (
	resultDone resultKind = iota
	resultSkip
	resultHalt
	resultRequeue
	resultAwait
	resultRefused // no driver's: Admission had no room for the call
	resultPlan    // no driver's: the output are the steps that a Planner returned
)

// Done says that the step succeeded.
func Done() Result { return Result{} }

// DoneWith says that the step succeeded, and gives later steps output, which is encoded as JSON. An output that
// cannot be encoded or is larger than [Limits].Output fails the step for good.
func DoneWith(output any) Result { return Result{output: output} }

// Skip says that the step was not needed. The run goes on as after a success.
func Skip(reason string) Result { return Result{kind: resultSkip, reason: reason} }

// Halt says that the run needs nothing more: it ends here, successfully, and its remaining steps are skipped.
func Halt(reason string) Result { return Result{kind: resultHalt, reason: reason} }

// RequeueAfter says that the step is not finished and shall be called again after d, which may be zero but not less
// (less is taken for zero). Meanwhile nothing is held: no goroutine, no worker. It uses no attempt, however often.
func RequeueAfter(d time.Duration) Result {
	return Result{kind: resultRequeue, delay: max(d, 0)}
}

// Await says that the step shall be called again when a signal of this name is sent to the run (see
// [Engine.Signal]), or has been already, or when the timeout has passed; [Request.Signal] tells which. 0 or less means
// no timeout. Meanwhile nothing is held: no goroutine, no worker. It uses no attempt. A name that could not be sent,
// such as an empty one, fails the step for good.
func Await(signal string, timeout time.Duration) Result {
	return Result{kind: resultAwait, reason: signal, delay: max(timeout, 0)}
}

// Permanent marks err as one that a retry cannot mend: the step fails. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &directedError{err: err, permanent: true}
}

// RetryAfter marks err as one after which the next attempt, if one is left, starts after d instead of the policy's
// delay. A negative d is taken for zero. RetryAfter(d, nil) is nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &directedError{err: err, delay: max(d, 0)}
}

// directedError is an error that says how to go on.
type directedError struct {
	err       error
	permanent bool
	delay     time.Duration
}

func (e *directedError) Error() string { return e.err.Error() }
func (e *directedError) Unwrap() error { return e.err }

// direction returns the outermost directedError of err.
func direction(err error) (d *directedError, ok bool) { return fault.As[*directedError](err) }

// DriverOption changes how a driver is registered.
type DriverOption func(*driverOptions)

type driverOptions struct {
	listen      []string
	concurrency int
	timeout     time.Duration
	retry       RetryPolicy
}

// Listen lets the driver reconcile the resources of these types that name no pipeline.
func Listen(types ...string) DriverOption {
	return func(o *driverOptions) { o.listen = append(o.listen, types...) }
}

// Concurrency limits how many attempts of this driver run at once in this engine, those included that were given up and
// have not returned (see [Driver]). 0, the default, means no limit but [Options].Workers, which does not count those.
func Concurrency(n int) DriverOption { return func(o *driverOptions) { o.concurrency = n } }

// Timeout limits one attempt of this driver where the step has no timeout of its own. 0, the default, means
// [Options].StepTimeout.
func Timeout(d time.Duration) DriverOption { return func(o *driverOptions) { o.timeout = d } }

// Retry is the policy of this driver's steps, field by field, where neither step nor pipeline says otherwise.
func Retry(p RetryPolicy) DriverOption { return func(o *driverOptions) { o.retry = p } }

func (o *driverOptions) validate() []fault.Field {
	var f fault.Fields
	for _, t := range o.listen {
		f.Name("Listen", t)
	}
	if o.concurrency < 0 {
		f.Add(fault.Invalidf("Concurrency", "%d is negative", o.concurrency))
	}
	if o.timeout < 0 {
		f.Add(fault.Invalidf("Timeout", "%s is negative", o.timeout))
	}
	o.retry.validate("Retry", &f)
	return f.List()
}
