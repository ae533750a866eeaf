package conveyor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Driver is the code of a step. It is registered under a name (see [Engine.Register]) and called for each attempt.
type Driver interface {
	// Reconcile brings the world to the state that req.Resource describes, as far as this step is concerned.
	//
	// Each return value has exactly one meaning:
	//
	//	Done(), nil              the step succeeded; the zero Result means the same
	//	DoneWith(v), nil         the step succeeded, and v is its output for later steps
	//	Skip(reason), nil        the step was not needed; the run continues
	//	Halt(reason), nil        the run ends here, successfully
	//	RequeueAfter(d), nil     not finished; call again after d; this is no failure and uses no attempt
	//	Await(signal, d), nil    not finished; call again when the signal comes, or after d
	//	_, err                   the attempt failed; it is retried as the step's RetryPolicy specifies
	//	_, Permanent(err)        the step failed and is not retried
	//	_, RetryAfter(d, err)    the attempt failed; the next attempt starts after d
	//
	// A panic in Reconcile is a failed attempt, and so is a call of runtime.Goexit.
	//
	// The start of an attempt is recorded before Reconcile is called. The outcome is recorded before anything else
	// happens to the run. If the process dies in between, Reconcile is called again with the same Attempt, the same
	// [Request.IdempotencyKey], and Resumed set. A step is therefore called at least once: make its effect
	// idempotent, or use the key.
	//
	// ctx ends when the time of the attempt is over, when the run is canceled or superseded, and when the engine
	// shuts down. [context.Cause] returns the reason: ErrTimeout, ErrCanceled, ErrSuperseded or ErrShutdown. A driver
	// should return soon after ctx has ended. Its result is still recorded. An error after ErrShutdown uses no
	// attempt.
	//
	// A call that does not return within five seconds after the end of ctx is abandoned. An abandoned call keeps its
	// slot of the driver until it returns, its result is discarded, and no other attempt for the same resource starts
	// before it has returned. Its worker is replaced, so that an abandoned call delays nobody else. The number of
	// abandoned calls is bounded by [Concurrency] only.
	//
	// The engine calls the methods of a returned error, and of a panic value, as part of this call.
	//
	// Reconcile is called concurrently for different resources (see [Concurrency]), and for steps of one run that
	// have no order between them. It can call any method of the engine. The driver owns req and everything that req
	// refers to.
	Reconcile(ctx context.Context, req *Request) (Result, error)
}

// Finalizer is an optional interface of a [Driver]. It undoes, when a resource is deleted, what Reconcile has done
// for the resource.
type Finalizer interface {
	// Finalize removes what belongs to req.Resource, as far as this step is concerned. It is called in a run of its
	// own (see [Engine.Delete]), in the reverse order of the steps. The rules of Reconcile apply to Finalize too: the
	// meaning of the results, retries, timeouts, and the repetition after a crash. Finalize can be called for a
	// resource for which Reconcile never succeeded. If the past of the resource is long or was removed by [Retention],
	// Finalize can be called even though Reconcile never was. [Halt] counts as [Done]: the other finalizers are still
	// called.
	//
	// A type that wraps a driver must have a Finalize of its own that calls the one of the driver. Otherwise the engine
	// does not find it, and a deletion passes the step over. A [DriverFunc] has no Finalize.
	Finalize(ctx context.Context, req *Request) (Result, error)
}

// DriverFunc lets an ordinary function be used as a [Driver].
type DriverFunc func(ctx context.Context, req *Request) (Result, error)

// Reconcile calls f.
func (f DriverFunc) Reconcile(ctx context.Context, req *Request) (Result, error) { return f(ctx, req) }

// For returns a [Driver] that calls fn with the resource as a value of the Go type R. If the resource cannot be
// decoded into R, the step fails and is not retried.
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

