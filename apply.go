package conveyor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Apply creates a resource, or updates it to the content of r as a whole: a field that is empty in r becomes empty.
// It returns the run that reconciles the current generation, and it fills the [Meta] of r.
//
// When Apply returns nil, the resource is recorded and will be reconciled, even if the process dies. What Apply does
// depends on what has changed:
//
//   - The spec or the pipeline's name has changed, or the resource is new: Apply makes a new generation and a run for
//     it. If the resource has an active run (begun and not ended), the new run is queued behind it. If the policy of the
//     pipeline is [Supersede], the active run is ended too. If a run is already queued, this run takes up the change,
//     unless the policy is [Queue]. The newest generation is therefore always reconciled.
//   - Only the metadata has changed: Apply stores the metadata. It makes no generation and no run.
//   - Nothing has changed, or the new spec means the same as the old one: Apply makes no generation and no run. It
//     returns the newest run of the resource, whether this run has ended or not.
//
// If a resource names no pipeline and no driver listens to its type, its run is skipped. The resource gets another
// run when a driver that listens to its type is registered.
//
// Apply returns:
//
//   - an [ErrInvalid] or [ErrTooLarge] that names the field and the limit, also for a pipeline of another type;
//   - an [ErrNotFound] for a pipeline that does not exist, except if the pipeline was deleted and no change of the
//     resource needs a run;
//   - [ErrConflict] if the Version of r is neither 0 nor the current version;
//   - the error that [Options].Validate returned;
//   - [ErrClosed] after Shutdown;
//   - the cause of ctx, or an error of the store.
//
// After an error, nothing is stored and r is unchanged. The only exception is [store.ErrUnknown]: the resource may or
// may not be stored.
func (e *Engine) Apply(ctx context.Context, r Resource) (*Run, error) {
	return e.apply(ctx, r, false)
}

// Create is [Engine.Apply] for a resource that must not exist yet. It returns [ErrExists] if the resource exists.
func (e *Engine) Create(ctx context.Context, r Resource) (*Run, error) {
	return e.apply(ctx, r, true)
}

func (e *Engine) apply(ctx context.Context, r Resource, create bool) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	o, err := objectOf(r, e.opts.Limits)
	if err != nil {
		return nil, err
	}
	origin, err := e.origin(ctx)
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", o.Key(), err)
	}
	if err := e.accept(ctx, o); err != nil {
		return nil, fmt.Errorf("resource %s: %w", o.Key(), err)
	}
	run, head, err := e.submit(ctx, keyOf(o), origin, func(head *record.Resource) (*submission, error) {
		return e.change(ctx, o, head, create, origin.By)
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", o.Key(), err)
	}
	*r.ResourceMeta() = metaOf(o.Key(), head)
	return run, nil
}

// accept asks [Options].Validate, if it is set, whether a resource can be stored.
func (e *Engine) accept(ctx context.Context, o *Object) error {
	if e.opts.Validate == nil {
		return nil
	}
	if err := e.opts.Validate(ctx, o.Clone()); err != nil {
		return foreign(err)
	}
	return nil
}

// Trigger runs a resource again with its spec unchanged, and returns the run. If the resource has an active run, the
// new run is queued behind it. If a run is already queued, Trigger returns this run. Trigger returns [ErrNotFound] if
// there is no such resource or its pipeline is gone, [ErrConflict] if the resource is being deleted, an [ErrInvalid] if
// its pipeline is now for another type, and [ErrClosed] after Shutdown.
func (e *Engine) Trigger(ctx context.Context, k Key) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	origin, err := e.origin(ctx)
	if err != nil {
		return nil, err
	}
	return e.rerun(ctx, record.Key(k), record.Triggered, origin, func(*record.Resource) bool { return true })
}

