package conveyor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/retry"
)

// objectOfRun returns the resource as it was when its run started. The object shares nothing with the record.
func objectOfRun(r *record.Run, spec json.RawMessage) *Object {
	o := &Object{Spec: bytes.Clone(spec), Meta: Meta{
		ID: r.ResourceID, Name: r.Name, Type: r.Type, Pipeline: r.Pipeline, Version: r.Version,
		Generation: r.Generation, CreatedAt: r.MadeAt.Time(), UpdatedAt: r.UpdatedAt.Time(), UpdatedBy: r.UpdatedBy,
	}}
	o.Metadata, o.MetadataJSON = fromMetadata(r.Metadata)
	if r.DeletedAt != 0 {
		at := r.DeletedAt.Time()
		o.DeletedAt = &at
	}
	return o
}

// metaOf returns the Meta of a resource from the resource's record.
func metaOf(k Key, r *record.Resource) Meta {
	m := Meta{
		ID: r.ID, Name: k.Name, Type: k.Type, Pipeline: r.Pipeline,
		Version: r.Version, Generation: r.Generation, Status: fromStatus(r.Status),
		CreatedAt: r.Created.Time(), UpdatedAt: r.Updated.Time(), UpdatedBy: r.UpdatedBy,
	}
	m.Metadata, m.MetadataJSON = fromMetadata(r.Metadata)
	if r.Deleted != 0 {
		at := r.Deleted.Time()
		m.DeletedAt = &at
	}
	return m
}

// readObject reads a resource from its records. It returns nil if there is none.
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

// describeRun reads a run from its records.
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
	switch {
	case state.Rec.State == plan.Queued:
		return describeQueuedRun(ctx, l, run, state)
	case state.Rec.State.Final():
		// If the run was removed in the meantime, some of its steps or attempts may not have been found.
		if err := stillThere(ctx, l, id); err != nil {
			return nil, err
		}
	}
	return run, nil
}

// describeQueuedRun completes the description of a queued run. Such a run has not pinned anything. It is described with
// the generation that the run would take up if it started now.
func describeQueuedRun(ctx context.Context, l *ledger.Ledger, run *Run, state *record.RunState) (*Run, error) {
	head, rev, err := l.Resource(ctx, state.Rec.Key())
	if err != nil {
		return nil, err
	}
	if head == nil || head.Pending != run.ID {
		_, now, err := ledger.Load[record.Run](ctx, l, record.RunKey(run.ID))
		if err == nil && now == state.Rev {
			run.Reason = "waits for the runs queued before it"
			return run, nil
		}
		return describeRun(ctx, l, run.ID) // the run has begun or ended since it was read
	}
	if head.Active != "" {
		run.Reason = "waits for the end of run " + head.Active
	}
	run.Generation, run.Pipeline, run.Cause = head.Generation, head.Pipeline, Cause(head.Cause)
	if head.Change != nil {
		run.By, run.Carried = head.Change.By, head.Change.Carried
	}
	if head.FixedGeneration != 0 && head.FixedGeneration != head.Generation {
		target, err := l.Target(ctx, state.Rec.Key(), head)
		switch {
		case err == nil:
			run.Generation, run.Pipeline = target.Generation, target.Pipeline
		case l.Stale(ctx, state.Rec.Key(), rev, err):
			return describeRun(ctx, l, run.ID)
		default:
			return nil, err
		}
	}
	return run, nil
}

