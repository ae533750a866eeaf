package conveyor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// definition is what is recorded of a pipeline: its document, and the rule by which the After of its steps orders them.
type definition struct {
	Rule plan.Rule `json:"rule,omitempty"`
	PipelineSpec
}

// ruleMark is the number of bytes by which a definition is longer than its document.
const ruleMark = len(`"rule":1,`)

// SavePipeline creates or replaces the pipeline that p specifies. Runs that have begun keep the steps they began
// with. Later runs use the new definition. Saving an unchanged definition changes nothing.
//
// If p is a [Planner], the engine keeps p and calls its Plan method for every run that is planned from now on.
//
// SavePipeline returns an [ErrInvalid] or [ErrTooLarge] that lists every fault, [ErrClosed] after Shutdown, or an error
// of the store. Records with a newer format than this program knows are a [store.ErrCorrupt]. The drivers need not be
// registered yet.
func (e *Engine) SavePipeline(ctx context.Context, p Pipeline) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	if isNilPointer(p) {
		return invalid("", "pipeline is nil")
	}
	by, err := actorOf(ctx)
	if err != nil {
		return err
	}
	spec := p.Spec().normalized()
	plans, planned := p.(Planner)
	if err := fieldErrors(spec.validate(e.opts.Limits, planned)); err != nil {
		return fmt.Errorf("pipeline %s: %w", text.Quote(spec.Name), err)
	}
	if err := e.checkFormat(ctx); err != nil {
		return fmt.Errorf("save pipeline %s: %w", spec.Name, err)
	}
	doc := record.Encode(definition{plan.PresentRule, spec})
	hash := ledger.DefinitionHash(doc)
	for {
		old, rev, err := e.ledger.Pipeline(ctx, spec.Name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("save pipeline %s: %w", spec.Name, err)
		}
		if old != nil && old.Hash == hash {
			// The save that wrote this definition may have returned early, because its outcome was unknown.
			e.sched.pool.LimitRuns(spec.Name, spec.MaxRuns, int64(rev), false)
			e.sched.drivers.registerPlanner(spec.Name, plans)
			return nil
		}
		now := clock.Now()
		head := record.Pipeline{
			Hash: hash, Resource: spec.Resource, OnChange: record.ChangePolicy(spec.OnChange), Resync: document.Duration(spec.Resync), MaxRuns: spec.MaxRuns,
			Planned: planned, Saved: record.TimeOf(now),
		}
		rev, err = e.ledger.Commit(ctx, []store.Op{
			store.Put(record.PipelineKey(spec.Name), record.Encode(head)).If(rev),
			// The hash is that of the definition. A record under this key therefore always has the same content, and a
			// second write changes nothing.
			store.Put(record.DefinitionKey(spec.Name, hash), doc),
		})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("save pipeline %s: %w", spec.Name, err)
		}
		e.sched.pool.LimitRuns(spec.Name, spec.MaxRuns, int64(rev), false)
		e.sched.drivers.registerPlanner(spec.Name, plans)
		e.sched.pauses.recheck()
		e.events.publish(Event{Time: now, Kind: EventPipeline, Pipeline: spec.Name, By: by})
		return nil
	}
}

// GetPipeline returns the current definition of a pipeline, or [ErrNotFound]. The caller owns the definition. If it was
// saved under an older rule of order, its steps have the After by which they mean the same now (see [Step].After).
func (e *Engine) GetPipeline(ctx context.Context, name string) (PipelineSpec, error) {
	if text.NameFault(name) != "" {
		return PipelineSpec{}, fmt.Errorf("%w: pipeline %s", ErrNotFound, text.Quote(name))
	}
	head, _, err := e.ledger.Pipeline(ctx, name)
	if err != nil {
		return PipelineSpec{}, err
	}
	r, err := e.ledger.Document(ctx, name, head.Hash)
	if err != nil {
		return PipelineSpec{}, err
	}
	var d definition
	if err := record.Decode(r, &d); err != nil {
		return PipelineSpec{}, fmt.Errorf("definition of pipeline %s: %w", name, err)
	}
	d.Steps = fromSteps((&plan.Plan{Rule: d.Rule, Steps: toSteps(d.Steps)}).Ready().Steps) // written by the present rule
	return d.PipelineSpec, nil
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
				continue // the pipeline was deleted in the meantime
			}
			if !yield(spec, err) || err != nil {
				return
			}
		}
	}
}

// DeletePipeline removes a pipeline, or returns [ErrNotFound]. Runs that have begun continue with the steps they
// began with. A run of the pipeline that is still queued fails, unless it repeats an earlier run with the steps that the
// earlier run had pinned (see [Engine.Retry]); such a run can also be made later. A later Apply that names the pipeline
// fails. A resource that names it can be deleted.
func (e *Engine) DeletePipeline(ctx context.Context, name string) error {
	if err := e.sched.accepting(); err != nil {
		return err
	}
	if text.NameFault(name) != "" {
		return fmt.Errorf("%w: pipeline %s", ErrNotFound, text.Quote(name))
	}
	by, err := actorOf(ctx)
	if err != nil {
		return err
	}
	for {
		_, rev, err := e.ledger.Pipeline(ctx, name)
		if err != nil {
			return err
		}
		// The definitions stay in the store for the runs that have pinned them.
		rev, err = e.ledger.Commit(ctx, []store.Op{store.Delete(record.PipelineKey(name)).If(rev)})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil {
			e.sched.pool.LimitRuns(name, 0, int64(rev), true)
			e.sched.pauses.recheck()
			e.events.publish(Event{Time: clock.Now(), Kind: EventPipeline, Pipeline: name, By: by, Reason: "deleted"})
		}
		return err
	}
}
