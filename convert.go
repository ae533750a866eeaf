package conveyor

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
)

// objectOfRun puts the resource together as it was when its run started. It shares nothing with the record.
func objectOfRun(r *record.Run, spec json.RawMessage) *Object {
	o := &Object{Spec: bytes.Clone(spec), Meta: Meta{
		ID: r.ResourceID, Name: r.Name, Type: r.Type, Pipeline: r.Pipeline, Metadata: maps.Clone(r.Metadata), Version: r.Version,
		Generation: r.Generation, CreatedAt: r.MadeAt.Time(), UpdatedAt: r.UpdatedAt.Time(),
	}}
	if r.DeletedAt != 0 {
		at := r.DeletedAt.Time()
		o.DeletedAt = &at
	}
	return o
}

// metaOf makes the Meta of a resource of its record.
func metaOf(k Key, r *record.Resource) Meta {
	m := Meta{
		ID: r.ID, Name: k.Name, Type: k.Type, Pipeline: r.Pipeline, Metadata: maps.Clone(r.Metadata),
		Version: r.Version, Generation: r.Generation, Status: fromStatus(r.Status),
		CreatedAt: r.Created.Time(), UpdatedAt: r.Updated.Time(),
	}
	if r.Deleted != 0 {
		at := r.Deleted.Time()
		m.DeletedAt = &at
	}
	return m
}

// readObject puts a resource together; nil if there is none.
func readObject(ctx context.Context, l *ledger.Ledger, k Key) (*Object, error) {
	for {
		head, rev, err := l.Resource(ctx, record.Key(k))
		if err != nil || head == nil {
			return nil, err
		}
		revision, err := l.Revision(ctx, record.Key(k), head.Generation)
		if err == nil {
			return &Object{Meta: metaOf(k, head), Spec: revision.Spec}, nil
		}
		if !l.Stale(ctx, record.Key(k), rev, err) {
			return nil, err
		}
	}
}

// describeRun reads a run as a value for the program.
func describeRun(ctx context.Context, l *ledger.Ledger, id string) (*Run, error) {
	state, err := l.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	attempts, err := l.Attempts(ctx, id)
	if err != nil {
		return nil, err
	}
	run := runOf(state, attempts)
	if state.Rec.State == plan.Queued {
		// It has pinned nothing: it is shown with what it would take up if it started now.
		head, rev, err := l.Resource(ctx, state.Rec.Key())
		if err != nil {
			return nil, err
		}
		if head == nil || head.Pending != id {
			_, now, err := ledger.Load[record.Run](ctx, l, record.RunKey(id))
			if err == nil && now == state.Rev {
				run.Reason = "waits for the runs queued before it"
				return run, nil
			}
			return describeRun(ctx, l, id) // it has begun since it was read, or ended
		}
		if head.Active != "" {
			run.Reason = "waits for the end of run " + head.Active
		}
		run.Generation, run.Pipeline, run.Cause = head.Generation, head.Pipeline, Cause(head.Cause)
		if head.Keeps != 0 && head.Keeps != head.Generation {
			w, err := l.Target(ctx, state.Rec.Key(), head)
			switch {
			case err == nil:
				run.Generation, run.Pipeline = w.Generation, w.Pipeline
			case l.Stale(ctx, state.Rec.Key(), rev, err):
				return describeRun(ctx, l, id)
			default:
				return nil, err
			}
		}
	}
	return run, nil
}

// runOf makes a value for the program of a run's records.
func runOf(r *record.RunState, attempts map[string][]ledger.Attempt) *Run {
	rec := &r.Rec
	run := &Run{
		ID: r.ID, Resource: Key(rec.Key()), ResourceID: rec.ResourceID, Generation: rec.Generation, Pipeline: rec.Pipeline,
		Cause: Cause(rec.Cause), State: State(rec.State), Reason: rec.Reason,
		CreatedAt: rec.Created.Time(), StartedAt: rec.Started.Time(), EndedAt: rec.Ended.Time(), Deadline: rec.Deadline.Time(),
		Of: rec.Of, stop: rec.Stop, failed: -1,
	}
	if r.Plan == nil {
		return run
	}
	run.Steps = make([]StepRun, len(r.Steps))
	ended := make([]Attempt, 0, len(r.Steps)) // the last ones, which are on record with their steps
	for i := range r.Steps {
		step := r.Plan.Step(i)
		run.Steps[i] = stepOf(&r.Steps[i].Rec, *step, attempts[step.ID], &ended)
		run.Steps[i].Finally = i >= len(r.Plan.Steps)
		if step.ID == rec.FailedStep {
			run.failed = i
		}
		if rec.State.Final() {
			endWith(&run.Steps[i], rec)
		}
	}
	if rec.State == plan.Running {
		run.State, run.Reason = doing(run.Steps)
	}
	return run
}

// wholeRun makes a value for the program of a run whose every attempt is in memory, or nil if some must be read: those
// that failed.
func wholeRun(r *record.RunState) *Run {
	for i := range r.Steps {
		if s := &r.Steps[i].Rec; s.Attempt > 1 || s.State == plan.Failed || s.State == plan.Canceled || s.State == plan.Retrying {
			return nil
		}
	}
	return runOf(r, nil)
}