// Delete marks a resource for deletion and returns the run that deletes it. The active run of the resource is
// canceled, and so are the runs that are queued for it. Then what has been done for the resource is finalized, and the
// resource and its revisions are removed in the same commit that ends the run.
//
// A deletion finalizes the steps that the newest run of the resource had, in the reverse order, if their drivers are a
// [Finalizer]. These are the steps that this run pinned when it began, whatever has been saved or registered since: a
// pipeline that was changed, deleted, or saved for another type makes no difference. A run that never began, or had no
// steps, does not count, and neither does an earlier deletion. A step is left out if this run has not called its driver
// for it, and no earlier run of the resource has called this driver for any step.
//
// Until the resource is removed, Apply and Trigger return [ErrConflict]. Afterwards the name is free. A resource that is applied under
// the name later is a new resource with another ID. Its generations continue from those of the deleted resource. The
// run of the deletion and its log are kept as [Retention] says.
//
// A deletion is a run like any other: it can be canceled, and it can fail. The resource then stays, and stays marked.
// Another call of Delete begins a new deletion. While a deletion is in progress, Delete returns its run. Delete
// returns [ErrNotFound] if there is no such resource, and [ErrClosed] after Shutdown.
func (e *Engine) Delete(ctx context.Context, k Key) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	if text.NameFault(k.Type) != "" || text.NameFault(k.Name) != "" {
		return nil, noResource(k)
	}
	origin, err := e.origin(ctx)
	if err != nil {
		return nil, err
	}
	run, _, err := e.submit(ctx, record.Key(k), origin, func(head *record.Resource) (*submission, error) {
		if head == nil {
			return nil, ErrNotFound
		}
		next := *head
		if head.Deleted != 0 && !head.Status.Phase.Final() {
			return &submission{next: &next}, nil // a deletion is in progress
		}
		revision, err := e.ledger.Revision(ctx, record.Key(k), head.Generation)
		if err != nil {
			return nil, err
		}
		next.Deleted, next.UpdatedBy = record.Time(e.stamps.Next(clock.Now())), origin.By
		return &submission{next: &next, write: true, cause: record.Deleted, spec: revision.Spec}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", k, err)
	}
	return run, nil
}

// RetryFrom selects the steps that [Engine.Retry] runs again. The zero value selects the steps that the old run has
// not done: the failed step and the steps that were left.
type RetryFrom struct {
	// Step is the id of the first step to run again. All steps that come after it are run again too. Empty selects
	// the steps that were not done. If the Finally steps of the old run have removed what the output of a done step
	// points to, Step must be the id of that step, so that it makes the thing anew.
	Step string
	// Start runs all steps again; no earlier success is kept. The steps that a [Planner] has planned are not planned
	// again, unless Newest is set. Start and Step exclude each other.
	Start bool
	// Newest uses the steps of the pipeline as it is defined now. A step that was done is kept if the new definition
	// has a step with the same id, driver and With. If the new definition lacks Step, the new run fails and calls no
	// driver. By default the new run uses the steps that the old run had pinned.
	Newest bool
}

// Retry repeats an ended run in a new run (see [Run].Of) of the same generation. The steps that were done, and that
// from does not select, are not called again. Their outputs are available to the other steps. Attempts are counted
// from 1 again, and the idempotency keys are new. The Finally steps are run again.
//
// What counts as done depends on how the step ended in the old run:
//
//   - succeeded, or skipped by its driver: done;
//   - failed, and ContinueOnError tolerates it: done, because the steps after it have been allowed to start;
//   - succeeded with [Halt]: not done; the step decides again whether the run goes on;
//   - failed, canceled, superseded, or not begun: not done.
//
// A step that comes after a step that is called again is called again too.
//
// The Finally steps of the old run have run by now. If one of them has removed what the output of a done step points to,
// such as a work directory, Retry keeps the output nevertheless, and it points to nothing. Select the step that makes the
// thing, with [RetryFrom].Step: this step and all steps after it are called again.
//
// The old run is kept until the new run has ended, whatever [Retention] says. The new run has then taken over what it
// needs, so the old one can be removed.
//
// Retry returns:
//
//   - [ErrNotFound] if there is no such run, if it was removed in the meantime, if the run has no such step, or if the
//     resource of the run was deleted, even if its name is in use again;
//   - [ErrConflict] if the run has not ended, if it was a deletion (call [Engine.Delete] again), if its generation is no
//     longer the newest, if another run of the resource has not ended, or if the resource is being deleted;
//   - an [ErrInvalid] if from contradicts itself;
//   - [ErrClosed] after Shutdown;
//   - the cause of ctx, or an error of the store.
//
// A run that never began has no steps to keep. Retry then does the same as [Engine.Trigger], and returns what Trigger
// returns.
func (e *Engine) Retry(ctx context.Context, runID string, from RetryFrom) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	if from.Start && from.Step != "" {
		return nil, invalid("from", "has both Start and Step %s", text.Quote(from.Step))
	}
	old, err := e.GetRun(ctx, runID)
	if err != nil {
		return nil, err
	}
	if err := checkRetry(old, from); err != nil {
		return nil, err
	}
	if len(old.Steps) == 0 {
		return e.Trigger(ctx, old.Resource) // the run never began, so there is no step to keep
	}
	repeat := record.Run{Of: runID, From: from.Step, Newest: from.Newest}
	if from.Start {
		repeat.From = run.FromStart
	}
	origin, err := e.origin(ctx)
	if err != nil {
		return nil, err
	}
	run, _, err := e.submit(ctx, record.Key(old.Resource), origin, func(head *record.Resource) (*submission, error) {
		return e.retrySubmission(ctx, old, head, repeat)
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", old.Resource, err)
	}
	return run, nil
}

