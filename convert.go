package conveyor

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
)

// document returns the limits that concern the reading of a document.
func (l Limits) document() document.Limits {
	return document.Limits{Bytes: l.Document, Depth: l.Depth, List: l.Steps}
}

// objectOfRun puts the resource together as it was when its run started. It shares nothing with the record.
func objectOfRun(r *runRecord, spec json.RawMessage) *Object {
	o := &Object{Spec: bytes.Clone(spec), Meta: Meta{
		ID: r.ResourceID, Name: r.Name, Type: r.Type, Pipeline: r.Pipeline, Metadata: maps.Clone(r.Metadata), Version: r.Version,
		Generation: r.Generation, CreatedAt: r.MadeAt.time(), UpdatedAt: r.UpdatedAt.time(),
	}}
	if r.DeletedAt != 0 {
		at := r.DeletedAt.time()
		o.DeletedAt = &at
	}
	return o
}

// metaOf makes the Meta of a resource of its record.
func metaOf(k Key, r *resourceRecord) Meta {
	m := Meta{
		ID: r.ID, Name: k.Name, Type: k.Type, Pipeline: r.Pipeline, Metadata: maps.Clone(r.Metadata),
		Version: r.Version, Generation: r.Generation, Status: r.Status,
		CreatedAt: r.Created.time(), UpdatedAt: r.Updated.time(),
	}
	if r.Deleted != 0 {
		at := r.Deleted.time()
		m.DeletedAt = &at
	}
	return m
}

// readObject puts a resource together; nil if there is none.
func readObject(ctx context.Context, l *ledger, k Key) (*Object, error) {
	for {
		head, rev, err := l.resource(ctx, k)
		if err != nil || head == nil {
			return nil, err
		}
		revision, err := l.revision(ctx, k, head.Generation)
		if err == nil {
			return &Object{Meta: metaOf(k, head), Spec: revision.Spec}, nil
		}
		if !l.overtaken(ctx, k, rev, err) {
			return nil, err
		}
	}
}

// describeRun reads a run as a value for the program.
func describeRun(ctx context.Context, l *ledger, id string) (*Run, error) {
	state, err := l.run(ctx, id)
	if err != nil {
		return nil, err
	}
	attempts, err := l.attempts(ctx, id)
	if err != nil {
		return nil, err
	}
	run := runOf(state, attempts)
	if state.rec.State == StateQueued {
		// It has pinned nothing: it is shown with what it would take up if it started now.
		head, rev, err := l.resource(ctx, run.Resource)
		if err != nil {
			return nil, err
		}
		if head == nil || head.Pending != id {
			_, now, err := load[runRecord](ctx, l, runKey(id))
			if err == nil && now == state.rev {
				run.Reason = "waits for the runs queued before it"
				return run, nil
			}
			return describeRun(ctx, l, id) // it has begun since it was read, or ended
		}
		if head.Active != "" {
			run.Reason = "waits for the end of run " + head.Active
		}
		run.Generation, run.Pipeline, run.Cause = head.Generation, head.Pipeline, head.Cause
		if head.Keeps != 0 && head.Keeps != head.Generation {
			w, err := l.takesUp(ctx, run.Resource, head)
			switch {
			case err == nil:
				run.Generation, run.Pipeline = w.generation, w.pipeline
			case l.overtaken(ctx, run.Resource, rev, err):
				return describeRun(ctx, l, id)
			default:
				return nil, err
			}
		}
	}
	return run, nil
}

// runOf makes a value for the program of a run's records.
func runOf(r *runState, attempts map[string][]keptAttempt) *Run {
	rec := &r.rec
	run := &Run{
		ID: r.id, Resource: rec.key(), ResourceID: rec.ResourceID, Generation: rec.Generation, Pipeline: rec.Pipeline,
		Cause: rec.Cause, State: rec.State, Reason: rec.Reason,
		CreatedAt: rec.Created.time(), StartedAt: rec.Started.time(), EndedAt: rec.Ended.time(), Deadline: rec.Deadline.time(),
		Of: rec.Of, stop: rec.Stop, failed: -1,
	}
	if r.plan == nil {
		return run
	}
	run.Steps = make([]StepRun, len(r.steps))
	ended := make([]Attempt, 0, len(r.steps)) // the last ones, which are on record with their steps
	for i := range r.steps {
		step := r.plan.step(i)
		run.Steps[i] = stepOf(&r.steps[i].rec, *step, attempts[step.ID], &ended)
		run.Steps[i].Finally = i >= len(r.plan.Steps)
		if step.ID == rec.FailedStep {
			run.failed = i
		}
		if rec.State.Final() {
			endWith(&run.Steps[i], rec)
		}
	}
	if rec.State == StateRunning {
		run.State, run.Reason = doing(run.Steps)
	}
	return run
}

// wholeRun makes a value for the program of a run whose every attempt is in memory, or nil if some must be read: those
// that failed.
func wholeRun(r *runState) *Run {
	for i := range r.steps {
		if s := &r.steps[i].rec; s.Attempt > 1 || s.State == StateFailed || s.State == StateCanceled || s.State == StateRetrying {
			return nil
		}
	}
	return runOf(r, nil)
}

// stepOf makes a value for the program of a step's record. Where the step has one attempt alone, it is kept in ended.
func stepOf(s *stepRecord, step Step, attempts []keptAttempt, ended *[]Attempt) StepRun {
	run := StepRun{
		Step: step.clone(), State: s.State, Reason: s.Reason, Attempt: s.Attempt,
		Requeues: s.Requeues, Interruptions: s.Interruptions, Output: append([]byte(nil), s.Output...),
		StartedAt: s.Started.time(), EndedAt: s.Ended.time(), Due: s.Due.time(), Awaiting: s.Await,
	}
	for _, a := range attempts {
		run.Attempts = append(run.Attempts, Attempt{
			Number: a.number, StartedAt: a.rec.Started.time(), EndedAt: a.rec.Ended.time(),
			Error: a.rec.Error, Stack: a.rec.Stack, kind: a.rec.Kind,
		})
	}
	for _, w := range s.Waits {
		run.Waits = append(run.Waits, Wait{Signal: w.Signal, From: w.From.time(), To: w.To.time(), TimedOut: w.TimedOut})
	}
	if s.Ended != 0 && (s.State == StateSucceeded || s.State == StateSkipped) {
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
func endWith(s *StepRun, rec *runRecord) {
	if s.State.Final() {
		return
	}
	s.Due = time.Time{}
	switch {
	case s.State == StateUnset:
	case rec.Stop == stopCancel:
		s.State, s.Reason = StateCanceled, rec.Reason
		return
	case rec.Stop == stopSupersede:
		s.State, s.Reason = StateSuperseded, rec.Reason
		return
	case rec.Stop == stopTimeout: // it waited, or the process died in it
		s.State, s.Reason = StateFailed, rec.StopReason
		return
	}
	s.State = StateSkipped
	switch {
	case rec.Stop == stopTimeout, rec.Stop == stopHalt:
		s.Reason = rec.StopReason
	case rec.FailedStep != "":
		s.Reason = "step " + rec.FailedStep + " failed"
	default:
		s.Reason = "the run ended before this step: " + rec.State.String()
	}
}

// doing derives what a run that has begun is about: the liveliest of its steps' states.
func doing(steps []StepRun) (State, string) {
	i := liveliest(len(steps), func(i int) State { return steps[i].State })
	if i < 0 || steps[i].State == StateRunning {
		return StateRunning, ""
	}
	return steps[i].State, "step " + steps[i].ID + ": " + steps[i].Reason
}
