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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor/internal/call"
	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// attempt is one call of a driver, from the commit that records its start until the call returns. Everything that the
// call needs is part of the attempt, so that a step costs few allocations.
type attempt struct {
	call.Call

	sched    *scheduler
	runner   *runner
	plan     *plan.Plan
	index    int        // position of the step in the plan
	step     *plan.Step // points into plan; never changed
	number   int
	rev      store.Revision // revision of the step's record when the attempt began
	driver   *driver
	started  record.Time
	pipeline string // of the run; empty for the default pipeline
	kind     CallKind
	request  Request       // belongs to the driver and the middleware, which may change it
	planned  *plannedSteps // what a Plan has returned; nil for other calls
	handler  runlog.Handler
	logger   slog.Logger

	out       outcome // the outcome so far; written by the worker that makes the call
	completed bool    // whether out is complete

	saving struct {
		sync.Mutex
		last chan struct{} // closed when the newest checkpoint is saved, or refused
	}

	// next is whether a middleware has called the driver, and nextReturned is closed when the driver has returned. Both are
	// used only with Options.Wrap.
	next         atomic.Int32
	nextReturned chan struct{}

	// inShutdown is set while the driver is inside Engine.Shutdown. The pool counts the attempt then (see Pool.Exempt).
	// It is set with the lock of the Call held, and only if the call has not returned.
	inShutdown atomic.Bool
}

// newAttempt prepares the call of a step's driver. The start of the attempt is recorded already, as at the moment now. The
// run must end by the moment end, unless that is zero. The caller holds the lock of r.
func (s *scheduler) newAttempt(r *runner, p *plan.Plan, i int, step *record.Step, d *driver, now, end time.Time) *attempt {
	a := &attempt{
		sched: s, runner: r, plan: p, index: i, step: p.Step(i), number: step.Attempt, rev: r.held.Run.Steps[i].Rev,
		driver: d, started: step.Started, pipeline: r.held.Run.Rec.Pipeline,
	}
	at, cause := a.deadline(s.opts, now, end)
	a.Begin(a, at, cause, s.background)
	a.handler.Init(a, a.step.ID, a.number, s.opts.Limits.LogLine)
	a.logger = *slog.New(&a.handler)
	rec := &r.held.Run.Rec
	a.request = Request{
		Kind: CallReconcile, Resource: objectOfRun(rec, r.held.Spec), Cause: Cause(rec.Cause), By: rec.By, Carried: maps.Clone(rec.Carried),
		Run: r.ID, Step: fromStep(*a.step),
		Attempt: step.Attempt, Resumed: step.Resumed, Outcome: State(rec.Outcome), OutcomeReason: rec.OutcomeReason(),
		Log: &a.logger, resourceID: rec.ResourceID, attempt: a, signal: bytes.Clone(step.Signal), timedOut: step.TimedOut,
		signalFrom: step.SignalFrom, token: rec.Claims,
	}
	switch {
	case p.Plans(i):
		a.request.Kind = CallPlan
	case p.Finalize:
		a.request.Kind = CallFinalize
	}
	a.kind = a.request.Kind
	return a
}

// recorded reports whether the outcome of the attempt is on record already: by a commit of which this engine thought that it had not
// happened. It is called by the goroutine that handles the inbox.
func (a *attempt) recorded() bool {
	return a.runner.held.Run.Steps[a.index].Rev != a.rev
}

// deadline returns the deadline of the attempt or that of the run, whichever is earlier, and the error that is the
// cause of the context when the deadline has passed. It returns the zero time if there is no deadline. Deadlines have a
// reading of the monotonic clock, like now, so that it makes no difference if somebody sets the clock.
func (a *attempt) deadline(opts Options, now, end time.Time) (time.Time, error) {
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
		at, cause = now.Add(limit), fmt.Errorf("%w: the attempt took longer than %s", ErrTimeout, limit)
	}
	if !end.IsZero() && (at.IsZero() || end.Before(at)) {
		at, cause = end, fmt.Errorf("%w: the run took longer than its pipeline allows", ErrTimeout)
	}
	return at, cause
}

// call calls the driver and fills o with the outcome. A panic of the driver becomes the error of the outcome. If the
// driver calls runtime.Goexit, call does not return.
func (a *attempt) call(o *outcome) {
	s := a.sched
	o.attempt = a
	defer func() {
		if v := recover(); v != nil {
			o.err = panicked(v, s.opts.Limits)
			a.complete(o)
		}
	}()
	release, admitted := a.askAdmission(o)
	if release != nil {
		defer a.releaseCapacity(release)
	}
	if admitted {
		a.run(o)
	}
	a.complete(o)
	a.completed = true
}