// Request is what a driver gets for one attempt. The driver owns it: a change of a Request changes nothing else.
type Request struct {
	// Kind says which method is called: Reconcile, Finalize or Plan. It is of use in a middleware (see [Options].Wrap).
	Kind CallKind
	// Resource is the resource as it was when the run started. Its spec is the spec of the run's generation, even if
	// the resource has changed since.
	Resource *Object
	// Cause is the reason why the run exists.
	Cause Cause
	// By is the actor who asked for the run (see [As]), and "conveyor" if the engine made it by itself. It is empty if nobody
	// was named.
	By string
	// Carried is what [Options].Carry returned when the run was asked for. It is empty in a run that the engine made by
	// itself.
	Carried map[string]string
	// Run is the id of the run. Ids sort by the creation time of their runs.
	Run string
	// Step is the step of the pipeline. For a resource without a pipeline, ID and Driver are both the name of the
	// driver.
	Step Step
	// Attempt is the number of the attempt, counted from 1. A requeue, a shutdown or a crash uses no attempt: the
	// next call has the same number.
	Attempt int
	// Resumed reports that an earlier call with this attempt number may have begun and was cut short by a crash or a
	// shutdown. A part of its work may be done.
	Resumed bool
	// Outcome is set for a Finally step only: it is how the Steps of the pipeline have ended (succeeded, failed,
	// canceled or superseded). OutcomeReason is the reason, if there is one.
	Outcome       State
	OutcomeReason string
	// Log writes log lines that are kept with the step (see [Engine.Logs]) and passed on to the engine's logger.
	Log *slog.Logger

	resourceID string
	attempt    *attempt        // nil for a request that no engine has made
	signal     json.RawMessage // payload of the delivered signal; nil if no signal was delivered
	signalFrom *record.Origin  // of the delivered signal; nil if nobody was named and nothing is carried
	timedOut   bool            // the wait for a signal ended without one
	token      int64           // what Token returns
}

// Token returns a number that grows each time another engine on a shared store goes on with the run. An external service that
// remembers the highest token of a run, and refuses a request with a lower one, is never changed by a process that was taken for
// dead and comes back (a fencing token). On a store that is not shared the token is always 0.
func (r *Request) Token() int64 { return r.token }

// IdempotencyKey returns the same key for every call of this step in this run. The key differs between steps, between
// runs, and between incarnations of a name. Pass it to external services that can recognise a repeated request. Its
// form is "resource id/run id/step id".
func (r *Request) IdempotencyKey() string {
	return r.resourceID + "/" + r.Run + "/" + r.Step.ID
}

// Output decodes the value that an earlier step of this run returned with [DoneWith]. into must be a pointer. Output returns
// [ErrNotFound] if the run has no such step, if the step does not come before this step, or if it had no output on record
// when this call of the driver started. The text of the error tells the three apart. Output returns [ErrInvalid] if the value
// does not fit into the target. A retry cannot help if there is no such step, if it does not come before, or if its value does
// not fit: a driver that returns one of these errors fails its step at once (see [Permanent]).
func (r *Request) Output(step string, into any) error {
	if r.attempt == nil {
		return fmt.Errorf("%w: output of step %s: the request was not made by an engine", ErrNotFound, text.Quote(step))
	}
	data, err := r.attempt.output(step)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return Permanent(fmt.Errorf("%w: output of step %s into %T: %w", ErrInvalid, text.Quote(step), into, foreign(err)))
	}
	return nil
}

// Settings decodes the With of the step. into must be a pointer. If the step has no With, Settings leaves the target
// unchanged. It returns [ErrInvalid] if With does not fit into the target.
func (r *Request) Settings(into any) error {
	if len(r.Step.With) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.Step.With, into); err != nil {
		return fmt.Errorf("%w: settings of step %s into %T: %w", ErrInvalid, text.Quote(r.Step.ID), into, foreign(err))
	}
	return nil
}

// Checkpoint saves v as the progress of the step and replaces what the step saved before. When it returns nil, v
// survives a crash, and [Request.Restore] can decode v in every later call of this step in this run. The checkpoint
// is deleted when the run ends.
//
// v is encoded as JSON. Checkpoint returns [ErrTooLarge] if the JSON is larger than [Limits].Output, and [ErrInvalid]
// if v cannot be encoded. It returns [ErrConflict] if the step already has an outcome because this call was
// abandoned. If ctx ends before the store has answered, Checkpoint returns the cause of ctx, and v may be saved or not.
func (r *Request) Checkpoint(ctx context.Context, v any) error {
	if r.attempt == nil {
		return fmt.Errorf("%w: checkpoint: the request was not made by an engine", ErrClosed)
	}
	data, err := document.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: checkpoint of type %T: %w", ErrInvalid, v, foreign(err))
	}
	return r.attempt.saveCheckpoint(ctx, data)
}