// checkRetry returns an error if the old run, by itself, cannot be repeated in this way.
func checkRetry(old *Run, from RetryFrom) error {
	switch {
	case !old.State.Final():
		return fmt.Errorf("%w: run %s is %s", ErrConflict, old.ID, old.State)
	case old.Cause == CauseDeleted:
		return fmt.Errorf("%w: run %s was a deletion", ErrConflict, old.ID)
	case from.Step != "" && (old.Step(from.Step) == nil || old.Step(from.Step).Finally):
		return fmt.Errorf("%w: step %s of run %s", ErrNotFound, text.Quote(from.Step), old.ID)
	}
	return nil
}

// retrySubmission returns the submission of a run that repeats the old run, or an error if the resource's record does
// not allow such a run now.
func (e *Engine) retrySubmission(ctx context.Context, old *Run, head *record.Resource, repeat record.Run) (*submission, error) {
	switch {
	case head == nil || head.ID != old.ResourceID:
		return nil, ErrNotFound
	case head.Deleted != 0:
		return nil, isDeleted(head)
	case head.Generation != old.Generation:
		return nil, fmt.Errorf("%w: run %s was of generation %d, and %d is the newest", ErrConflict, old.ID, old.Generation, head.Generation)
	case head.Active != "" || head.Pending != "":
		return nil, fmt.Errorf("%w: run %s has not ended", ErrConflict, head.Active+head.Pending)
	}
	hold, err := e.ledger.Hold(ctx, old.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: run %s is no longer kept", ErrNotFound, old.ID)
	}
	if err != nil {
		return nil, err
	}
	revision, err := e.ledger.Revision(ctx, record.Key(old.Resource), head.Generation)
	if err != nil {
		return nil, err
	}
	next := *head
	return &submission{next: &next, cause: record.Retried, spec: revision.Spec, repeat: repeat, extra: hold}, nil
}

// Rollback applies an earlier generation of a resource again. The spec and the pipeline of the earlier generation
// become a new generation, which a run reconciles as after [Engine.Apply]. The metadata does not change. If the spec
// and the pipeline are current already, Rollback makes no generation, like Apply. The earlier generation is checked like
// a resource that is applied: it can exceed [Limits] that were larger when it was made, and [Options].Validate can reject
// it.
//
// Rollback returns [ErrNotFound] if there is no such resource or generation, and [ErrClosed] after Shutdown.
// Otherwise it returns what Apply returns.
func (e *Engine) Rollback(ctx context.Context, k Key, generation int64) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	if _, err := e.head(ctx, k); err != nil {
		return nil, err
	}
	origin, err := e.origin(ctx)
	if err != nil {
		return nil, err
	}
	run, _, err := e.submit(ctx, record.Key(k), origin, func(head *record.Resource) (*submission, error) {
		if head == nil || generation < head.First || generation > head.Generation {
			return nil, fmt.Errorf("%w: generation %d", ErrNotFound, generation)
		}
		revision, err := e.ledger.Revision(ctx, record.Key(k), generation)
		if errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("%w: generation %d is no longer kept", ErrNotFound, generation)
		}
		if err != nil {
			return nil, err
		}
		o := &Object{Meta: metaOf(k, head), Spec: revision.Spec}
		o.Pipeline = revision.Pipeline
		if err := fieldErrors(o.validate(e.opts.Limits)); err != nil {
			return nil, err
		}
		if err := e.accept(ctx, o); err != nil {
			return nil, err
		}
		return e.change(ctx, o, head, false, origin.By)
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", k, err)
	}
	return run, nil
}

