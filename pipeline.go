package conveyor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/internal/chart"
	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// Pipeline is anything that can define the steps of a pipeline. [PipelineSpec] is the ready-made implementation.
type Pipeline interface {
	// Spec returns the definition. [Engine.SavePipeline] calls it once and keeps a copy. The Spec of a pipeline that
	// is also a [Planner] must have no Steps.
	Spec() PipelineSpec
}

// PipelineSpec is the JSON document of a pipeline. It is itself a [Pipeline].
type PipelineSpec struct {
	Name        string `json:"name"`
	Resource    string `json:"resource"` // the type of the resources that the pipeline reconciles
	Description string `json:"description,omitempty"`
	// Version is the author's own label. The engine keeps it unchanged.
	Version string `json:"version,omitempty"`
	// Steps are a list: each step starts after the steps before it have succeeded. If a step has an After, the steps are
	// a graph, and steps can run at the same time (see [Step].After). A pipeline has at least 1 step. Steps and Finally
	// together have at most [Limits].Steps.
	Steps []Step `json:"steps"`
	// Finally steps are run in this order when Steps have ended, whether these succeeded, failed, timed out or were
	// canceled (see [Request].Outcome). All Finally steps are run, even if one of them fails. If Steps had succeeded
	// and a Finally step fails, the run fails. If the run is canceled while Finally steps run, or their time is over
	// (see Timeout), these steps are ended too. If Steps had succeeded, the run is then canceled, or fails because of
	// the timeout.
	//
	// What Finally removes is gone for an [Engine.Retry] of the run too. The retry keeps the outputs of the steps that
	// were done, even if they point to what was removed, unless it begins with the step that makes it (see
	// [RetryFrom].Step).
	Finally []Step `json:"finally,omitempty"`
	// OnChange is the policy for a change that comes during a run. Unset means [Coalesce]: when the run has ended,
	// the resource is reconciled once more, with the newest generation. [Supersede] does not wait for the end of the
	// run: the running attempts are canceled first, with the cause [ErrSuperseded], and the Finally steps are run.
	// [Queue] gives each generation a run of its own, one after the other.
	OnChange ChangePolicy `json:"onChange,omitzero"`
	// MaxRuns is the maximum number of active runs of the pipeline. 0 means no limit. A run is active from its first
	// step to its end, also while it waits or is blocked. A deletion counts as a run. All other runs stay queued, and
	// they begin roughly in the order in which they came: a run whose turn it is keeps its turn while it waits for a
	// worker or for a slot of the driver of its first step. Until it begins, it takes up newer generations. A driver
	// that blocks until another run of the same pipeline has ended can deadlock: that run may be queued behind it.
	MaxRuns int `json:"maxRuns,omitempty"`
	// Timeout limits the time of all Steps of a run together, waits included. The Finally steps together then get the
	// same time again. Their time counts only while one of them is called, or waits for a retry, a requeue or a signal
	// of its own. It stands still while they wait for a worker, a slot, a driver or the next start of the process. The
	// run of a deletion has no such limit. 0 means no limit.
	//
	// It makes no difference if the clock of the machine is set while the process runs. The time between the end of a
	// process and the start of the next one is measured with that clock, and counts for the Steps.
	Timeout Duration `json:"timeout,omitzero"`
	// Resync is the time between a successful run of a resource and the next run of it, which has the cause resync
	// and corrects what has drifted. 0 means never. The time counts from the end of the successful run, and it
	// survives a restart: a run that became due in the meantime starts at once. A time of less than 10ms counts as 10ms.
	// If another run comes first, the planned run is dropped.
	//
	// Only a success plans the next run. After a run that failed or was canceled, an Apply or a Trigger must start
	// the next one. If Resync is removed from a pipeline, or the pipeline is deleted, none of its resources is run
	// again. If a pipeline gets a Resync, it applies to each resource from its next run on.
	Resync Duration `json:"resync,omitzero"`
	// Retry is the retry policy of the steps. Each field applies where a step leaves the same field unset.
	Retry    *RetryPolicy      `json:"retry,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Step is one step of a pipeline.
type Step struct {
	// ID is unique in the pipeline. The progress of a run is recorded under this id. Empty means the position of the
	// step: "1", "2", and so on. In the Finally of a pipeline whose steps are planned (see [Planner]), empty means
	// "finally-1", "finally-2", and so on.
	ID string `json:"id"`
	// Name is for people.
	Name string `json:"name,omitempty"`
	// Driver is the name of the driver that carries out the step. One driver can serve several steps.
	Driver string `json:"driver"`
	// After lists the ids of the steps that must come before this step. A step without After comes after all the steps
	// that are listed before it. A step with After comes after the steps that it names and after no others. If it names
	// none, it starts at once: an empty After that is not nil ("after": [] in a document, [AtOnce] in Go) is not the same
	// as no After. In a pipeline whose steps are planned (see [Planner]), such a step starts after the [PlanStep].
	//
	// A step comes after another one if it can start only when the other one has succeeded or was skipped, or has failed
	// with ContinueOnError. Steps of Finally have no After.
	After []string `json:"after,omitzero"`
	// With is any JSON: the settings for this use of the driver (see [Request.Settings]).
	With  json.RawMessage `json:"with,omitempty"`
	Retry *RetryPolicy    `json:"retry,omitempty"`
	// Timeout limits one attempt. 0 means the timeout of the driver (see [Timeout]) or, if it has none,
	// [Options].StepTimeout.
	Timeout Duration `json:"timeout,omitzero"`
	// ContinueOnError tolerates a failure of this step: the steps after it still start, and the run can still
	// succeed.
	ContinueOnError bool `json:"continueOnError,omitempty"`
}

// AtOnce returns an empty list, which is not nil. As the After of a step it means that the step starts at once, and not
// after the steps that are listed before it.
func AtOnce() []string { return []string{} }

// ChangePolicy defines what happens when a resource changes during its run.
type ChangePolicy uint8

const (
	// Coalesce lets the run end. Then the newest generation is reconciled, once.
	Coalesce ChangePolicy = iota + 1
	// Supersede cancels the run first. Then the newest generation is reconciled.
	Supersede
	// Queue reconciles every generation in a run of its own, one after the other, in order. A run that fails does not
	// hold up the runs behind it. At most [Limits].Queue runs of a resource can wait to begin; Apply returns
	// [ErrTooLarge] beyond this limit. If the policy of a pipeline changes from Queue to another one, the runs that
	// are queued already keep their generations. So do the changes that are applied before all of these runs have
	// started.
	Queue
)

// String returns the name that documents use, and "unset" for the zero value.
func (c ChangePolicy) String() string { return record.ChangePolicy(c).String() }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (c ChangePolicy) MarshalText() ([]byte, error) { return record.ChangePolicy(c).MarshalText() }

// UnmarshalText accepts exactly what MarshalText returns.
func (c *ChangePolicy) UnmarshalText(b []byte) error {
	return (*record.ChangePolicy)(c).UnmarshalText(b)
}

// Duration is a [time.Duration] that documents write as text, such as "1m30s" (see [time.ParseDuration]).
type Duration time.Duration

// String returns the same text as [time.Duration].
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns a text that UnmarshalText accepts.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts what [time.ParseDuration] accepts.
func (d *Duration) UnmarshalText(text []byte) error {
	return (*document.Duration)(d).UnmarshalText(text)
}

// Mermaid writes the pipeline as a Mermaid flowchart, which GitHub and many editors can draw. Each step is a box. An
// arrow leads to each step from the steps that must come before it, except from those that come before another one of
// them: the picture is the transitive reduction of the order. Mermaid draws the definition as it is, even if it is not
// valid. It returns the error of w.
func (s PipelineSpec) Mermaid(w io.Writer) error {
	return chart.Write(w, toPlan(s.normalized()), nil)
}

// Planner is an optional interface of a [Pipeline]. It computes the steps for each resource, for instance for a
// fan-out or a matrix.
//
// Such a pipeline has no Steps. Every program that plans runs of the pipeline must pass it to [Engine.SavePipeline]
// at each start, because a Planner is code and is not recorded. If the Planner is missing, a run of the pipeline is
// blocked until the pipeline is saved with one. The definition that [Engine.GetPipeline] returns has no steps and
// cannot be saved as it is.
type Planner interface {
	// Plan returns the steps of a run of res. The steps are pinned in the run as if they were in the definition: they
	// are a list or a graph, and a step without an id gets its position as its id. All of them come after [PlanStep]. If Plan returns no steps, the run
	// succeeds. The engine copies the steps. Plan owns res.
	//
	// A run calls Plan in a step of its own. This step is the first one, and its id is [PlanStep]. The rules of
	// [Driver.Reconcile] apply: an error is retried as the retry policy of the pipeline specifies, a panic counts as
	// an error, and ctx ends with the time of the attempt or when the run is canceled. After a crash, Plan is called
	// again unless its result is recorded. If the steps are not valid in the sense of [PipelineSpec.Validate], the
	// run fails. A deletion does not call Plan: it finalizes the steps that the newest run had, in the reverse order. Plan
	// is called concurrently for different resources.
	Plan(ctx context.Context, res *Object) ([]Step, error)
}

// PlanStep is the id of the step in which a [Planner] is called. No step of a program can have this id.
const PlanStep = ".plan"

// Spec returns s.
func (s PipelineSpec) Spec() PipelineSpec { return s }

// ParsePipeline reads one pipeline document. It is strict: an unknown field, a repeated field, a field name with the
// wrong case, trailing data, anything over the default [Limits], and everything that [PipelineSpec.Validate] rejects
// is an error that contains the position. All faults are reported at once. Of a text that is not JSON, only the first
// fault is reported. ParsePipeline returns an [ErrInvalid] or [ErrTooLarge], or the error of r. A step without an id
// gets its position as its id.
func ParsePipeline(r io.Reader) (PipelineSpec, error) {
	limits := standardLimits()
	var s PipelineSpec
	err := readDocument(r, &s, limits, func() []fault.Field {
		s = s.normalized()
		return s.validate(limits, false)
	})
	if err != nil {
		return PipelineSpec{}, err
	}
	return s, nil
}

// Validate returns all faults at once, joined. Each fault is a [FieldError]. Validate uses the default [Limits].
func (s PipelineSpec) Validate() error {
	return fieldErrors(s.normalized().validate(standardLimits(), false))
}

// normalized returns a copy of s that shares nothing with s. Steps without an id have their position as their id.
func (s PipelineSpec) normalized() PipelineSpec {
	s.Steps = cloneSteps(s.Steps)
	s.Finally = cloneSteps(s.Finally)
	s.Metadata = maps.Clone(s.Metadata)
	s.Retry = plan.ClonePtr(s.Retry)
	giveIDs(s.Steps, 0)
	if len(s.Steps) == 0 {
		for i := range s.Finally { // a Planner will plan the steps, and these get the positions
			if s.Finally[i].ID == "" {
				s.Finally[i].ID = "finally-" + strconv.Itoa(i+1)
			}
		}
	}
	giveIDs(s.Finally, len(s.Steps))
	return s
}

// giveIDs gives each step without an id its position as its id. before is the number of steps that come before steps.
func giveIDs(steps []Step, before int) {
	for i := range steps {
		if steps[i].ID == "" {
			steps[i].ID = strconv.Itoa(before + i + 1)
		}
	}
}

func cloneSteps(steps []Step) []Step {
	steps = slices.Clone(steps)
	for i := range steps {
		steps[i] = steps[i].clone()
	}
	return steps
}

func (s Step) clone() Step {
	s.After = slices.Clone(s.After)
	s.With = bytes.Clone(s.With)
	s.Retry = plan.ClonePtr(s.Retry)
	return s
}

// validate returns all faults of a normalized definition. planned reports whether a Planner plans the steps.
func (s PipelineSpec) validate(limits Limits, planned bool) []fault.Field {
	var f fault.Fields
	f.Name("name", s.Name)
	f.Name("resource", s.Resource)
	f.Text("description", s.Description)
	f.Text("version", s.Version)
	f.Labels("metadata", s.Metadata)
	switch n := len(s.Steps); {
	case planned && n > 0:
		f.Add(fault.Invalidf("steps", "has %d; the steps of a pipeline with a Planner are those that Plan returns", n))
	case !planned && n == 0:
		f.Add(fault.Invalidf("steps", "has none; a pipeline needs at least one"))
	}
	validateStepLists(s.Steps, s.Finally, &f, limits)
	if s.Timeout < 0 {
		f.Add(fault.Invalidf("timeout", "%s is negative", s.Timeout))
	}
	if s.Resync < 0 {
		f.Add(fault.Invalidf("resync", "%s is negative", s.Resync))
	}
	if s.MaxRuns < 0 {
		f.Add(fault.Invalidf("maxRuns", "%d is negative", s.MaxRuns))
	}
	if s.OnChange > Queue {
		f.Add(fault.Invalidf("onChange", "%d is no change policy", s.OnChange))
	}
	if s.Retry != nil {
		validateRetry(*s.Retry, "retry", &f)
	}
	if doc, err := document.Marshal(s); err != nil {
		if !f.Any() { // a fault that was found before is most likely the reason
			f.Add(fault.Invalidf("", "cannot be written as JSON: %v", err))
		}
	} else if len(doc) > limits.Document {
		f.Add(fault.Larger("", len(doc), limits.Document, "bytes as a document", "Limits.Document"))
	} else if most := maxBytesLimit - ruleMark; len(doc) > most { // it is recorded with the rule
		f.Add(fault.Larger("", len(doc), most, "bytes as a document", text.FixedLimit))
	}
	return f.List()
}

// validateStepLists adds the faults of all steps of a pipeline to f.
func validateStepLists(steps, finally []Step, f *fault.Fields, limits Limits) {
	if n := len(steps) + len(finally); n > limits.Steps {
		f.Add(fault.Larger("steps", n, limits.Steps, "steps", "Limits.Steps"))
	}
	positions := map[string]string{}
	validateSteps("steps", steps, positions, f, limits)
	validateSteps("finally", finally, positions, f, limits)
	plan.CheckGraph(toSteps(steps), f)
	for i, step := range finally {
		if step.After != nil {
			f.Add(fault.Invalidf(fmt.Sprintf("finally[%d].after", i), "has no meaning here; these steps run in order"))
		}
	}
}

// validateSteps adds the faults of each step of a list to f. Ids must be unique in the whole pipeline: positions maps
// each id to the field of its step.
func validateSteps(list string, steps []Step, positions map[string]string, f *fault.Fields, limits Limits) {
	for i, step := range steps[:min(len(steps), limits.Steps)] {
		field := fmt.Sprintf("%s[%d]", list, i)
		validateStep(step, field, f, limits)
		if first, taken := positions[step.ID]; taken {
			f.Add(fault.Invalidf(field+".id", "%s is the id of %s too", text.Quote(step.ID), first))
		} else {
			positions[step.ID] = field
		}
	}
}

func validateStep(s Step, field string, f *fault.Fields, limits Limits) {
	f.Name(field+".id", s.ID)
	f.Text(field+".name", s.Name)
	f.Name(field+".driver", s.Driver)
	if s.Timeout < 0 {
		f.Add(fault.Invalidf(field+".timeout", "%s is negative", s.Timeout))
	}
	if s.Retry != nil {
		validateRetry(*s.Retry, field+".retry", f)
	}
	if len(s.With) > 0 {
		f.Add(document.Check(field+".with", s.With, limits.document(), 3)...)
	}
}

// plannedBy returns p with the steps that its Planner has returned. They come after the step in which the Planner was
// called.
func plannedBy(p *plan.Plan, steps []Step, limits Limits) (*plan.Plan, error) {
	steps = cloneSteps(steps)
	giveIDs(steps, 0)
	var f fault.Fields
	validateStepLists(steps, fromSteps(p.Finally), &f, limits)
	if err := fieldErrors(f.List()); err != nil {
		return nil, Permanent(fmt.Errorf("plan: %w", err))
	}
	rest := (&plan.Plan{Rule: plan.PresentRule, Steps: toSteps(steps)}).Ready()
	if p.Finalize {
		rest = rest.Backwards(nil)
	}
	whole := *p
	whole.Rule = plan.PresentRule // p may be pinned under an older rule, but the Planner is of this program
	whole.Steps = append([]plan.Step{p.Steps[0]}, rest.Steps...)
	if doc, err := document.Marshal(&whole); err != nil {
		return nil, Permanent(fmt.Errorf("plan: %w: cannot be written as JSON: %w", ErrInvalid, foreign(err)))
	} else if len(doc) > limits.Document {
		return nil, Permanent(fmt.Errorf("plan: %w", tooLarge("steps", len(doc), limits.Document, "bytes as a document", "Limits.Document")))
	}
	return whole.Ready(), nil
}

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

// pipelineChanged gives the runs their turn that wait here to begin, and whose pipeline another engine has saved or deleted.
func (c claimer) pipelineChanged(key string) error {
	s := c.sched
	name := strings.TrimPrefix(key, record.PipelinePrefix)
	if key == "" {
		return nil
	}
	rec, rev, err := s.ledger.Pipeline(c.ctx, name)
	if errors.Is(err, ErrNotFound) {
		// The revision is asked for before the record is read again. Otherwise it could be that of a later record.
		if rev, err = s.ledger.Commit(c.ctx, nil); err != nil {
			return err
		}
		asOf := rev
		if rec, rev, err = s.ledger.Pipeline(c.ctx, name); errors.Is(err, ErrNotFound) {
			rev = asOf
		}
	}
	switch {
	case errors.Is(err, ErrNotFound):
		s.pool.LimitRuns(name, 0, int64(rev), true)
	case err == nil:
		s.pool.LimitRuns(name, rec.MaxRuns, int64(rev), false)
	case !ledger.Permanent(err):
		return err
	}
	s.pool.RecheckLane(name)
	s.pauses.recheck()
	c.look()
	return nil
}