// Restore decodes what [Request.Checkpoint] saved last, in this call or in an earlier one. into must be a pointer. If
// nothing was saved, Restore returns false and leaves the target unchanged. It returns [ErrInvalid] if the checkpoint
// does not fit into the target, an error of the store, or the cause of the context of the call if that ends first. After the context has
// ended, as when a driver cleans up, Restore waits one second for the store.
func (r *Request) Restore(into any) (bool, error) {
	if r.attempt == nil {
		return false, nil
	}
	data, err := r.attempt.loadCheckpoint()
	if err != nil || data == nil {
		return false, err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("%w: checkpoint of step %s into %T: %w", ErrInvalid, text.Quote(r.Step.ID), into, foreign(err))
	}
	return true, nil
}

// Signal decodes the payload of the signal that the step awaited (see [Await]) and returns true. into must be a
// pointer, or nil to ignore the payload. If the step has not awaited a signal, Signal returns false. If the step's
// wait has timed out, Signal returns false and [ErrTimeout]. It returns [ErrInvalid] if the payload does not fit into
// the target. Later attempts of the step get the same result until the step awaits another signal.
func (r *Request) Signal(into any) (bool, error) {
	switch {
	case r.timedOut:
		return false, fmt.Errorf("%w: step %s waited for a signal that did not come", ErrTimeout, text.Quote(r.Step.ID))
	case r.signal == nil:
		return false, nil
	case into == nil:
		return true, nil
	}
	if err := json.Unmarshal(r.signal, into); err != nil {
		return false, fmt.Errorf("%w: signal to step %s into %T: %w", ErrInvalid, text.Quote(r.Step.ID), into, foreign(err))
	}
	return true, nil
}

// SignalFrom returns who sent the signal that [Request.Signal] returns (see [As]), and what [Options].Carry returned for it.
// Both are empty if no signal was delivered.
func (r *Request) SignalFrom() (by string, carried map[string]string) {
	if r.signalFrom == nil {
		return "", nil
	}
	return r.signalFrom.By, maps.Clone(r.signalFrom.Carried)
}

// Result is the result of an attempt that did not fail. The zero Result is [Done].
type Result struct {
	kind   run.Kind
	output any
	reason string
	delay  time.Duration
}

// Done reports that the step succeeded.
func Done() Result { return Result{} }

// DoneWith reports that the step succeeded, and makes output available to later steps. output is encoded as JSON. If
// it cannot be encoded, or its JSON is larger than [Limits].Output, the step fails and is not retried.
func DoneWith(output any) Result { return Result{output: output} }

// Skip reports that the step was not needed. The run continues as after a success.
func Skip(reason string) Result { return Result{kind: run.Skip, reason: reason} }

// Halt reports that nothing is left to do in the run. The run ends here, successfully, and its remaining steps are
// skipped.
func Halt(reason string) Result { return Result{kind: run.Halt, reason: reason} }

// RequeueAfter reports that the step is not finished and must be called again after d. A d of less than 10ms, zero and
// less included, counts as 10ms: each requeue is written to the store, and a driver that is called again without a pause
// would do nothing else. No goroutine and no worker is held while the step waits. A requeue uses no attempt, however
// often it happens.
func RequeueAfter(d time.Duration) Result {
	return Result{kind: run.Requeue, delay: max(d, 0)}
}

// Await reports that the step must be called again when a signal with this name is sent to the run (see
// [Engine.Signal]), or when the timeout has passed. A signal that was sent before counts too. [Request.Signal]
// returns which of the two has happened. A timeout of 0 or less means no timeout, and another timeout of less than 10ms
// counts as 10ms. No goroutine and no worker is held while the step waits. Await uses no attempt. If the name is not valid for a signal, for instance empty, the step
// fails and is not retried.
func Await(signal string, timeout time.Duration) Result {
	return Result{kind: run.Await, reason: signal, delay: max(timeout, 0)}
}

// Permanent marks err as an error that a retry cannot fix: the step fails. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &directedError{err: err, permanent: true}
}

// RetryAfter marks err as an error after which the next attempt, if one is left, starts after d instead of the delay
// of the retry policy. A d of less than 10ms, zero and less included, counts as 10ms. RetryAfter(d, nil) is nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &directedError{err: err, delay: max(d, 0)}
}