// askAdmission asks [Options].Admission, if it is set, whether the host has capacity for the call. It returns true if
// the driver can be called. Otherwise o holds the outcome. If release is not nil, the caller must call it in both
// cases.
func (a *attempt) askAdmission(o *outcome) (release func(), admitted bool) {
	opts := &a.sched.opts
	if a.Context().Err() == nil && opts.Admission != nil && !a.plan.Plans(a.index) {
		var after time.Duration
		release, after, o.err = a.admit(opts.Admission, opts.Limits)
		if o.err != nil || after > 0 {
			o.result = Result{kind: run.Refused, delay: after}
			return release, false
		}
	}
	if a.Context().Err() != nil { // the context ended before Admit was called or while it was called
		o.err = context.Cause(a.Context())
		return release, false
	}
	return release, true
}

// admit calls Admit. The driver can be called if admit returns neither an error nor a time after which to ask again. A
// panic of Admit is returned as an error.
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
		Resource: Key(a.runner.Key), Pipeline: a.pipeline, Run: a.runner.ID, Cause: a.request.Cause,
		Step: fromStep(*a.step), Attempt: a.number,
	})
}

// releaseCapacity calls the release function that Admit returned. A panic of the function is logged and has no other
// effect.
func (a *attempt) releaseCapacity(release func()) {
	s := a.sched
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("release of an admission panicked", "run", a.runner.ID, "step", a.step.ID, "panic", text.TypeOf(v))
		}
	}()
	release()
}

// run calls the method of the driver, and checks and encodes the result.
func (a *attempt) run(o *outcome) {
	limits := a.sched.opts.Limits
	if whole := a.sched.wrapped; whole != nil {
		o.result, o.err = a.callWrapped(whole)
	} else {
		o.result, o.err = a.callUser(a.Context(), &a.request)
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
		if o.plan, o.err = plannedBy(a.plan, a.planned.steps, limits); o.err != nil {
			o.err = &refusedPlan{o.err}
		}
	case o.result.output != nil:
		o.output, o.err = encodeOutput(o.result.output, limits)
	}
}

// encodeOutput returns the output of a driver as JSON. Its errors are permanent, because the next attempt would most
// likely return the same output.
func encodeOutput(output any, limits Limits) (json.RawMessage, error) {
	data, err := document.Marshal(output)
	switch {
	case err != nil:
		return nil, Permanent(fmt.Errorf("%w: output of type %T: %w", ErrInvalid, output, err))
	case len(data) > limits.Output:
		return nil, Permanent(tooLarge("output", len(data), limits.Output, "bytes", "Limits.Output"))
	}
	if err := fieldErrors(document.Check("output", data, limits.document(), 0)); err != nil {
		return nil, Permanent(err)
	}
	return data, nil
}

// panicked returns the error for a panic value. It must be called where the panic is recovered, because the error keeps
// the stack.
func panicked(v any, limits Limits) *PanicError {
	return &PanicError{Value: v, Stack: call.Stack(limits.ErrorText), Frame: call.Frame(ownPackage)}
}

// complete adds to the outcome how the call ended. It can call methods of the driver's error (see contained).
func (a *attempt) complete(o *outcome) {
	o.ended = record.TimeOf(clock.Now())
	if a.Context().Err() != nil {
		o.cause = context.Cause(a.Context())
	}
	if o.err != nil {
		o.err = contained(o.err, o.cause, a.sched.opts.Limits)
	}
}

// callReturned notes that the call of a driver has returned, and drives the run with the outcome. If the call was
// abandoned before, the outcome is discarded, and callReturned returns late: another worker has replaced the one that
// made the call. If the caller is a worker, callReturned returns the attempt that the caller must make next, or nil.
func (a *attempt) callReturned(o *outcome, worker bool) (next *attempt, late bool) {
	s := a.sched
	r := a.runner
	late = a.Return()
	s.leaveShutdown(a)
	if late {
		// Before Done, which would otherwise count the call among the abandoned ones only, and end the wait for the others.
		s.abandoned.remove(a)
		s.pool.Returned(r.Key)
		s.pool.Done(a.driver.calls, 1, nil)
		if s.fleet != nil {
			s.fleet.requests().strayReturned(r.Key)
			s.fleet.recheck(r.ID) // it can be released now
			s.fleet.lookIfLeft()
		}
		return nil, true
	}
	s.pool.Done(a.driver.calls, 1, &r.task)
	s.fleet.lookIfLeft()
	return s.drive(r, message{outcome: o}, worker), false
}

