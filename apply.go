package conveyor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/runlog"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// SavePipeline creates or replaces the pipeline that p specifies. Runs that have begun keep the steps they began
// with. Later runs use the new definition. Saving an unchanged definition changes nothing.
//
// If p is a [Planner], the engine keeps p and calls its Plan method for every run that is planned from now on.
//
// SavePipeline returns an [ErrInvalid] or [ErrTooLarge] that lists every fault, and [ErrClosed] after Shutdown. The
// drivers need not be registered yet.
func (e *Engine) SavePipeline(ctx context.Context, p Pipeline) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	if isNilPointer(p) {
		return invalid("", "pipeline is nil")
	}
	spec := p.Spec().normalized()
	plans, planned := p.(Planner)
	if err := fieldErrors(spec.validate(e.opts.Limits, planned)); err != nil {
		return fmt.Errorf("pipeline %q: %w", text.Truncate(spec.Name, text.MaxName), err)
	}
	doc := record.Encode(spec)
	hash := ledger.DefinitionHash(doc)
	for {
		old, rev, err := e.ledger.Pipeline(ctx, spec.Name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("save pipeline %s: %w", spec.Name, err)
		}
		if old != nil && old.Hash == hash {
			e.sched.limitRuns(spec.Name, spec.MaxRuns, rev, false) // a save whose outcome was not known may not have done it
			e.sched.plansWith(spec.Name, plans)
			return nil
		}
		now := time.Now()
		head := record.Pipeline{
			Hash: hash, Resource: spec.Resource, OnChange: record.ChangePolicy(spec.OnChange), Resync: document.Duration(spec.Resync), MaxRuns: spec.MaxRuns,
			Planned: planned, Saved: record.TimeOf(now),
		}
		rev, err = e.ledger.Commit(ctx, []store.Op{
			store.Put(record.PipelineKey(spec.Name), record.Encode(head)).If(rev),
			// Under its hash the definition is always the same, so that writing it again changes nothing.
			store.Put(record.DefinitionKey(spec.Name, hash), doc),
		})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("save pipeline %s: %w", spec.Name, err)
		}
		e.sched.limitRuns(spec.Name, spec.MaxRuns, rev, false)
		e.sched.plansWith(spec.Name, plans)
		e.events.publish(Event{Time: now, Kind: EventPipeline, Pipeline: spec.Name})
		return nil
	}
}

// GetPipeline returns the current definition of a pipeline, or [ErrNotFound]. The caller owns the definition.
func (e *Engine) GetPipeline(ctx context.Context, name string) (PipelineSpec, error) {
	if text.NameFault(name) != "" {
		return PipelineSpec{}, fmt.Errorf("%w: pipeline %q", ErrNotFound, text.Truncate(name, text.MaxName))
	}
	head, _, err := e.ledger.Pipeline(ctx, name)
	if err != nil {
		return PipelineSpec{}, err
	}
	r, err := e.ledger.Document(ctx, name, head.Hash)
	if err != nil {
		return PipelineSpec{}, err
	}
	var spec PipelineSpec
	if err := record.Decode(r, &spec); err != nil {
		return PipelineSpec{}, fmt.Errorf("definition of pipeline %s: %w", name, err)
	}
	return spec, nil
}

// Pipelines returns the current definitions of all pipelines, in the order of their names. If the store fails or ctx
// ends, the last element is the error of the store or the cause of ctx.
func (e *Engine) Pipelines(ctx context.Context) iter.Seq2[PipelineSpec, error] {
	return func(yield func(PipelineSpec, error) bool) {
		for r, err := range e.ledger.Store.List(ctx, store.Query{Prefix: record.PipelinePrefix}) {
			if err != nil {
				yield(PipelineSpec{}, err)
				return
			}
			spec, err := e.GetPipeline(ctx, strings.TrimPrefix(r.Key, record.PipelinePrefix))
			if errors.Is(err, ErrNotFound) {
				continue // deleted since
			}
			if !yield(spec, err) || err != nil {
				return
			}
		}
	}
}

