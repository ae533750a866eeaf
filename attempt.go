package conveyor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor/internal/call"
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// attempt is one call of a driver, from the commit that records its start to the return of the call. All that the call
// needs is part of it, so that a step costs few allocations.
type attempt struct {
	call.Call

	sched    *scheduler
	journey  *journey
	plan     *plan.Plan
	index    int        // of the step in the plan
	step     *plan.Step // of the plan, never changed
	number   int
	rev      store.Revision // of the step's record, with which it began
	finalize bool           // call Finalize, which the driver has
	driver   *driver
	started  time.Time
	request  Request
	handler  runlog.Handler
	logger   slog.Logger

	out    outcome  // what the call has come to so far
	answer *outcome // out, when the call has come to its end; nil before

	exempt atomic.Bool // counted in scheduler.exempt; set with journey.mu held, while it has not returned
}

// outcome is what an attempt came to.
type outcome struct {
	attempt *attempt
	result  Result
	output  json.RawMessage // of result, encoded
	plan    *plan.Plan      // that the attempt made of the one it had
	err     error
	cause   error // of the end of the attempt's context; nil if it had not ended
	ended   time.Time
	forRun  run.Outcome // what value returns
}

// value returns what the decision about the run must know.
func (o *outcome) value(engine RetryPolicy) *run.Outcome {
	a, v := o.attempt, &o.forRun
	*v = run.Outcome{
		Step: a.index, Attempt: a.number, Kind: o.result.kind, Output: o.output, Plan: o.plan,
		Reason: o.result.reason, Delay: o.result.delay, Ended: o.ended,
	}
	switch {
	case o.err == nil:
	case errors.Is(o.cause, ErrShutdown), errors.Is(o.cause, ErrSuperseded):
		v.Kind = run.Cut
	default:
		v.Kind, v.Failure = run.Failed, failureOf(o.err)
		v.Policy = retry.Combine(a.step.Retry, a.plan.Retry, toPolicy(a.driver.opts.retry), toPolicy(engine))
	}
	return v
}

// failureOf returns what is recorded of an error.
func failureOf(err error) *run.Failure {
	p, isPanic := fault.As[*PanicError](err)
	f := &run.Failure{Text: err.Error(), Kind: fault.KindOf(err, isPanic)}
	if isPanic {
		f.Stack = string(p.Stack)
	}
	if d, ok := direction(err); ok {
		f.Permanent = d.permanent
		if !d.permanent {
			f.After = &d.delay
		}
	}
	return f
}

// newAttempt prepares the call of a step's driver. The caller has recorded its start, or is about to.
func (s *scheduler) newAttempt(j *journey, p *plan.Plan, i int, step *record.Step, d *driver, deadline record.Time) *attempt {
	a := &attempt{
		sched: s, journey: j, plan: p, index: i, step: p.Step(i), number: step.Attempt, rev: j.held.Run.Steps[i].Rev,
		finalize: p.Finalize && !p.Plans(i), driver: d, started: step.Started.Time(),
	}
	at, cause := a.deadline(s.opts, deadline)
	a.Begin(a, at, cause, &s.aside)
	a.handler.Init(a, a.step.ID, a.number, s.opts.Limits.LogLine)
	a.logger = *slog.New(&a.handler)
	rec := &j.held.Run.Rec
	a.request = Request{
		Resource: objectOfRun(rec, j.held.Spec), Cause: Cause(rec.Cause), Run: j.ID, Step: fromStep(*a.step),
		Attempt: step.Attempt, Resumed: step.Resumed, Outcome: State(rec.Outcome), OutcomeReason: rec.OutcomeReason(),
		Log: &a.logger, resourceID: rec.ResourceID, attempt: a, signal: bytes.Clone(step.Signal), timedOut: step.TimedOut,
	}
	return a
}

// save is [Request.Checkpoint]. It is allowed as long as the step's record is the one that the attempt began with.
func (a *attempt) save(ctx context.Context, data json.RawMessage) error {
	limits := a.sched.opts.Limits
	if len(data) > limits.Output {
		return tooLarge("checkpoint", len(data), limits.Output, "bytes")
	}
	if err := fieldErrors(document.Check("checkpoint", data, limits.document(), 0)); err != nil {
		return err
	}
	a.journey.strew()
	run, step := a.journey.ID, a.step.ID
	_, err := a.sched.ledger.Commit(ctx, []store.Op{store.Put(record.CheckpointKey(run, step), data), store.Check(record.StepKey(run, step), a.rev)})
	if errors.Is(err, store.ErrConflict) {
		err = ErrConflict
	}
	if err != nil {
		return fmt.Errorf("checkpoint of step %q: %w", step, err)
	}
	return nil
}