// isDeleted returns the error for a call that a resource which is marked for deletion does not allow.
func isDeleted(head *record.Resource) error {
	if head.Status.Phase.Final() {
		return fmt.Errorf("%w: its deletion, run %s, is %s; call Delete again", ErrConflict, head.Status.Run, head.Status.Phase)
	}
	return fmt.Errorf("%w: run %s is deleting it", ErrConflict, head.Status.Run)
}

// rerun makes a run of an unchanged resource if wanted returns true for the resource's record. Otherwise it returns the
// newest run.
func (e *Engine) rerun(ctx context.Context, k record.Key, cause record.Cause, origin record.Origin, wanted func(*record.Resource) bool) (*Run, error) {
	if text.NameFault(k.Type) != "" || text.NameFault(k.Name) != "" {
		return nil, noResource(Key(k))
	}
	run, _, err := e.submit(ctx, k, origin, func(head *record.Resource) (*submission, error) {
		if head == nil {
			return nil, ErrNotFound
		}
		if head.Deleted != 0 {
			return nil, isDeleted(head)
		}
		next := *head
		if !wanted(head) {
			return &submission{next: &next}, nil
		}
		pipeline, err := e.checkPipeline(ctx, k, head.Pipeline)
		if err != nil {
			return nil, err
		}
		revision, err := e.ledger.Revision(ctx, k, head.Generation)
		if err != nil {
			return nil, err
		}
		return &submission{next: &next, cause: cause, spec: revision.Spec, pipeline: pipeline}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", k, err)
	}
	return run, nil
}

// submission is the change that a call of the program makes to a resource, and the run that the call needs.
type submission struct {
	next          *record.Resource // the resource's record after the change
	before        *record.Resource // the record before the change; nil if there is none
	write         bool             // next differs from what is recorded
	extra         []store.Op       // writes and checks for the same commit
	cause         record.Cause     // of the run that is needed; 0 if no run is needed
	fixGeneration bool             // the run must reconcile exactly this generation
	pipeline      *record.Pipeline // of the resource, if it was read; the run uses it if the run starts at once
	spec          json.RawMessage
	answer        func(run string) []store.Op // of a letter, with the run that it has led to; nil if no letter has asked
	repeat        record.Run                  // Of, From and Newest of the run's record if the run repeats another one
	origin        record.Origin
}

// change returns the submission that applies o to a resource, for an actor. head is nil if the resource does not exist.
func (e *Engine) change(ctx context.Context, o *Object, head *record.Resource, create bool, by string) (*submission, error) {
	switch {
	case head != nil && head.Deleted != 0:
		return nil, isDeleted(head)
	case head != nil && create:
		return nil, ErrExists
	case o.Version != 0 && head == nil:
		return nil, fmt.Errorf("%w: version %d was given, and there is no such resource; a new one has version 0", ErrConflict, o.Version)
	case o.Version != 0 && head.Version != o.Version:
		return nil, fmt.Errorf("%w: version %d was given, and %d is the current one; read it with Get, and apply the change to that", ErrConflict, o.Version, head.Version)
	}
	pipeline, missing := e.checkPipeline(ctx, keyOf(o), o.Pipeline)
	if missing != nil && (head == nil || !errors.Is(missing, ErrNotFound)) {
		return nil, missing
	}
	now := record.Time(e.stamps.Next(clock.Now()))
	if head == nil {
		return e.firstSubmission(ctx, o, pipeline, now, by)
	}
	old, err := e.ledger.Revision(ctx, keyOf(o), head.Generation)
	if err != nil {
		return nil, err
	}
	next := *head
	next.Metadata, next.Pipeline = toMetadata(&o.Meta), o.Pipeline
	if head.Pipeline != o.Pipeline || !sameSpec(old.Spec, o.Spec) {
		if missing != nil {
			return nil, missing // a deleted pipeline is an error only if a run is needed
		}
		next.Version, next.Generation, next.Updated, next.UpdatedBy = head.Version+1, head.Generation+1, now, by
		next.Supersede = head.Active != "" && pipeline.OnChange == record.Supersede
		return withRevision(o, &next, pipeline, record.Updated), nil
	}
	if sameMetadata(next.Metadata, head.Metadata) {
		return &submission{next: head}, nil
	}
	next.Version, next.Updated, next.UpdatedBy = head.Version+1, now, by
	return &submission{next: &next, write: true}, nil
}

// firstSubmission returns the submission that begins a new incarnation of a name. Its generations continue from those
// of the incarnation before.
func (e *Engine) firstSubmission(ctx context.Context, o *Object, pipeline *record.Pipeline, now record.Time, by string) (*submission, error) {
	tombstone, rev, err := ledger.Load[record.Tombstone](ctx, e.ledger, record.TombstoneKey(keyOf(o)))
	switch {
	case errors.Is(err, store.ErrNotFound):
		tombstone, err = new(record.Tombstone), nil
	case err == nil && e.sched.fleet != nil: // another engine can have made what was there before, with another clock
		err = e.followIDs(ctx, record.RunPrefix, runOfKey)
	}
	if err != nil {
		return nil, err
	}
	first := tombstone.Generation + 1
	want := withRevision(o, &record.Resource{
		ID: e.ids.Next(now.Time()), Pipeline: o.Pipeline, Metadata: toMetadata(&o.Meta),
		Version: 1, Generation: first, First: first, Created: now, Updated: now, UpdatedBy: by, LastRun: tombstone.LastRun,
	}, pipeline, record.Created)
	// A check that there is no resource would not be enough: another call may have created and deleted the resource in
	// the meantime. The generation would then be used twice.
	want.extra = append(want.extra, store.Check(record.TombstoneKey(keyOf(o)), rev))
	return want, nil
}

// withRevision returns the submission of a new generation of a resource, which a run along the pipeline reconciles.
func withRevision(o *Object, next *record.Resource, pipeline *record.Pipeline, cause record.Cause) *submission {
	revision := &record.Revision{
		Pipeline: next.Pipeline, Metadata: next.Metadata, Version: next.Version, At: next.Updated, By: next.UpdatedBy, Spec: o.Spec,
	}
	put := store.Put(record.RevisionKey(keyOf(o), next.Generation), record.Encode(revision)).IfAbsent()
	return &submission{
		next: next, write: true, cause: cause, spec: o.Spec, extra: []store.Op{put},
		fixGeneration: pipeline.OnChange == record.Queue, pipeline: pipeline,
	}
}

// checkPipeline returns the record of the resource's pipeline. It returns an error if there is no such pipeline or if
// the pipeline is for another type. For an empty name it returns an empty record.
func (e *Engine) checkPipeline(ctx context.Context, k record.Key, name string) (*record.Pipeline, error) {
	if name == "" {
		return new(record.Pipeline), nil
	}
	p, _, err := e.ledger.Pipeline(ctx, name)
	if err != nil {
		return nil, err
	}
	if p.Resource != k.Type {
		return nil, invalid("pipeline", "%q is for resources of type %q, not %q", name, p.Resource, k.Type)
	}
	return p, nil
}

// submit prepares a submission from the resource's record and carries it out. If another writer has changed the record
// in the meantime, submit starts over. It returns the run for the submission, and the resource's record.
func (e *Engine) submit(ctx context.Context, k record.Key, origin record.Origin, prepare func(*record.Resource) (*submission, error)) (*Run, *record.Resource, error) {
	if err := e.followRuns(ctx); err != nil {
		return nil, nil, err
	}
	var existing store.Record // found in the place of a record that the submission creates
	for {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		head, rev, err := e.ledger.Resource(ctx, k)
		if err != nil {
			return nil, nil, err
		}
		if head != nil {
			if err := record.Rewritable(head.Needs); err != nil {
				return nil, nil, err
			}
		}
		want, err := prepare(head)
		if err != nil {
			if e.ledger.Stale(ctx, k, rev, err) {
				continue
			}
			return nil, nil, err
		}
		want.origin = origin
		if head != nil && e.sched.fleet != nil {
			was := *head
			want.before = &was
		}
		run, err := e.carryOut(ctx, k, want, rev)
		if !errors.Is(err, store.ErrConflict) && !e.ledger.Stale(ctx, k, rev, err) {
			if err == nil && want.cause == record.Updated && want.next.Generation%pruneEvery == 0 {
				e.upkeep.prune(k) // a run may take longer than many changes, and its end would prune too late
			}
			return run, want.next, err
		}
		if e.sched.fleet != nil {
			if _, err := e.sched.fleet.readPauses(); err != nil {
				return nil, nil, err
			}
		}
		before := existing
		if existing, err = e.ledger.Taken(ctx, want.extra); err != nil {
			return nil, nil, err
		}
		if existing.Key != "" && existing.Key == before.Key && existing.Revision == before.Revision {
			// The same record existed in both rounds, and the resource's record, which was read in between, does not
			// refer to it. The two are always written and removed in one commit, so the store is damaged. Another round
			// would find the same, for ever.
			return nil, nil, record.Damaged(record.ResourceKey(k), fmt.Errorf("is older than record %q", existing.Key))
		}
	}
}

// carryOut commits a submission on top of the revision rev of the resource's record, and returns the run for it. It
// returns a store.ErrConflict if the record has changed.
func (e *Engine) carryOut(ctx context.Context, k record.Key, want *submission, rev store.Revision) (*Run, error) {
	next := want.next
	updated, deleted := want.cause == record.Updated, want.cause == record.Deleted
	queued := next.Status.Phase == plan.Queued // the newest run is queued, and reconciles the newest generation
	if want.cause != 0 && (!queued || deleted || updated && (want.fixGeneration || next.FixesGeneration())) {
		if limit, pending := e.opts.Limits.Queue, next.PendingRuns(); !deleted && pending >= limit {
			return nil, tooLarge("queue", pending+1, limit, "pending runs", "Limits.Queue")
		}
		return e.newRun(k, want, rev)
	}
	// Either no run is needed, or the queued run is enough: it takes up what is recorded when it starts. The newest run
	// is read before the commit, because an error after the commit would be returned by a call that has done its work.
	newest, err := describeRun(ctx, e.ledger, next.Status.Run)
	if err == nil && want.answer != nil {
		want.extra = append(want.extra, want.answer(newest.ID)...)
		if !want.write {
			_, err = e.ledger.Commit(ctx, append(want.extra, store.Check(record.ResourceKey(k), rev)))
		}
	}
	if err != nil || !want.write {
		return newest, err
	}
	if updated {
		next.Cause, next.Change = want.cause, &want.origin
		newest.Generation, newest.Pipeline, newest.Cause, newest.By = next.Generation, next.Pipeline, Cause(next.Cause), want.origin.By
		newest.Carried = maps.Clone(want.origin.Carried)
	}
	if e.sched.fleet != nil {
		if err := e.sched.fleet.requests().takeUpChange(ctx, k, want); err != nil {
			return nil, err
		}
	}
	ops := append([]store.Op{store.Put(record.ResourceKey(k), record.Encode(next)).If(rev)}, want.extra...)
	_, err = e.ledger.Commit(ctx, ops)
	if err == nil {
		e.events.publish(Event{Time: clock.Now(), Kind: EventResource, Resource: Key(k), By: want.origin.By})
	}
	if e.sched.fleet != nil {
		e.sched.fleet.recheck(next.Pending)
		e.sched.fleet.look()
	}
	if next.Pending != "" && (err == nil || errors.Is(err, store.ErrUnknown)) && e.sched.fleet == nil {
		// After the change, the pending run may not have to wait any more, for the end of the active run or for the run
		// limit of its pipeline. The active run is ended here and not by the pending run, because the pending run would
		// need a worker for this, and the active run may hold the last one.
		if by := run.Preempt(next); by != nil && err == nil {
			e.sched.preempt(k, by)
		}
		e.sched.enqueue(e.sched.take(next.Pending, k, record.Lane(next.Pipeline, k)))
	}
	if err != nil {
		return nil, err
	}
	return newest, nil
}