// runOf returns a run from its records. attempts are the failed attempts by step id.
func runOf(r *record.RunState, attempts map[string][]ledger.Attempt) *Run {
	rec := &r.Rec
	run := &Run{
		ID: r.ID, Resource: Key(rec.Key()), Number: rec.Number, ResourceID: rec.ResourceID, Generation: rec.Generation, Pipeline: rec.Pipeline,
		Cause: Cause(rec.Cause), State: State(rec.State), Reason: rec.Reason,
		CreatedAt: rec.Created.Time(), StartedAt: rec.Started.Time(), EndedAt: rec.Ended.Time(), Deadline: rec.Deadline.Time(),
		Of: rec.Of, By: rec.By, StoppedBy: rec.StopBy, Carried: maps.Clone(rec.Carried),
		ErrorKind: ErrorKind(rec.Class), ErrorReason: rec.Code, stop: rec.Stop, failed: -1,
	}
	if r.Plan == nil {
		return run
	}
	run.Steps = make([]StepRun, len(r.Steps))
	ended := make([]Attempt, 0, len(r.Steps)) // room for the last attempt of each step, in one allocation
	for i := range r.Steps {
		step := r.Plan.Step(i)
		run.Steps[i] = stepOf(&r.Steps[i].Rec, *step, attempts[step.ID], &ended)
		run.Steps[i].Finally = i >= len(r.Plan.Steps)
		if step.ID == rec.FailedStep {
			run.failed = i
		}
		if rec.State.Final() || rec.Outcome != plan.Unset && !run.Steps[i].Finally {
			endStepWithRun(&run.Steps[i], rec)
		}
	}
	if rec.State == plan.Running {
		run.State, run.Reason = stateOfSteps(run.Steps)
	}
	return run
}

// runFromMemory returns a run from its loaded records. It returns nil if the run has failed attempts, because these
// must be read from the store.
func runFromMemory(r *record.RunState) *Run {
	for i := range r.Steps {
		if s := &r.Steps[i].Rec; s.Attempt > 1 || s.State == plan.Failed || s.State == plan.Canceled || s.State == plan.Retrying {
			return nil
		}
	}
	return runOf(r, nil)
}