// saved is [Request.Restore]; nil for nothing.
func (a *attempt) saved() (json.RawMessage, error) {
	r, err := a.sched.ledger.Store.Get(a.sched.base, record.CheckpointKey(a.journey.ID, a.step.ID))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err == nil && !json.Valid(r.Value) {
		err = record.Damaged(r.Key, errors.New("is no JSON"))
	}
	return r.Value, err
}

// deadline is the earlier of the attempt's own and the run's, with the error that will say so; zero for none.
func (a *attempt) deadline(opts Options, run record.Time) (time.Time, error) {
	var at time.Time
	var cause error
	limit := time.Duration(a.step.Timeout)
	if limit == 0 {
		limit = a.driver.opts.timeout
	}
	if limit == 0 {
		limit = opts.StepTimeout
	}
	if limit > 0 {
		at, cause = a.started.Add(limit), fmt.Errorf("%w: the attempt took longer than %s", ErrTimeout, limit)
	}
	if end := run.Time(); run != 0 && (at.IsZero() || end.Before(at)) {
		at, cause = end, fmt.Errorf("%w: the run took longer than its pipeline allows", ErrTimeout)
	}
	return at, cause
}

// call calls the driver, contains what it does, and fills in what that came to. It does not return if the driver calls
// runtime.Goexit.
func (s *scheduler) call(a *attempt, o *outcome) {
	o.attempt = a
	defer func() {
		if v := recover(); v != nil {
			o.err = panicked(v, s.opts.Limits)
			a.close(o)
		}
	}()
	release, admitted := a.enter(o)
	if release != nil {
		defer s.releaseRoom(a, release)
	}
	if admitted {
		a.run(o)
	}
	a.close(o)
	a.answer = o
}

// enter asks for room, where there is somebody to ask. What is not admitted has its outcome.
func (a *attempt) enter(o *outcome) (release func(), admitted bool) {
	opts := &a.sched.opts
	if a.Context().Err() == nil && opts.Admission != nil && !a.plan.Plans(a.index) {
		var after time.Duration
		release, after, o.err = a.admit(opts.Admission, opts.Limits)
		if o.err != nil || after > 0 {
			o.result = Result{kind: run.Refused, delay: after}
			return release, false
		}
	}
	if a.Context().Err() != nil { // before or meanwhile
		o.err = context.Cause(a.Context())
		return release, false
	}
	return release, true
}

// run calls the driver itself, and checks and encodes what it answers.
func (a *attempt) run(o *outcome) {
	limits := a.sched.opts.Limits
	if a.finalize {
		o.result, o.err = a.driver.impl.(Finalizer).Finalize(a.Context(), &a.request)
	} else {
		o.result, o.err = a.driver.impl.Reconcile(a.Context(), &a.request)
	}
	if o.err != nil {
		return
	}
	switch {
	case o.result.kind == run.Await:
		if problem := text.NameFault(o.result.reason); problem != "" {
			o.err = Permanent(invalid("signal", "%s", problem))
		}
	case o.result.kind == run.Planned:
		o.plan, o.err = plannedBy(a.plan, o.result.output.([]Step), limits)
	case o.result.output != nil:
		o.output, o.err = encodeOutput(o.result.output, limits)
	}
}

// panicked is the error that a panic becomes, where it is recovered.
func panicked(v any, limits Limits) *PanicError {
	return &PanicError{Value: v, Stack: call.Stack(limits.ErrorText)}
}

// close fills in how the call ended. The code of the driver may still come into it, see contained.
func (a *attempt) close(o *outcome) {
	o.ended = time.Now()
	if a.Context().Err() != nil {
		o.cause = context.Cause(a.Context())
	}
	if o.err != nil {
		o.err = contained(o.err, o.cause, a.sched.opts.Limits)
	}
}

// endedError is what a driver answered after its context had ended: the reason first, then its own words.
type endedError struct{ cause, err error }

func (e *endedError) Error() string   { return fmt.Sprintf("%v: %v", e.cause, e.err) }
func (e *endedError) Unwrap() []error { return []error{e.cause, e.err} }

// encodeOutput fails for good, since the next attempt would most likely return the same.
func encodeOutput(output any, limits Limits) (json.RawMessage, error) {
	data, err := document.Marshal(output)
	switch {
	case err != nil:
		return nil, Permanent(fmt.Errorf("%w: output of type %T: %w", ErrInvalid, output, err))
	case len(data) > limits.Output:
		return nil, Permanent(tooLarge("output", len(data), limits.Output, "bytes"))
	}
	if err := fieldErrors(document.Check("output", data, limits.document(), 0)); err != nil {
		return nil, Permanent(err)
	}
	return data, nil
}