// stepOf makes a value for the program of a step's record. Where the step has one attempt alone, it is kept in ended.
func stepOf(s *record.Step, step plan.Step, attempts []ledger.Attempt, ended *[]Attempt) StepRun {
	run := StepRun{
		Step: fromStep(step), State: State(s.State), Reason: s.Reason, Attempt: s.Attempt,
		Requeues: s.Requeues, Interruptions: s.Interruptions, Output: append([]byte(nil), s.Output...),
		StartedAt: s.Started.Time(), EndedAt: s.Ended.Time(), Due: s.Due.Time(), Awaiting: s.Await,
	}
	for _, a := range attempts {
		run.Attempts = append(run.Attempts, Attempt{
			Number: a.Number, StartedAt: a.Rec.Started.Time(), EndedAt: a.Rec.Ended.Time(),
			Error: a.Rec.Error, Stack: a.Rec.Stack, kind: a.Rec.Kind,
		})
	}
	for _, w := range s.Waits {
		run.Waits = append(run.Waits, Wait{Signal: w.Signal, From: w.From.Time(), To: w.To.Time(), TimedOut: w.TimedOut})
	}
	if s.Ended != 0 && (s.State == plan.Succeeded || s.State == plan.Skipped) {
		last := Attempt{Number: s.Attempt, StartedAt: run.StartedAt, EndedAt: run.EndedAt}
		if len(attempts) == 0 {
			*ended = append(*ended, last)
			n := len(*ended)
			run.Attempts = (*ended)[n-1 : n : n]
		} else {
			run.Attempts = append(run.Attempts, last)
		}
	}
	return run
}

// endWith gives a step that a run left unfinished the state that follows from the run's end. It is derived, not
// recorded, so that the end of a run costs the same however many steps it leaves.
func endWith(s *StepRun, rec *record.Run) {
	if s.State.Final() {
		return
	}
	s.Due = time.Time{}
	switch {
	case s.State == StateUnset:
	case rec.Stop == plan.StopCancel:
		s.State, s.Reason = StateCanceled, rec.Reason
		return
	case rec.Stop == plan.StopSupersede:
		s.State, s.Reason = StateSuperseded, rec.Reason
		return
	case rec.Stop == plan.StopTimeout: // it waited, or the process died in it
		s.State, s.Reason = StateFailed, rec.StopReason
		return
	}
	s.State = StateSkipped
	switch {
	case rec.Stop == plan.StopTimeout, rec.Stop == plan.StopHalt:
		s.Reason = rec.StopReason
	case rec.FailedStep != "":
		s.Reason = "step " + rec.FailedStep + " failed"
	default:
		s.Reason = "the run ended before this step: " + rec.State.String()
	}
}

// doing derives what a run that has begun is about: the liveliest of its steps' states.
func doing(steps []StepRun) (State, string) {
	i := record.Liveliest(len(steps), func(i int) plan.State { return plan.State(steps[i].State) })
	if i < 0 || steps[i].State == StateRunning {
		return StateRunning, ""
	}
	return steps[i].State, "step " + steps[i].ID + ": " + steps[i].Reason
}

// The values below are those of the packages below, and the compiler holds them equal.
var (
	_ = [1]struct{}{}[StateSuperseded-State(plan.Superseded)]
	_ = [1]struct{}{}[CauseRetried-Cause(record.Retried)]
	_ = [1]struct{}{}[Queue-ChangePolicy(record.Queue)]
)

func toStep(s Step) plan.Step {
	return plan.Step{
		ID: s.ID, Name: s.Name, Driver: s.Driver, After: slices.Clone(s.After), With: bytes.Clone(s.With),
		Retry: toPolicyPtr(s.Retry), Timeout: document.Duration(s.Timeout), ContinueOnError: s.ContinueOnError,
	}
}

func fromStep(s plan.Step) Step {
	return Step{
		ID: s.ID, Name: s.Name, Driver: s.Driver, After: slices.Clone(s.After), With: bytes.Clone(s.With),
		Retry: fromPolicyPtr(s.Retry), Timeout: Duration(s.Timeout), ContinueOnError: s.ContinueOnError,
	}
}

func toSteps(steps []Step) []plan.Step { return convertAll(steps, toStep) }

func fromSteps(steps []plan.Step) []Step { return convertAll(steps, fromStep) }

func convertAll[From, To any](from []From, convert func(From) To) []To {
	if from == nil {
		return nil
	}
	to := make([]To, len(from))
	for i := range from {
		to[i] = convert(from[i])
	}
	return to
}

func toPolicy(p RetryPolicy) retry.Policy {
	return retry.Policy{
		MaxAttempts: p.MaxAttempts, Initial: document.Duration(p.Initial), Max: document.Duration(p.Max),
		Multiplier: p.Multiplier, Jitter: p.Jitter,
	}
}

func fromPolicy(p retry.Policy) RetryPolicy {
	return RetryPolicy{
		MaxAttempts: p.MaxAttempts, Initial: Duration(p.Initial), Max: Duration(p.Max), Multiplier: p.Multiplier, Jitter: p.Jitter,
	}
}

func toPolicyPtr(p *RetryPolicy) *retry.Policy {
	if p == nil {
		return nil
	}
	to := toPolicy(*p)
	return &to
}

func fromPolicyPtr(p *retry.Policy) *RetryPolicy {
	if p == nil {
		return nil
	}
	to := fromPolicy(*p)
	return &to
}

func fromStatus(s record.Status) Status {
	return Status{Phase: State(s.Phase), ObservedGeneration: s.ObservedGeneration, Run: s.Run, Message: s.Message}
}

// toPlan returns the plan of the steps that a definition lists.
func toPlan(s PipelineSpec) *plan.Plan {
	p := &plan.Plan{
		Steps: toSteps(s.Steps), Finally: toSteps(s.Finally), Timeout: document.Duration(s.Timeout), Resync: document.Duration(s.Resync),
		Retry: toPolicyPtr(s.Retry),
	}
	return p.Ready()
}

// keyOf returns the key of a resource, as records have it.
func keyOf(o *Object) record.Key { return record.Key(o.Key()) }

// document returns the limits that concern the reading of a document.
func (l Limits) document() document.Limits {
	return document.Limits{Bytes: l.Document, Depth: l.Depth, List: l.Steps}
}