// drop gives up an attempt whose driver must not be called, because the scheduler has stopped since its start was
// recorded. The next process calls the driver.
func (a *attempt) drop() {
	if a.abandonCall() {
		a.callReturned(&a.out, false)
	}
}

// endedByGoexit continues for a worker whose goroutine is being ended by runtime.Goexit. Either the driver called it, or the
// release function of an Admission did after the driver had returned. In the second case the outcome of the driver
// counts.
func (a *attempt) endedByGoexit() {
	s := a.sched
	o := &a.out
	if !a.completed {
		o = &outcome{attempt: a, err: &PanicError{Value: "runtime.Goexit was called"}}
		a.complete(o)
	}
	if _, late := a.callReturned(o, false); !late {
		s.pool.Release()
	}
}

// GraceOver abandons the call of a driver that has not returned within the grace period after the end of its context.
func (a *attempt) GraceOver() { a.abandon() }

// abandon abandons the call of an attempt, and records an outcome for the attempt. It does nothing if the driver has
// returned or the call was abandoned before.
func (a *attempt) abandon() {
	s := a.sched
	if !a.abandonCall() {
		return
	}
	cause := context.Cause(a.Context())
	s.drive(a.runner, message{outcome: &outcome{
		attempt: a, stray: true, cause: cause, ended: record.TimeOf(clock.Now()), err: fmt.Errorf("%w, and the driver did not return", cause),
	}}, false)
}

// abandonCall marks a call as abandoned, so that the result of its driver is discarded. It returns false if the driver
// has returned or the call was abandoned before.
func (a *attempt) abandonCall() bool {
	s := a.sched
	return a.Abandon(func() {
		s.pool.Abandoned(a.runner.Key)
		s.abandoned.add(a)
	})
}

// disown gives up an attempt whose run is, or may be, another engine's. What its driver returns is discarded, and no outcome is recorded.
func (a *attempt) disown() {
	a.Cancel(ErrLeaseLost)
	a.abandonCall()
}

// abandonedCalls are the calls that were abandoned and have not returned.
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

// list returns the abandoned calls, the oldest first.
func (s *abandonedCalls) list() []*attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	attempts := slices.Collect(maps.Keys(s.calls))
	sortByStart(attempts)
	return attempts
}

// outcome is the outcome of an attempt.
type outcome struct {
	attempt *attempt
	result  Result
	output  json.RawMessage // the output of result as JSON
	plan    *plan.Plan      // the plan of the run with the steps that a Planner returned; nil for other attempts
	err     error
	cause   error // why the context of the attempt had ended; nil if it had not ended
	ended   record.Time
	stray   bool // the call was given up, and has not returned
}