// DeletePipeline removes a pipeline, or returns [ErrNotFound]. Runs that have begun continue with the steps they
// began with. A run of the pipeline that is still queued fails. A later Apply that names the pipeline fails, and so
// does the deletion of a resource that names it.
func (e *Engine) DeletePipeline(ctx context.Context, name string) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	if text.NameFault(name) != "" {
		return fmt.Errorf("%w: pipeline %q", ErrNotFound, text.Truncate(name, text.MaxName))
	}
	for {
		_, rev, err := e.ledger.Pipeline(ctx, name)
		if err != nil {
			return err
		}
		// Its definitions stay, for the runs that have pinned them.
		rev, err = e.ledger.Commit(ctx, []store.Op{store.Delete(record.PipelineKey(name)).If(rev)})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil {
			e.sched.limitRuns(name, 0, rev, true)
			e.events.publish(Event{Time: time.Now(), Kind: EventPipeline, Pipeline: name, Reason: "deleted"})
		}
		return err
	}
}

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
	if e.opts.Validate != nil {
		if err := e.opts.Validate(ctx, o.Clone()); err != nil {
			return nil, fmt.Errorf("resource %s: %w", o.Key(), err)
		}
	}
	run, head, err := e.submit(ctx, keyOf(o), func(head *record.Resource) (*submission, error) {
		return e.change(ctx, o, head, create)
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", o.Key(), err)
	}
	*r.ResourceMeta() = metaOf(o.Key(), head)
	return run, nil
}

// Trigger runs a resource again with its spec unchanged, and returns the run. If the resource has an active run, the
// new run is queued behind it. If a run is already queued, Trigger returns this run. Trigger returns [ErrNotFound] if
// there is no such resource or its pipeline is gone, and [ErrClosed] after Shutdown.
func (e *Engine) Trigger(ctx context.Context, k Key) (*Run, error) {
	if err := e.sched.accepting(); err != nil {
		return nil, err
	}
	return e.rerun(ctx, record.Key(k), record.Triggered, func(*record.Resource) bool { return true })
}

