package conveyor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
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
	runner   *runner
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

	inShutdown atomic.Bool // counted in scheduler.exempt; set with journey.mu held, while it has not returned
}

// newAttempt prepares the call of a step's driver. The caller has recorded its start, or is about to.
func (s *scheduler) newAttempt(r *runner, p *plan.Plan, i int, step *record.Step, d *driver, deadline record.Time) *attempt {
	a := &attempt{
		sched: s, runner: r, plan: p, index: i, step: p.Step(i), number: step.Attempt, rev: r.held.Run.Steps[i].Rev,
		finalize: p.Finalize && !p.Plans(i), driver: d, started: step.Started.Time(),
	}
	at, cause := a.deadline(s.opts, deadline)
	a.Begin(a, at, cause, &s.background)
	a.handler.Init(a, a.step.ID, a.number, s.opts.Limits.LogLine)
	a.logger = *slog.New(&a.handler)
	rec := &r.held.Run.Rec
	a.request = Request{
		Resource: objectOfRun(rec, r.held.Spec), Cause: Cause(rec.Cause), Run: r.ID, Step: fromStep(*a.step),
		Attempt: step.Attempt, Resumed: step.Resumed, Outcome: State(rec.Outcome), OutcomeReason: rec.OutcomeReason(),
		Log: &a.logger, resourceID: rec.ResourceID, attempt: a, signal: bytes.Clone(step.Signal), timedOut: step.TimedOut,
	}
	return a
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
		defer s.releaseCapacity(a, release)
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

// admit asks for room. Without an error, and without a time after which to ask again, the driver may be called.
func (a *attempt) admit(by Admission, limits Limits) (release func(), retryAfter time.Duration, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked(v, limits)
		}
		if err != nil {
			err = fmt.Errorf("admission: %w", err)
		}
	}()
	return by.Admit(a.Context(), StepInfo{
		Resource: Key(a.runner.Key), Pipeline: a.request.Resource.Pipeline, Run: a.runner.ID, Cause: a.request.Cause,
		Step: fromStep(*a.step), Attempt: a.number,
	})
}

// releaseRoom gives back what Admit has granted.
func (s *scheduler) releaseCapacity(a *attempt, release func()) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("release of an admission panicked", "run", a.runner.ID, "step", a.step.ID, "panic", text.TypeOf(v))
		}
	}()
	release()
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

// ended takes note that the call of a driver has returned. A worker gets the attempt to go on with, if there is one, or
// learns that it came too late.
func (s *scheduler) ended(a *attempt, o *outcome, worker bool) (next *attempt, late bool) {
	r := a.runner
	late = a.Return()
	s.leaveShutdown(a)
	s.pool.Done(a.driver.calls, 1)
	if late {
		s.abandoned.remove(a)
		s.pool.Returned(r.Key)
		return nil, true
	}
	return s.drive(r, message{outcome: o}, worker), false
}

// goneWith takes the place of a worker whose goroutine a driver ended, or the release of an admission after the driver had
// answered.
func (s *scheduler) endedByGoexit(a *attempt) {
	o := a.answer
	if o == nil {
		o = &outcome{attempt: a, err: &PanicError{Value: "runtime.Goexit was called"}}
		a.close(o)
	}
	if _, late := s.ended(a, o, false); !late {
		s.pool.Release()
	}
}

// GraceOver gives up a driver that has not returned though it was told to.
func (a *attempt) GraceOver() { a.sched.abandon(a) }

// abandon records the outcome of an attempt without its driver, which has not returned though it was told to.
func (s *scheduler) abandon(a *attempt) {
	if !s.giveUpCall(a) {
		return
	}
	cause := context.Cause(a.Context())
	s.drive(a.runner, message{outcome: &outcome{
		attempt: a, cause: cause, ended: time.Now(), err: fmt.Errorf("%w, and the driver did not return", cause),
	}}, false)
}

// disown has what a driver will return discarded; it reports false if the driver has returned.
func (s *scheduler) giveUpCall(a *attempt) bool {
	return a.Abandon(func() {
		s.pool.Abandoned(a.runner.Key)
		s.abandoned.add(a)
	})
}

// strays are the calls that were given up and have not returned.
type abandonedCalls struct {
	mu    sync.Mutex // guards calls
	calls map[*attempt]struct{}
}

func (s *abandonedCalls) add(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[*attempt]struct{}{}
	}
	s.calls[a] = struct{}{}
}

func (s *abandonedCalls) remove(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, a)
}

// list returns them, the oldest first.
func (s *abandonedCalls) list() []*attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	attempts := slices.Collect(maps.Keys(s.calls))
	sortByStart(attempts)
	return attempts
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

// save is [Request.Checkpoint]. It is allowed as long as the step's record is the one that the attempt began with.
func (a *attempt) save(ctx context.Context, data json.RawMessage) error {
	limits := a.sched.opts.Limits
	if len(data) > limits.Output {
		return tooLarge("checkpoint", len(data), limits.Output, "bytes")
	}
	if err := fieldErrors(document.Check("checkpoint", data, limits.document(), 0)); err != nil {
		return err
	}
	a.runner.noteLeftovers()
	run, step := a.runner.ID, a.step.ID
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
	r, err := a.sched.ledger.Store.Get(a.sched.base, record.CheckpointKey(a.runner.ID, a.step.ID))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err == nil && !json.Valid(r.Value) {
		err = record.Damaged(r.Key, errors.New("is no JSON"))
	}
	return r.Value, err
}

// running lists the attempts under way.
func (s *scheduler) running() (attempts []*attempt) {
	for _, r := range s.pool.Owners() {
		r.mu.Lock()
		for _, a := range r.inFlight {
			if a.Running() {
				attempts = append(attempts, a)
			}
		}
		r.mu.Unlock()
	}
	sortByStart(attempts)
	return attempts
}

func sortByStart(attempts []*attempt) {
	sort.Slice(attempts, func(a, b int) bool { return attempts[a].started.Before(attempts[b].started) })
}

// describeAttempts names attempts for an error.
func describeAttempts(attempts []*attempt) string {
	var names []string
	for _, a := range attempts {
		names = append(names, fmt.Sprintf("run %s step %s (driver %s, resource %s)", a.runner.ID, a.step.ID, a.driver.name, a.runner.Key))
	}
	return strings.Join(names, "; ")
}
