package conveyor

import (
	"errors"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// begin pins what the run will do. It says no when the resource has another run at work; that one's end wakes this.
func (d *draft) begin() (proceed bool, err error) {
	if err := d.readHead(); err != nil {
		return false, err
	}
	head := d.head
	known := head != nil && head.ID == d.rec.ResourceID
	if known && head.Pending != d.j.ID {
		waits, err := d.s.ledger.IsPending(d.s.base, &d.rec)
		if err != nil || waits {
			d.head = nil
			return false, err
		}
		known = false
	}
	switch {
	case !known:
		return true, d.finishWith(plan.Failed, "the resource no longer has this run")
	case head.Active != "":
		d.displace = displacementOf(head)
		d.head = nil // it stays as it is
		return false, nil
	case head.Deleted != 0 && head.Cause != record.Deleted:
		return true, d.finishWith(plan.Canceled, toBeDeleted)
	}
	w, err := d.s.ledger.Target(d.s.base, d.j.Key, head)
	if err != nil {
		return false, err
	}
	if entered, err := d.enter(w.Pipeline); err != nil || !entered {
		d.head = nil
		return false, err
	}
	return true, d.pin(w)
}

// enter finds out whether there is room for another run of the pipeline, if the run has one. If there is not, the run is
// woken when there may be.
func (d *draft) enter(name string) (entered bool, err error) {
	if name == "" {
		return true, nil
	}
	entered, d.pipeline, err = d.grants.enter(name, d.pipeline)
	return entered, err
}

// toBeDeleted is why a run ends when its resource is to be deleted.
const toBeDeleted = "the resource is to be deleted"

// readHead copies the record of the run's resource into the draft; it is nil if there is none.
func (d *draft) readHead() error {
	if d.head != nil {
		return nil
	}
	j := d.j
	if j.rev == 0 {
		head, rev, err := d.s.ledger.Resource(d.s.base, j.Key)
		if err != nil {
			return err
		}
		j.head, j.rev = head, rev
	}
	if j.head != nil {
		c := *j.head
		d.head, d.rev = &c, j.rev
	}
	return nil
}

// pin starts the run on what it takes up of the resource.
func (d *draft) pin(w *record.Target) error {
	head := d.head
	d.begun, d.rewrite = true, true
	d.rec.State, d.rec.Started, d.rec.Cause = plan.Running, d.now, head.Cause
	d.rec.Generation, d.rec.Pipeline = w.Generation, w.Pipeline
	d.rec.Metadata, d.rec.Version, d.rec.MadeAt, d.rec.UpdatedAt = w.Metadata, w.Version, head.Created, w.Updated
	if err := d.moveUp(); err != nil {
		return err
	}
	head.Active = d.j.ID
	if head.Status.Run == d.j.ID {
		head.Status.Phase, head.Status.Message = plan.Running, ""
	}
	d.rec.DeletedAt = head.Deleted
	d.spec = w.Spec
	switch {
	case d.rec.Cause == record.Deleted:
		return d.pinFinalizers()
	case d.rec.Of != "" && d.rec.Cause == record.Retried:
		return d.pinRetry()
	default:
		d.rec.Of = "" // a change came before it began, and makes it a run like any other
		return d.pinCurrent()
	}
}

// pinCurrent takes the steps as they are defined now.
func (d *draft) pinCurrent() error {
	name := d.rec.Pipeline
	if name == "" {
		return d.pinListeners()
	}
	switch {
	case d.pipeline == nil:
		return d.finishWith(plan.Failed, fmt.Sprintf("pipeline %q was deleted", name))
	case d.pipeline.Resource != d.j.Key.Type:
		return d.finishWith(plan.Failed, fmt.Sprintf("pipeline %q is now for resources of type %q", name, d.pipeline.Resource))
	}
	if err := d.pinDefinition(); err != nil {
		return err
	}
	if d.plan.Timeout > 0 {
		d.rec.Deadline = d.now.Add(time.Duration(d.plan.Timeout))
	}
	d.blankStates(d.plan.Len())
	return nil
}

// pinDefinition takes the steps of the pipeline's definition, or the one that plans them.
func (d *draft) pinDefinition() (err error) {
	if !d.pipeline.Planned {
		d.rec.Hash = d.pipeline.Hash
		d.plan, err = d.s.ledger.Plan(d.s.base, d.j.ID, &d.rec)
		return err
	}
	p, err := d.s.ledger.Definition(d.s.base, d.rec.Pipeline, d.pipeline.Hash)
	if err != nil {
		return err
	}
	d.pinPlan(p.Unplanned(d.rec.Pipeline))
	return nil
}

// pinPlan writes a plan that is no definition's.
func (d *draft) pinPlan(p *plan.Plan) {
	d.plan, d.rec.Hash = p, ""
	d.extra = append(d.extra, store.Put(record.PlanKey(d.j.ID), record.Encode(p)))
}

// pinRetry takes the steps of the run that this one repeats, or those defined now, and what that run has done of them.
func (d *draft) pinRetry() error {
	old, err := d.s.ledger.Run(d.s.base, d.rec.Of)
	if errors.Is(err, ErrNotFound) {
		return d.finishWith(plan.Failed, originalGone(d.rec.Of))
	}
	if err != nil {
		return err
	}
	if old.Plan == nil {
		return record.Damaged(old.Key(), errors.New("has no steps that could be repeated"))
	}
	if d.rec.Newest {
		if err := d.pinCurrent(); err != nil || d.over {
			return err
		}
	} else {
		d.rec.Pipeline = old.Rec.Pipeline
		if d.plan, d.rec.Hash = old.Plan, old.Rec.Hash; d.rec.Hash == "" {
			d.pinPlan(old.Plan)
		}
		if d.plan.Timeout > 0 {
			d.rec.Deadline = d.now.Add(time.Duration(d.plan.Timeout))
		}
		d.blankStates(d.plan.Len())
	}
	d.keep(old)
	return nil
}

func originalGone(run string) string {
	return fmt.Sprintf("run %s, which this one repeats, is no longer on record", run)
}

// keep takes over what another run has done of the steps.
func (d *draft) keep(old *record.RunState) {
	for i, done := range keptSteps(old, d.plan, d.rec.From) {
		if done != nil {
			*d.step(i) = *done
			d.states[i] = done.State
		}
	}
}

// displacementOf asks for the end of the run at work, if the one that waits behind it is not to wait for that.
func displacementOf(r *record.Resource) *displacement {
	switch {
	case r.Active == "":
		return nil
	case r.Deleted != 0:
		return &displacement{run: r.Active, stop: stopRequest{
			spare: true, kind: plan.StopCancel, reason: toBeDeleted, cause: fmt.Errorf("%w: %s", ErrCanceled, toBeDeleted),
		}}
	case r.Supersede:
		reason := fmt.Sprintf("generation %d came", r.Generation)
		return &displacement{run: r.Active, stop: stopRequest{
			spare: true, kind: plan.StopSupersede, reason: reason, cause: fmt.Errorf("%w: %s", ErrSuperseded, reason),
		}}
	}
	return nil
}

// displacement is the end of one run for the sake of another.
type displacement struct {
	run  string
	stop stopRequest
}

// pinFinalizers plans a deletion: the steps of the resource's pipeline, or the drivers that listen to its type,
// backwards, to be finalized where the driver can.
func (d *draft) pinFinalizers() error {
	p := plan.Listeners(d.grants.listeners(d.j.Key.Type))
	if name := d.rec.Pipeline; name != "" {
		if d.pipeline == nil {
			return d.finishWith(plan.Failed, fmt.Sprintf("pipeline %q, which says what to finalize, was deleted", name))
		}
		var err error
		if p, err = d.s.ledger.Definition(d.s.base, name, d.pipeline.Hash); err != nil {
			return err
		}
		if d.pipeline.Planned {
			p = p.Unplanned(name)
		}
	}
	d.pinPlan(p.Backwards())
	d.blankStates(d.plan.Len())
	return nil
}

func (d *draft) pinListeners() error {
	names := d.grants.listeners(d.j.Key.Type)
	limit := d.s.opts.Limits.Steps
	switch {
	case len(names) == 0:
		d.extra = append(d.extra, store.Put(record.UnlistenedKey(d.j.Key), []byte("{}")))
		return d.finishWith(plan.Skipped, fmt.Sprintf("no driver listens to resources of type %q", d.j.Key.Type))
	case len(names) > limit:
		return d.finishWith(plan.Failed, fmt.Sprintf("%d drivers listen to resources of type %q, more than the limit of %d", len(names), d.j.Key.Type, limit))
	}
	d.pinPlan(plan.Listeners(names))
	d.extra = append(d.extra, store.Delete(record.UnlistenedKey(d.j.Key)))
	d.blankStates(d.plan.Len())
	return nil
}