// stepOf returns a step of a run from its record. The last attempt of the step is recorded with the step. If it is the
// only attempt, stepOf appends it to ended, to save an allocation.
func stepOf(s *record.Step, step plan.Step, attempts []ledger.Attempt, ended *[]Attempt) StepRun {
	run := StepRun{
		Step: fromStep(step), State: State(s.State), Reason: s.Reason, Attempt: s.Attempt,
		Requeues: s.Requeues, Interruptions: s.Interruptions, Output: append([]byte(nil), s.Output...),
		StartedAt: s.Started.Time(), EndedAt: s.Ended.Time(), Awaiting: s.Await, ErrorKind: ErrorKind(s.Class), ErrorReason: s.Code,
	}
	if s.State == plan.Retrying || s.State == plan.Waiting {
		run.Due = s.Due.Time()
	}
	if s.State == plan.Unset {
		run.State = StatePending
	}
	for _, a := range attempts {
		run.Attempts = append(run.Attempts, Attempt{
			Number: a.Number, StartedAt: a.Rec.Started.Time(), EndedAt: a.Rec.Ended.Time(),
			Error: a.Rec.Error, Stack: a.Rec.Stack, Frame: a.Rec.Frame, ErrorKind: ErrorKind(fault.ClassOf(a.Rec.Kind, a.Rec.AlsoKinds)),
			ErrorReason: a.Rec.Code, kinds: &errorKinds{a.Rec.Kind, a.Rec.AlsoKinds, a.Rec.Field},
		})
	}
	for _, w := range s.Waits {
		run.Waits = append(run.Waits, Wait{Signal: w.Signal, From: w.From.Time(), To: w.To.Time(), TimedOut: w.TimedOut, By: w.By})
	}
	if s.Ended != 0 && s.Attempt > 0 && (s.State == plan.Succeeded || s.State == plan.Skipped) {
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

// endStepWithRun gives a step that its run left unfinished the state that follows from the end of the run, or from the
// outcome of the steps while Finally is left. It also ends the wait of the step for a signal. This is derived and not
// recorded, so that the end of a run costs the same for any number of such steps.
func endStepWithRun(s *StepRun, rec *record.Run) {
	if s.State.Final() {
		return
	}
	s.Due, s.Awaiting = time.Time{}, ""
	if n := len(s.Waits); n > 0 && s.Waits[n-1].To.IsZero() {
		end := rec.Ended
		if !s.Finally {
			end = cmp.Or(rec.Concluded, rec.Ended)
		}
		s.Waits[n-1].To = end.Time()
	}
	switch {
	case s.State == StatePending:
	case rec.Stop == plan.StopCancel:
		s.State, s.Reason = StateCanceled, rec.Reason
		return
	case rec.Stop == plan.StopSupersede:
		s.State, s.Reason = StateSuperseded, rec.Reason
		return
	case rec.Stop == plan.StopTimeout: // the step waited, or the process died during the step
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
		end := rec.State
		if !end.Final() {
			end = rec.Outcome
		}
		s.Reason = "the run ended before this step: " + end.String()
	}
}

// stateOfSteps derives the state of a run that has begun from the states of its steps: the liveliest state counts.
func stateOfSteps(steps []StepRun) (State, string) {
	i := record.Liveliest(len(steps), func(i int) plan.State { return plan.State(steps[i].State) })
	if i < 0 || steps[i].State == StateRunning {
		return StateRunning, ""
	}
	return steps[i].State, "step " + steps[i].ID + ": " + steps[i].Reason
}

// The constants of this package have the same values as those of the packages below. These lines do not compile if the
// values differ.
var (
	_ = [1]struct{}{}[StateSuperseded-State(plan.Superseded)]
	_ = [1]struct{}{}[CauseRetried-Cause(record.Retried)]
	_ = [1]struct{}{}[Queue-ChangePolicy(record.Queue)]
)

// The functions toX convert a value of this package into one of the packages below, and fromX convert it back. The
// results share nothing with the arguments.

// toMetadata returns the metadata of a resource that was validated.
func toMetadata(m *Meta) record.Metadata {
	if len(m.Metadata)+len(m.MetadataJSON) == 0 {
		return nil
	}
	all := make(record.Metadata, len(m.Metadata)+len(m.MetadataJSON))
	for name, value := range m.Metadata {
		all[name] = record.Encode(value)
	}
	for name, value := range m.MetadataJSON {
		all[name] = record.Encode(value)
	}
	return all
}

func fromMetadata(all record.Metadata) (texts map[string]string, others map[string]json.RawMessage) {
	for name, value := range all {
		if s, ok := textOf(value); ok {
			if texts == nil {
				texts = make(map[string]string, len(all))
			}
			texts[name] = s
			continue
		}
		if others == nil {
			others = map[string]json.RawMessage{}
		}
		others[name] = bytes.Clone(value)
	}
	return texts, others
}

// textOf returns the text that a JSON value is, and false if it is no text. Every attempt gets a copy of the metadata, so
// that the usual text, which has nothing escaped, is not parsed.
func textOf(value json.RawMessage) (s string, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if inner := value[1 : len(value)-1]; !bytes.ContainsAny(inner, `"\`) && utf8.Valid(inner) && value[len(value)-1] == '"' {
		return string(inner), true
	}
	return s, json.Unmarshal(value, &s) == nil
}

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

// toPlan returns the plan of the steps that the definition s lists.
func toPlan(s PipelineSpec) *plan.Plan {
	p := &plan.Plan{
		Rule: plan.PresentRule, Steps: toSteps(s.Steps), Finally: toSteps(s.Finally), Timeout: document.Duration(s.Timeout), Resync: document.Duration(s.Resync),
		Retry: toPolicyPtr(s.Retry),
	}
	return p.Ready()
}

// keyOf returns the key of a resource in the form that records use.
func keyOf(o *Object) record.Key { return record.Key(o.Key()) }

// document returns the limits that apply to the reading of a document.
func (l Limits) document() document.Limits {
	return document.Limits{Bytes: l.Document, Depth: l.Depth, List: l.Steps}
}