// value returns the outcome in the form that a decision about the run needs.
func (o *outcome) value(engine RetryPolicy) run.Outcome {
	a := o.attempt
	v := run.Outcome{
		Step: a.index, Attempt: a.number, Kind: o.result.kind, Output: o.output, Plan: o.plan,
		Reason: o.result.reason, Delay: o.result.delay, Ended: o.ended, Stray: o.stray,
	}
	switch {
	case o.err == nil:
	case errors.Is(o.cause, ErrShutdown), errors.Is(o.cause, ErrSuperseded), errors.Is(o.cause, ErrLeaseLost):
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
	f := &run.Failure{Text: err.Error()}
	f.Kind, f.AlsoKinds = fault.KindsOf(err, isPanic)
	if isPanic {
		f.Stack, f.Frame = string(p.Stack), p.Frame
	}
	if _, refused := fault.As[*refusedPlan](err); refused {
		f.Kind, f.AlsoKinds = fault.KindRefusedPlan, append([]fault.Kind{f.Kind}, f.AlsoKinds...)
	}
	f.Class, f.Code = fault.ClassOf(f.Kind, f.AlsoKinds), codeOf(err)
	if field, ok := fault.As[*FieldError](err); ok {
		f.Field = field.recorded()
	}
	if d, ok := direction(err); ok {
		f.Permanent = d.permanent
		if !d.permanent {
			f.After = &d.delay
		}
	}
	return f
}

// output returns the output of a step, for [Request.Output].
func (a *attempt) output(step string) (json.RawMessage, error) {
	i := a.plan.Index(step)
	if i < 0 {
		var ids []string
		for k := range a.plan.Len() {
			ids = append(ids, a.plan.Step(k).ID)
		}
		return nil, Permanent(fmt.Errorf("%w: output of step %s: the run has no such step%s", ErrNotFound, text.Quote(step), text.DidYouMean(step, ids)))
	}
	if !a.plan.Precedes(i, a.index) {
		return nil, Permanent(fmt.Errorf("%w: output of step %s: it does not come before step %s; name it in the After of that step",
			ErrNotFound, text.Quote(step), text.Quote(a.step.ID)))
	}
	output, ok := a.runner.output(step)
	if !ok {
		return nil, fmt.Errorf("%w: output of step %s: it has none; a step has one if its driver returns DoneWith", ErrNotFound, text.Quote(step))
	}
	return output, nil
}

// saveCheckpoint stores the checkpoint of the step, for [Request.Checkpoint]. It returns ErrConflict if the step's
// record is no longer the one with which the attempt began.
func (a *attempt) saveCheckpoint(ctx context.Context, data json.RawMessage) error {
	limits := a.sched.opts.Limits
	if len(data) > limits.Output {
		return tooLarge("checkpoint", len(data), limits.Output, "bytes", "Limits.Output")
	}
	if err := fieldErrors(document.Check("checkpoint", data, limits.document(), 0)); err != nil {
		return err
	}
	a.runner.noteLeftovers()
	run, step := a.runner.ID, a.step.ID
	ops := []store.Op{store.Put(record.CheckpointKey(run, step), data), store.Check(record.StepKey(run, step), a.rev)}
	err := a.oneByOne(ctx, func() error {
		_, err := a.sched.fleet.requests().commitOwned(ctx, a, ops)
		return err
	})
	if errors.Is(err, store.ErrConflict) {
		err = ErrConflict
	}
	if err != nil {
		return fmt.Errorf("checkpoint of step %q: %w", step, err)
	}
	return nil
}

// oneByOne returns what save returns, or the cause of ctx as soon as ctx ends: a store can take longer, and a driver must be able to
// return. What is saved next waits until save has returned, so that the newest value stays.
func (a *attempt) oneByOne(ctx context.Context, save func() error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	saved := make(chan struct{})
	a.saving.Lock()
	before := a.saving.last
	a.saving.last = saved
	a.saving.Unlock()
	return a.sched.until(ctx, func() error {
		defer close(saved)
		if before != nil {
			<-before
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return save()
	}, a.savedLate)
}

// savedLate is called when a checkpoint was saved whose driver no longer waits for it. The run may have ended in the meantime.
func (a *attempt) savedLate() {
	a.runner.noteLeftovers() // who ends the run from now on sees it
	s := a.sched
	rec, _, err := ledger.Load[record.Run](s.base, s.ledger, record.RunKey(a.runner.ID))
	if errors.Is(err, store.ErrNotFound) || err == nil && rec.State.Final() {
		s.upkeep.deleteLeftovers(a.runner.ID)
	}
}

// loadCheckpoint returns the checkpoint of the step, for [Request.Restore]. It returns nil if there is none.
func (a *attempt) loadCheckpoint() (data json.RawMessage, err error) {
	ctx := a.Context() // a driver must be able to return when it ends, however long the store takes
	if ctx.Err() != nil {
		limited, cancel := context.WithTimeoutCause(a.sched.base, lateRestore, context.Cause(ctx))
		defer cancel()
		ctx = limited
	}
	var r store.Record
	err = a.sched.until(ctx, func() (err error) {
		r, err = a.sched.ledger.Store.Get(ctx, record.CheckpointKey(a.runner.ID, a.step.ID))
		return err
	}, nil)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err == nil && !json.Valid(r.Value):
		err = record.Damaged(r.Key, errors.New("is no JSON"))
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint of step %s: %w", text.Quote(a.step.ID), err)
	}
	return r.Value, nil
}

// lateRestore is how long Restore waits for the store when the context of the call has ended.
const lateRestore = time.Second

// runningAttempts returns the attempts whose calls have neither returned nor been abandoned, the oldest first.
func (s *scheduler) runningAttempts() (attempts []*attempt) {
	for _, r := range s.pool.Owners() {
		for _, a := range r.underWay() {
			if a.Running() {
				attempts = append(attempts, a)
			}
		}
	}
	sortByStart(attempts)
	return attempts
}

func sortByStart(attempts []*attempt) {
	sort.Slice(attempts, func(a, b int) bool { return attempts[a].started < attempts[b].started })
}

// describeAttempts returns the names of attempts, for the text of an error.
func describeAttempts(attempts []*attempt) string {
	var names []string
	for _, a := range attempts {
		names = append(names, fmt.Sprintf("run %s step %s (driver %s, resource %s)", a.runner.ID, a.step.ID, a.driver.name, a.runner.Key))
	}
	return strings.Join(names, "; ")
}

// CallKind is the kind of a call of user code for a step.
type CallKind uint8

const (
	CallReconcile CallKind = iota + 1 // of [Driver.Reconcile]
	CallFinalize                      // of the Finalize of a [Finalizer], for the deletion of the resource
	CallPlan                          // of the Plan of a [Planner]
)

var callKindNames = document.Enum[CallKind]{What: "kind of call", Names: []string{"", "reconcile", "finalize", "plan"}}

// String returns the name that documents use, and "unset" for the zero value.
func (k CallKind) String() string { return callKindNames.Text(k) }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (k CallKind) MarshalText() ([]byte, error) { return callKindNames.Marshal(k) }

// UnmarshalText accepts exactly what MarshalText returns.
func (k *CallKind) UnmarshalText(b []byte) error { return callKindNames.Unmarshal(b, k) }

// Call is one call of user code for a step: of Reconcile, Finalize or Plan, as [Request].Kind says. See [Options].Wrap.
type Call func(ctx context.Context, req *Request) (Result, error)

// plannedSteps is the output of the Result of a Plan.
type plannedSteps struct{ steps []Step }

// wrap returns the call of user code with the middleware around it, the first one outermost. It returns nil if there is no
// middleware.
func wrap(middleware []func(next Call) Call, f *fault.Fields) Call {
	var whole Call
	for i := len(middleware) - 1; i >= 0; i-- {
		field := "Wrap[" + strconv.Itoa(i) + "]"
		if middleware[i] == nil {
			f.Add(fault.Invalidf(field, "is nil"))
			continue
		}
		if whole == nil {
			whole = callDriver
		}
		if whole = middleware[i](whole); whole == nil {
			f.Add(fault.Invalidf(field, "returned nil"))
			return nil
		}
	}
	return whole
}

// The states of the next of an attempt.
const (
	nextReady int32 = iota
	nextCalled
	nextOver // the outermost middleware has returned
)

// callDriver is what the innermost middleware gets as next. It calls the driver of the attempt that the request is for. A
// panic of the driver becomes its error, so that each middleware sees it as one.
func callDriver(ctx context.Context, req *Request) (r Result, err error) {
	a, err := nextOf(ctx, req)
	if err != nil {
		return Result{}, Permanent(err)
	}
	defer close(a.nextReturned)
	defer func() {
		if v := recover(); v != nil {
			err = panicked(v, a.sched.opts.Limits)
		}
	}()
	return a.callUser(ctx, req)
}

// nextOf returns the attempt whose driver a middleware is about to call. The attempt returns it only once.
func nextOf(ctx context.Context, req *Request) (*attempt, error) {
	if ctx == nil || req == nil || req.attempt == nil {
		return nil, invalid("next", "was called without the context or the request that the middleware was given")
	}
	a := req.attempt
	if made, _ := call.MakerOf(ctx).(*attempt); made != a {
		return nil, invalid("next", "was called with a context that is not derived from the one that the middleware was given")
	}
	if a.next.CompareAndSwap(nextReady, nextCalled) {
		return a, nil
	}
	if a.next.Load() == nextOver {
		return nil, invalid("next", "was called after the middleware had returned")
	}
	return nil, invalid("next", "was called a second time; it can be called once in a call")
}

// callUser calls the method of the driver.
func (a *attempt) callUser(ctx context.Context, req *Request) (Result, error) {
	if a.kind == CallFinalize {
		return a.driver.impl.(Finalizer).Finalize(ctx, req)
	}
	r, err := a.driver.impl.Reconcile(ctx, req)
	if err == nil && a.kind == CallPlan {
		a.planned, _ = r.output.(*plannedSteps)
	}
	return r, err
}

// callWrapped calls the driver with the middleware around it.
func (a *attempt) callWrapped(whole Call) (r Result, err error) {
	a.nextReturned = make(chan struct{})
	early := false
	func() {
		defer func() { early = a.endNext() }() // also if the middleware panics or ends its goroutine
		r, err = whole(a.Context(), &a.request)
	}()
	if early {
		err = Permanent(invalid("next", "had not returned when the middleware returned"))
	}
	if err == nil && (a.kind == CallPlan || r.kind == run.Planned) {
		if by, _ := r.output.(*plannedSteps); by == nil || by != a.planned {
			err = Permanent(invalid("result", "the Result of a Plan must be returned as it came, and by the middleware of its own call"))
		}
	}
	return r, err
}

// endNext takes next from the middleware, which is over. If next was called, endNext waits for its return, because the call of
// the driver is part of the attempt, and its resource must have no other. It reports whether it had to wait.
func (a *attempt) endNext() (early bool) {
	if a.next.Swap(nextOver) != nextCalled {
		return false
	}
	select {
	case <-a.nextReturned:
		return false
	default:
		<-a.nextReturned
		return true
	}
}