// rerun makes a run of an unchanged resource, if it still wants one.
func (e *Engine) rerun(ctx context.Context, k record.Key, cause record.Cause, wanted func(*record.Resource) bool) (*Run, error) {
	if text.NameFault(k.Type) != "" || text.NameFault(k.Name) != "" {
		return nil, fmt.Errorf("%w: resource %q", ErrNotFound, text.Truncate(k.String(), 2*text.MaxName))
	}
	run, _, err := e.submit(ctx, k, func(head *record.Resource) (*submission, error) {
		if head == nil {
			return nil, ErrNotFound
		}
		if head.Deleted != 0 {
			return nil, fmt.Errorf("%w: it is being deleted", ErrConflict)
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
		return &submission{next: &next, cause: cause, spec: revision.Spec, along: pipeline}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", k, err)
	}
	return run, nil
}

// submission is what a call wants to become of a resource.
type submission struct {
	next  *record.Resource
	write bool // next differs from what is recorded
	extra []store.Op
	cause record.Cause     // of the run that is wanted; 0 for none
	keep  bool             // the run shall reconcile this very generation
	along *record.Pipeline // of the resource's pipeline, if it was read; the run goes along it if it starts at once
	spec  json.RawMessage
	of    record.Run // what the run's record shall have besides, if it repeats another: Of, From, Newest
}

// change works out what applying o to a resource changes.
func (e *Engine) change(ctx context.Context, o *Object, head *record.Resource, create bool) (*submission, error) {
	switch {
	case head != nil && head.Deleted != 0:
		return nil, fmt.Errorf("%w: it is being deleted", ErrConflict)
	case head != nil && create:
		return nil, ErrExists
	case o.Version != 0 && head == nil:
		return nil, fmt.Errorf("%w: version %d was given, and there is none", ErrConflict, o.Version)
	case o.Version != 0 && head.Version != o.Version:
		return nil, fmt.Errorf("%w: version %d was given, and %d is the current one", ErrConflict, o.Version, head.Version)
	}
	pipeline, missing := e.checkPipeline(ctx, keyOf(o), o.Pipeline)
	if missing != nil && (head == nil || !errors.Is(missing, ErrNotFound)) {
		return nil, missing
	}
	now := record.Time(e.clock.Next(time.Now()))
	if head == nil {
		return e.firstSubmission(ctx, o, pipeline, now)
	}
	old, err := e.ledger.Revision(ctx, keyOf(o), head.Generation)
	if err != nil {
		return nil, err
	}
	next := *head
	next.Metadata, next.Pipeline = o.Metadata, o.Pipeline
	if head.Pipeline != o.Pipeline || !sameSpec(old.Spec, o.Spec) {
		if missing != nil {
			return nil, missing // a deleted pipeline matters only to what would have to run
		}
		next.Version, next.Generation, next.Updated = head.Version+1, head.Generation+1, now
		next.Supersede = head.Active != "" && pipeline.OnChange == record.Supersede
		return withRevision(o, &next, pipeline, record.Updated), nil
	}
	if len(o.Metadata)+len(head.Metadata) == 0 || maps.Equal(o.Metadata, head.Metadata) {
		return &submission{next: head}, nil
	}
	next.Version, next.Updated = head.Version+1, now
	return &submission{next: &next, write: true}, nil
}

// firstSubmission begins a new incarnation of a name. Its generations go on from those of the one before.
func (e *Engine) firstSubmission(ctx context.Context, o *Object, pipeline *record.Pipeline, now record.Time) (*submission, error) {
	grave, rev, err := ledger.Load[record.Tombstone](ctx, e.ledger, record.TombstoneKey(keyOf(o)))
	if errors.Is(err, store.ErrNotFound) {
		grave, err = new(record.Tombstone), nil
	}
	if err != nil {
		return nil, err
	}
	first := grave.Generation + 1
	want := withRevision(o, &record.Resource{
		ID: e.ids.Next(now.Time()), Pipeline: o.Pipeline, Metadata: o.Metadata,
		Version: 1, Generation: first, First: first, Created: now, Updated: now,
	}, pipeline, record.Created)
	// That there is no resource is not enough: one may have come and gone meanwhile, and taken the generation.
	want.extra = append(want.extra, store.Check(record.TombstoneKey(keyOf(o)), rev))
	return want, nil
}

// withRevision is a new generation of a resource, to be reconciled along its pipeline.
func withRevision(o *Object, next *record.Resource, pipeline *record.Pipeline, cause record.Cause) *submission {
	revision := &record.Revision{
		Pipeline: next.Pipeline, Metadata: next.Metadata, Version: next.Version, At: next.Updated, Spec: o.Spec,
	}
	put := store.Put(record.RevisionKey(keyOf(o), next.Generation), record.Encode(revision)).IfAbsent()
	return &submission{
		next: next, write: true, cause: cause, spec: o.Spec, extra: []store.Op{put}, keep: pipeline.OnChange == record.Queue, along: pipeline,
	}
}

// checkPipeline makes sure that a pipeline exists and is for the resource's type, and returns its record. No name is
// fine, and has a record of its own.
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

// submit carries a submission out, from the start when somebody else was faster, and returns the run that stands for
// it and the resource's record.
func (e *Engine) submit(ctx context.Context, k record.Key, prepare func(*record.Resource) (*submission, error)) (*Run, *record.Resource, error) {
	var inTheWay store.Record
	for {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		head, rev, err := e.ledger.Resource(ctx, k)
		if err != nil {
			return nil, nil, err
		}
		want, err := prepare(head)
		if err != nil {
			if e.ledger.Stale(ctx, k, rev, err) {
				continue
			}
			return nil, nil, err
		}
		run, err := e.carryOut(ctx, k, want, rev)
		if !errors.Is(err, store.ErrConflict) && !e.ledger.Stale(ctx, k, rev, err) {
			if err == nil && want.cause == record.Updated && want.next.Generation%tidyEvery == 0 {
				e.upkeep.prune(k) // its runs may take longer than its changes
			}
			return run, want.next, err
		}
		before := inTheWay
		if inTheWay, err = e.ledger.Taken(ctx, want.extra); err != nil {
			return nil, nil, err
		}
		if inTheWay.Key != "" && inTheWay.Key == before.Key && inTheWay.Revision == before.Revision {
			// It was there all the time, and the resource's record, read in between, does not know of it. They come
			// and go together, so that to try again would be to try for ever.
			return nil, nil, record.Damaged(record.ResourceKey(k), fmt.Errorf("is older than record %s", inTheWay.Key))
		}
	}
}

func (e *Engine) carryOut(ctx context.Context, k record.Key, want *submission, rev store.Revision) (*Run, error) {
	next := want.next
	changed := want.cause == record.Updated || want.cause == record.Deleted
	queued := next.Status.Phase == plan.Queued // the newest run, which stands for the newest generation
	if want.cause != 0 && (!queued || changed && (want.keep || next.FixesGeneration())) {
		if limit := e.opts.Limits.Queue; want.cause != record.Deleted && next.Queued >= limit {
			return nil, tooLarge("queue", next.Queued+1, limit, "runs in line")
		}
		return e.newRun(k, want, rev)
	}
	// Either no run is wanted, or one is queued that will do: it takes up what is on record when it starts. It is read
	// before the commit, so that nothing that fails after it makes a call that has done its work return an error.
	newest, err := describeRun(ctx, e.ledger, next.Status.Run)
	if err != nil || !want.write {
		return newest, err
	}
	if changed {
		next.Cause = want.cause
		newest.Generation, newest.Pipeline, newest.Cause = next.Generation, next.Pipeline, Cause(next.Cause)
	}
	ops := append([]store.Op{store.Put(record.ResourceKey(k), record.Encode(next)).If(rev)}, want.extra...)
	_, err = e.ledger.Commit(ctx, ops)
	if err == nil {
		e.events.publish(Event{Time: time.Now(), Kind: EventResource, Resource: Key(k)})
	}
	if next.Pending != "" && (err == nil || errors.Is(err, store.ErrUnknown)) {
		// It may not be for it to wait any more: for the end of the run at work, which is not left to it, since that needs a
		// worker, and that run may have the last one; or for room.
		if by := run.Preempt(next); by != nil && err == nil {
			e.sched.displace(k, by)
		}
		e.sched.enqueue(e.sched.take(next.Pending, k, laneOf(next.Pipeline, k)))
	}
	if err != nil {
		return nil, err
	}
	return newest, nil
}

// newRun commits a new run along with what it is for, started if that can be.
func (e *Engine) newRun(k record.Key, want *submission, rev store.Revision) (_ *Run, err error) {
	s := e.sched
	next := want.next
	now := time.Now()
	id := e.ids.Next(now)
	rec := record.Run{
		Type: k.Type, Name: k.Name, ResourceID: next.ID, Cause: want.cause, State: plan.Queued,
		Generation: next.Generation, Pipeline: next.Pipeline, Created: record.TimeOf(now),
		Of: want.of.Of, From: want.of.From, Newest: want.of.Newest,
	}
	want.extra = append(want.extra, next.EnqueuePending(k, id, &rec, want.keep)...)
	want.extra = append(want.extra, next.CancelResync(k)...)
	next.Status.Phase, next.Status.Run, next.Status.Message = plan.Queued, id, ""

	// The journey is known before the commit, so that whoever sees the run on record finds it. It is busy until this
	// call is done with it.
	lane := laneOf(next.Pipeline, k)
	j := s.take(id, k, lane)
	j.mu.Lock()
	j.busy, j.strewn = true, 0
	j.log, j.outputs = runlog.New(id, 0), map[string]json.RawMessage{}
	j.mu.Unlock()
	j.held.Run = &record.RunState{ID: id, Rec: rec}
	spare := next.Active == "" && next.Pending == id && s.pool.Reserve()
	d := s.newDecision(j, nil, spare)
	d.t, err = run.New(&j.held, &run.Wanted{
		Head: next, Rev: rev, Pipeline: want.along, Spec: want.spec, Extra: want.extra, Start: spare,
	}, &d.in, s.view, &d.host, s.limits)
	if err == nil {
		err = s.commit(d)
	}
	var first *attempt
	var made *Run
	if err == nil {
		made = runOf(j.held.Run, nil)
		*want.next = *d.t.Head()
		if want.write {
			s.events.publish(Event{Time: now, Kind: EventResource, Resource: Key(k)})
		}
		if !d.t.Begun() {
			s.events.publish(runEvent(j, d.t.Rec()))
		}
		first = s.adopt(d)
	} else {
		d.host.Release()
		s.forget(j)
		j.unload() // or else what has woken it meanwhile would take it for a run
	}
	spare = d.host.spare
	d.recycle()
	if first != nil {
		s.employ(first)
	}
	if spare {
		s.pool.Release() // nothing took the place
	}
	s.leave(j)
	if err == nil && want.next.Deleted != 0 && want.next.Pending != "" && want.next.Pending != id {
		s.enqueue(s.take(want.next.Pending, k, lane)) // it is not to begin any more
	}
	if errors.Is(err, store.ErrUnknown) {
		s.enqueue(s.take(id, k, lane)) // it may be on record
	}
	return made, err
}

// leave ends the time in which the journey was busy with its own creation, and does what came up meanwhile.
func (s *scheduler) leave(j *journey) {
	j.mu.Lock()
	j.busy = false
	again := len(j.inbox) > 0
	j.mu.Unlock()
	if !again || s.beside(func() { s.drive(j, message{}, false) }) {
		return
	}
	j.mu.Lock()
	inbox := j.inbox
	j.inbox = nil
	j.mu.Unlock()
	s.answer(inbox, ErrClosed) // or else who wants it canceled would wait for ever
}
