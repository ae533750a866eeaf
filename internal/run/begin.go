package run

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// begin pins what a queued run will do, or ends a run that cannot begin. It returns false if the run stays queued. A run
// that stays queued because another run of the resource is active gets its turn when the active run ends.
func (t *Transition) begin() (proceed bool, err error) {
	if err := t.readResource(); err != nil {
		return false, err
	}
	head := t.head
	if head != nil {
		if err := record.Rewritable(head.Needs); err != nil {
			return false, err
		}
	}
	known := head != nil && head.ID == t.rec.ResourceID
	if known && head.Pending != t.run.ID {
		waits, err := t.reader.IsPending(t.run.ID, &t.rec)
		if err != nil || waits {
			t.head = nil
			return false, err
		}
		known = false
	}
	switch {
	case !known:
		return true, t.finishWith(plan.Failed, "the resource no longer has this run")
	case head.Active != "":
		t.preempt = Preempt(head)
		t.head = nil // the record of the resource does not change
		return false, nil
	case head.Deleted != 0 && head.Cause != record.Deleted:
		return true, t.finishWith(plan.Canceled, toBeDeleted)
	case t.hasStray:
		t.head = nil
		return false, nil
	}
	w, err := t.reader.Target(t.key, head)
	if err != nil {
		return false, err
	}
	if t.holdsBegin(w.Pipeline) {
		t.head = nil
		return false, nil
	}
	if entered, err := t.enterPipeline(w.Pipeline); err != nil || !entered {
		t.head = nil
		return false, err
	}
	return true, t.pin(w)
}

// holdsBegin reports whether a pause keeps the run from beginning. Until it begins, the run takes up newer generations and
// definitions. A deletion is not held.
func (t *Transition) holdsBegin(pipeline string) bool {
	if t.head.Cause != record.Deleted {
		t.paused = t.host.Paused(pipeline, "")
	}
	return t.paused != ""
}

// enterPipeline asks the host for a place among the active runs of a pipeline, and reads the record of the pipeline. A
// run without a pipeline needs no place. If there is no place, the host gives the run its turn when there may be one.
func (t *Transition) enterPipeline(name string) (entered bool, err error) {
	if name == "" {
		return true, nil
	}
	entered, t.pipeline, err = t.host.Enter(name, t.pipeline)
	if err != nil || !entered || t.member == nil || t.pipeline == nil || t.pipeline.MaxRuns == 0 {
		return entered, err
	}
	return t.takeSlot(name, int64(t.pipeline.MaxRuns))
}

// takeSlot takes one of the places among the active runs of a pipeline, which hold over all engines on the store. Runs look for a
// free place at different ones first, so that those that begin at the same time seldom want the same.
func (t *Transition) takeSlot(pipeline string, limit int64) (taken bool, err error) {
	used, err := t.reader.Slots(pipeline)
	if err != nil {
		return false, err
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(t.run.ID))
	for i, first := int64(0), int64(h.Sum32()); i < limit; i++ {
		slot := (first+i)%limit + 1
		if used[slot] {
			continue
		}
		t.rec.Slot = slot
		t.extra = append(t.extra, store.Put(record.SlotKey(pipeline, slot), []byte(t.run.ID)).IfAbsent())
		return true, nil
	}
	return false, nil
}

// leaveSlot gives the place up that the run has among the active runs of its pipeline.
func (t *Transition) leaveSlot() {
	if t.rec.Slot == 0 {
		return
	}
	key := record.SlotKey(t.rec.Pipeline, t.rec.Slot)
	if t.rec.Slot = 0; !t.begun {
		t.extra = append(t.extra, store.Delete(key))
		return
	}
	t.extra = slices.DeleteFunc(t.extra, func(op store.Op) bool { return op.Key() == key }) // it was taken in this transition
}

// readResource copies the record of the resource of the run into the transition. The copy is nil if there is no such
// record.
func (t *Transition) readResource() error {
	if t.head != nil {
		return nil
	}
	s := t.state
	if s.Rev == 0 {
		head, rev, err := t.reader.Resource(t.key)
		if err != nil {
			return err
		}
		s.Head, s.Rev = head, rev
	}
	if s.Head != nil {
		c := *s.Head
		t.head, t.rev = &c, s.Rev
	}
	return nil
}

// pin begins the run on a target: the generation and the pipeline of the resource that the run takes up.
func (t *Transition) pin(w *record.Target) error {
	head := t.head
	t.begun, t.rewrite = true, true
	t.rec.State, t.rec.Started, t.rec.Cause = plan.Running, t.now, head.Cause
	t.rec.Generation, t.rec.Pipeline = w.Generation, w.Pipeline
	t.rec.Metadata, t.rec.Version, t.rec.MadeAt, t.rec.UpdatedAt, t.rec.UpdatedBy = w.Metadata, w.Version, head.Created, w.Updated, w.UpdatedBy
	t.takeOrigin()
	if err := t.promoteNext(); err != nil {
		return err
	}
	head.Active = t.run.ID
	if head.Status.Run == t.run.ID {
		head.Status.Phase, head.Status.Message = plan.Running, ""
	}
	t.rec.DeletedAt = head.Deleted
	t.spec = w.Spec
	if t.rec.Of != "" && t.rec.Cause == record.Retried {
		return t.pinRetry()
	}
	// A change was applied, or the resource deleted, before a retry began. The run repeats nothing.
	t.rec.Of, t.rec.From, t.rec.Newest = "", "", false
	if t.rec.Cause == record.Deleted {
		return t.pinFinalizers()
	}
	return t.pinCurrent()
}