// Reason gives err a reason of few values, by which metrics and alerts tell failures apart: "image-not-found", say. It is
// recorded beside the text of err, which can have any number of values, and is in [Event].ErrorReason, [Attempt].ErrorReason
// and [Run].ErrorReason. A reason has 1 to 64 bytes of letters, digits, '.', '_' and '-', and does not start with a dot; any
// other one is recorded as "invalid-reason". Reason says nothing about retries: combine it with [Permanent] or [RetryAfter],
// in either order. Of several reasons in one error, the outermost counts. Reason(nil, reason) is nil.
func Reason(err error, reason string) error {
	if err == nil {
		return nil
	}
	if len(reason) > maxReason || text.NameFault(reason) != "" {
		reason = "invalid-reason"
	}
	return &reasonedError{err, reason}
}

// maxReason bounds the bytes of a reason of few values.
const maxReason = 64

// reasonedError is an error with a reason of few values.
type reasonedError struct {
	err    error
	reason string
}

func (e *reasonedError) Error() string { return e.err.Error() }
func (e *reasonedError) Unwrap() error { return e.err }

// codeOf returns the outermost reason of few values in the chain of err, or an empty text if there is none.
func codeOf(err error) string {
	if r, ok := fault.As[*reasonedError](err); ok {
		return r.reason
	}
	return ""
}

// directedError is an error of a driver that also specifies whether and when the step is retried.
type directedError struct {
	err       error
	permanent bool
	delay     time.Duration
}

func (e *directedError) Error() string { return e.err.Error() }
func (e *directedError) Unwrap() error { return e.err }

// direction returns the outermost directedError in the chain of err.
func direction(err error) (d *directedError, ok bool) { return fault.As[*directedError](err) }

// DriverOption configures a driver when it is registered.
type DriverOption func(*driverOptions)

type driverOptions struct {
	listen      []string
	concurrency int
	timeout     time.Duration
	retry       RetryPolicy
}

// Listen makes the driver reconcile the resources of these types that name no pipeline.
func Listen(types ...string) DriverOption {
	return func(o *driverOptions) { o.listen = append(o.listen, types...) }
}

// Concurrency limits how many attempts of this driver run at once in this engine, abandoned calls (see [Driver])
// included. 0, the default, means no limit except [Options].Workers, which does not count abandoned calls.
func Concurrency(n int) DriverOption { return func(o *driverOptions) { o.concurrency = n } }

// Timeout limits one attempt of this driver if the step has no timeout of its own. 0, the default, means
// [Options].StepTimeout.
func Timeout(d time.Duration) DriverOption { return func(o *driverOptions) { o.timeout = d } }

// Retry sets the retry policy for the steps of this driver. Each field applies where the step and the pipeline leave
// the same field unset.
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
	validateRetry(o.retry, "Retry", &f)
	return f.List()
}

// Admission decides whether the host has capacity, for instance memory or CPU, for a call of a driver (see
// [Options].Admission).
type Admission interface {
	// Admit is called in a worker before each call of a driver, also for Finally steps and for finalizers. It is
	// called concurrently for different steps. It returns one of three results:
	//
	//	release, 0, nil    There is capacity: the driver is called. release can be nil. It is called once, when the
	//	                   driver has returned, however it returned, and even long after the call was abandoned.
	//	nil, d, nil        There is no capacity now: Admit is called again after d. Meanwhile the step is waiting: its
	//	                   due time is in the store, and it holds no goroutine, no worker and no slot of the driver. This
	//	                   uses no attempt.
	//	nil, 0, err        The attempt fails with err and is retried as after an error of the driver.
	//
	// A release that is returned together with d or err is called at once.
	//
	// Each refusal costs a commit of its own. Therefore d should be about as long as it takes until there is capacity
	// again. A d of less than 10ms counts as 10ms.
	//
	// A call of Admit is part of the attempt: ctx ends with the time of the attempt, a panic fails the attempt, and a
	// call that does not return delays nobody else. The same is true for release, with two exceptions: a panic in
	// release is only logged, by the type of its value, and a call of runtime.Goexit in release has no effect. In
	// both cases the result of the driver counts.
	Admit(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error)
}

// AdmissionFunc lets an ordinary function be used as an [Admission].
type AdmissionFunc func(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error)

// Admit calls f.
func (f AdmissionFunc) Admit(ctx context.Context, s StepInfo) (release func(), retryAfter time.Duration, err error) {
	return f(ctx, s)
}

// StepInfo describes the step that is about to start.
type StepInfo struct {
	Resource Key
	Pipeline string // empty for a resource without one
	Run      string
	Cause    Cause
	Step     Step
	Attempt  int
}
