package conveyor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// abandonAfter is how long a driver may take to return after its context has ended. Then its outcome is recorded
// without it.
const abandonAfter = 5 * time.Second

// attempt is one call of a driver, from the commit that records its start to the return of the call.
type attempt struct {
	journey *journey
	index   int // of the step in the plan
	step    Step
	number  int
	driver  *driver
	started time.Time
	ctx     context.Context
	cancel  context.CancelCauseFunc
	request *Request

	unwatch func() bool // takes back the watch for the end of ctx
	free    func()      // frees what ctx holds

	// Guarded by journey.mu. The first of returned and abandoned to be set decides whose word is recorded.
	returned  bool
	abandoned bool
	timer     *time.Timer // runs while the context has ended and the driver has not returned

	exempt atomic.Bool // counted in scheduler.exempt; set with journey.mu held, while neither returned nor abandoned
}

// outcome is what an attempt came to.
type outcome struct {
	attempt *attempt
	result  Result
	output  json.RawMessage // of result, encoded
	err     error
	cause   error // of the end of the attempt's context; nil if it had not ended
	ended   time.Time
}

// attemptContext keys the attempt that a context was made for.
type attemptContext struct{}

// newAttempt prepares the call of a step's driver. The caller has recorded its start, or is about to.
func (s *scheduler) newAttempt(j *journey, p *plan, i int, step *stepRecord, d *driver, deadline instant) *attempt {
	a := &attempt{journey: j, index: i, step: p.Steps[i], number: step.Attempt, driver: d, started: step.Started.time()}
	ctx, cancel := context.WithCancelCause(context.WithValue(s.attempts, attemptContext{}, a))
	a.ctx, a.cancel = ctx, cancel
	a.free = func() { cancel(nil) }
	if at, cause := a.deadline(s.opts, deadline); !at.IsZero() {
		bounded, stop := context.WithDeadlineCause(ctx, at, cause)
		a.ctx, a.free = bounded, func() { stop(); cancel(nil) }
	}
	a.request = &Request{
		Resource: j.object.Clone(), Cause: j.run.rec.Cause, Run: j.id, Step: a.step.clone(),
		Attempt: step.Attempt, Resumed: step.Resumed, resourceID: j.run.rec.ResourceID, outputs: j.output,
	}
	a.request.Log = slog.New(&logHandler{attempt: a, sched: s})
	return a
}

// deadline is the earlier of the attempt's own and the run's, with the error that will say so; zero for none.
func (a *attempt) deadline(opts Options, run instant) (time.Time, error) {
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
	if end := run.time(); run != 0 && (at.IsZero() || end.Before(at)) {
		at, cause = end, fmt.Errorf("%w: the run took longer than its pipeline allows", ErrTimeout)
	}
	return at, cause
}

// call calls the driver and contains what it does. It does not return if the driver calls runtime.Goexit.
func (a *attempt) call(limits Limits) (o outcome) {
	o.attempt = a
	defer func() {
		if v := recover(); v != nil {
			o.err = &PanicError{Value: v, Stack: []byte(cut(string(debug.Stack()), limits.ErrorText))}
		}
		a.close(&o)
	}()
	if a.ctx.Err() != nil {
		o.err = context.Cause(a.ctx)
		return o
	}
	o.result, o.err = a.driver.impl.Reconcile(a.ctx, a.request)
	if o.err != nil {
		// The methods of a driver's own error are its code too, and panic for one on a nil pointer: here, or never.
		_, _ = o.err.Error(), kindOf(o.err)
	}
	if o.err == nil && o.result.output != nil {
		o.output, o.err = encodeOutput(o.result.output, limits)
	}
	return o
}

// close fills in how the call ended.
func (a *attempt) close(o *outcome) {
	o.ended = time.Now()
	if a.ctx.Err() != nil {
		o.cause = context.Cause(a.ctx)
	}
	if o.err != nil && o.cause != nil && !errors.Is(o.err, o.cause) {
		o.err = &endedError{cause: o.cause, err: o.err}
	}
}

// endedError is what a driver answered after its context had ended: the reason first, then its own words.
type endedError struct{ cause, err error }

func (e *endedError) Error() string   { return fmt.Sprintf("%v: %v", e.cause, e.err) }
func (e *endedError) Unwrap() []error { return []error{e.cause, e.err} }

// encodeOutput fails for good, since the next attempt would most likely return the same.
func encodeOutput(output any, limits Limits) (json.RawMessage, error) {
	data, err := marshal(output)
	switch {
	case err != nil:
		return nil, Permanent(fmt.Errorf("%w: output of type %T: %w", ErrInvalid, output, err))
	case len(data) > limits.Output:
		return nil, Permanent(tooLarge("output", len(data), limits.Output, "bytes"))
	}
	if err := checkJSON("output", data, limits); err != nil {
		return nil, Permanent(err)
	}
	return data, nil
}

// settle changes the record of a step by what an attempt of it came to, and returns the record of the attempt if it
// failed. It is the one place that says what an answer of a driver means.
func (s *stepRecord) settle(o *outcome, policy RetryPolicy, stop stopKind, limits Limits) *attemptRecord {
	s.Resumed, s.Again, s.Due, s.Reason = false, false, 0, ""
	if o.err == nil {
		s.succeed(o, limits)
		return nil
	}
	if errors.Is(o.cause, ErrShutdown) {
		s.interrupt()
		return nil
	}
	s.Reason = cut(o.err.Error(), limits.ErrorText)
	failed := &attemptRecord{Started: s.Started, Ended: toInstant(o.ended), Error: s.Reason, Kind: kindOf(o.err)}
	if p := (*PanicError)(nil); errors.As(o.err, &p) {
		failed.Stack = string(p.Stack)
	}
	d, directed := direction(o.err)
	switch {
	case stop == stopCancel || stop == stopSupersede:
		s.State, s.Ended = StateCanceled, toInstant(o.ended)
	case directed && d.permanent, stop != stopNone, policy.exhausted(s.Attempt):
		s.State, s.Ended = StateFailed, toInstant(o.ended)
	default:
		delay := policy.delay(s.Attempt)
		if directed {
			delay = d.delay
		}
		s.State, s.Due = StateRetrying, toInstant(o.ended).after(delay)
	}
	return failed
}

func (s *stepRecord) succeed(o *outcome, limits Limits) {
	s.Reason = cut(o.result.reason, limits.ErrorText)
	if o.result.kind == resultRequeue {
		s.State, s.Again = StateWaiting, true
		s.Due = toInstant(o.ended).after(o.result.delay)
		s.Requeues++
		s.Reason = "the driver asked to be called again"
		return
	}
	s.State, s.Ended, s.Output = StateSucceeded, toInstant(o.ended), o.output
	if o.result.kind == resultSkip {
		s.State = StateSkipped
	}
}

// interrupt makes a step whose call was cut short ready to be called again, with the same number.
func (s *stepRecord) interrupt() {
	s.State, s.Resumed, s.Again = StateQueued, true, true
	s.Interruptions++
}

// begin makes the record say that a call is about to be made.
func (s *stepRecord) begin(now instant) {
	if !s.Again {
		s.Attempt++
	}
	s.State, s.Started, s.Due, s.Reason = StateRunning, now, 0, ""
}