// takeOrigin makes the origin of the newest change the origin of the run, if the run takes up a change that came after it.
func (t *Transition) takeOrigin() {
	if change := t.head.Change; change != nil {
		t.rec.Origin = *change
	}
}

// pinCurrent pins the steps as they are defined now.
func (t *Transition) pinCurrent() error {
	name := t.rec.Pipeline
	if name == "" {
		return t.pinListeners()
	}
	switch {
	case t.pipeline == nil:
		return t.finishWith(plan.Failed, fmt.Sprintf("pipeline %q was deleted", name))
	case t.pipeline.Resource != t.key.Type:
		return t.finishWith(plan.Failed, fmt.Sprintf("pipeline %q is now for resources of type %q", name, t.pipeline.Resource))
	}
	if err := t.pinDefinition(); err != nil || t.over {
		return err
	}
	if t.plan.Timeout > 0 {
		t.rec.Deadline = t.now.Add(time.Duration(t.plan.Timeout))
	}
	t.blankStates(t.plan.Len())
	return nil
}

// pinDefinition pins the steps that the definition of the pipeline lists. If the pipeline has a Planner, pinDefinition
// pins the step that plans the others.
func (t *Transition) pinDefinition() (err error) {
	if !t.pipeline.Planned {
		t.rec.Hash = t.pipeline.Hash
		t.plan, err = t.reader.Plan(t.run.ID, &t.rec)
		return err
	}
	p, err := t.reader.Definition(t.rec.Pipeline, t.pipeline.Hash)
	if err != nil {
		return err
	}
	return t.pinPlan(p.Unplanned(t.rec.Pipeline))
}

// pinPlan pins a plan that is not the plan of a definition, and writes the plan. If no store could hold the plan, because
// very many drivers listen to the type of the resource, pinPlan ends the run.
func (t *Transition) pinPlan(p *plan.Plan) error {
	doc := record.Encode(p)
	most := store.MaxValue
	if t.limits.Plan > 0 {
		most = t.limits.Plan
	}
	if len(doc) > most {
		return t.finishWith(plan.Failed, fmt.Sprintf("the %d steps of the run have %d bytes as a record, %s", p.Len(), len(doc), text.MoreThan(most, text.FixedLimit)))
	}
	t.plan, t.rec.Hash = p, ""
	t.extra = append(t.extra, store.Put(record.PlanKey(t.run.ID), doc))
	return nil
}

// pinListeners pins a step for each driver that listens to the type of the resource.
func (t *Transition) pinListeners() error {
	names, err := t.host.Listeners(t.key.Type)
	if err != nil {
		return err
	}
	limit := t.limits.Steps
	switch {
	case len(names) == 0:
		t.extra = append(t.extra, store.Put(record.UnlistenedKey(t.key), []byte("{}")))
		return t.finishWith(plan.Skipped, fmt.Sprintf("no driver listens to resources of type %q, and the resource names no pipeline: its Meta.Pipeline is empty", t.key.Type))
	case len(names) > limit:
		return t.finishWith(plan.Failed, fmt.Sprintf("%d drivers listen to resources of type %q, %s",
			len(names), t.key.Type, text.MoreThan(limit, "Limits.Steps")))
	}
	if err := t.pinPlan(plan.Listeners(names)); err != nil || t.over {
		return err
	}
	t.extra = append(t.extra, store.Delete(record.UnlistenedKey(t.key)))
	t.blankStates(t.plan.Len())
	return nil
}

// pinFinalizers pins the steps of a deletion. These are the steps that the newest run of the resource has pinned, in
// reverse order, without those for which no driver was ever called. A driver without Finalize is passed over when its step
// is to start.
func (t *Transition) pinFinalizers() error {
	work, err := t.reader.Work(t.key, t.rec.ResourceID)
	if err != nil {
		return err
	}
	done := work.Plan
	if done == nil {
		done = new(plan.Plan)
	}
	if err := t.pinPlan(done.Backwards(work.Called)); err != nil || t.over {
		return err
	}
	t.blankStates(t.plan.Len())
	return nil
}

// addPlannedSteps pins the steps that the Planner of the pipeline has returned.
func (t *Transition) addPlannedSteps(p *plan.Plan) error {
	var old *record.RunState // the run whose steps are kept if the new plan has them
	if t.rec.Of != "" && t.rec.Newest {
		var err error
		old, err = t.reader.Run(t.rec.Of)
		gone := t.placeGone(p)
		if errors.Is(err, fault.NotFound) {
			gone = originalGone(t.rec.Of)
		} else if err != nil {
			return err
		}
		if gone != "" {
			rec := t.step(0)
			rec.State, rec.Reason, rec.Failure = plan.Failed, gone, record.Failure{Class: fault.ClassError}
			t.states[0] = plan.Failed
			return nil
		}
	}
	t.plan, t.extended = p, true
	t.extra = append(t.extra, store.Put(record.PlanKey(t.run.ID), record.Encode(p)))
	done := t.states[0]
	t.blankStates(p.Len())
	t.states[0] = done
	if old != nil {
		t.keep(old)
	}
	return nil
}
