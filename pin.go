package conveyor

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// begin pins what the run will do. It says no when the resource has another run at work; that one's end wakes this.
func (d *draft) begin() (proceed bool, err error) {
	if err := d.readHead(); err != nil {
		return false, err
	}
	head := d.head
	if head == nil || head.ID != d.rec.ResourceID || head.Pending != d.j.id {
		return true, d.finishWith(StateFailed, "the resource no longer has this run")
	}
	if head.Active != "" {
		d.displace = d.displacement()
		d.head = nil // it stays as it is
		return false, nil
	}
	revision, err := d.s.ledger.revision(d.s.base, d.j.key, head.Generation)
	if err != nil {
		return false, err
	}
	return true, d.pin(revision.Spec)
}

// readHead copies the record of the run's resource into the draft; it is nil if there is none.
func (d *draft) readHead() error {
	if d.head != nil {
		return nil
	}
	j := d.j
	if j.rev == 0 {
		head, rev, err := d.s.ledger.resource(d.s.base, j.key)
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

// pin starts the run on the resource as head describes it.
func (d *draft) pin(spec json.RawMessage) error {
	head := d.head
	d.begun, d.rewrite = true, true
	d.rec.State, d.rec.Started, d.rec.Cause = StateRunning, d.now, head.Cause
	d.rec.Generation, d.rec.Pipeline = head.Generation, head.Pipeline
	d.rec.Metadata, d.rec.Version, d.rec.MadeAt, d.rec.UpdatedAt = head.Metadata, head.Version, head.Created, head.Updated
	head.Active, head.Pending, head.Cause, head.Supersede = d.j.id, "", 0, false
	head.Status.Phase, head.Status.Run, head.Status.Message = StateRunning, d.j.id, ""
	d.rec.DeletedAt = head.Deleted
	d.object = d.rec.object(spec)
	switch {
	case head.Deleted != 0:
		return d.pinFinalizers()
	case d.rec.Of != "" && d.rec.Cause == CauseRetried:
		return d.pinRetry()
	default:
		d.rec.Of = "" // a change came before it began, and makes it a run like any other
		return d.pinCurrent()
	}
}

// pinCurrent takes the steps as they are defined now.
func (d *draft) pinCurrent() error {
	head := d.head
	if head.Pipeline == "" {
		return d.pinListeners()
	}
	pipeline, _, err := d.s.ledger.pipeline(d.s.base, head.Pipeline)
	switch {
	case errors.Is(err, ErrNotFound):
		return d.finishWith(StateFailed, fmt.Sprintf("pipeline %q was deleted", head.Pipeline))
	case err != nil:
		return err
	case pipeline.Resource != d.j.key.Type:
		return d.finishWith(StateFailed, fmt.Sprintf("pipeline %q is now for resources of type %q", head.Pipeline, pipeline.Resource))
	}
	d.rec.Hash = pipeline.Hash
	if d.plan, err = d.s.ledger.plan(d.s.base, d.j.id, &d.rec); err != nil {
		return err
	}
	if d.plan.Timeout > 0 {
		d.rec.Deadline = d.now.after(time.Duration(d.plan.Timeout))
	}
	d.states = make([]State, d.plan.len())
	return nil
}

// pinRetry takes the steps of the run that this one repeats, or those defined now, and what that run has done of them.
func (d *draft) pinRetry() error {
	old, err := d.s.ledger.run(d.s.base, d.rec.Of)
	if errors.Is(err, ErrNotFound) {
		return d.finishWith(StateFailed, fmt.Sprintf("run %s, which this one repeats, is no longer on record", d.rec.Of))
	}
	if err != nil {
		return err
	}
	if d.rec.Newest {
		if err := d.pinCurrent(); err != nil || d.over {
			return err
		}
	} else {
		d.plan, d.rec.Hash, d.rec.Pipeline = old.plan, old.rec.Hash, old.rec.Pipeline
		if d.rec.Hash == "" {
			d.extra = append(d.extra, store.Put(planKey(d.j.id), encode(d.plan)))
		}
		if d.plan.Timeout > 0 {
			d.rec.Deadline = d.now.after(time.Duration(d.plan.Timeout))
		}
		d.states = make([]State, d.plan.len())
	}
	for i, done := range old.kept(d.plan, d.rec.From) {
		if done != nil {
			*d.step(i) = *done
			d.states[i] = done.State
		}
	}
	return nil
}

// displacement asks for the end of the run that this one waits behind, if that is not to be waited for.
func (d *draft) displacement() *displacement {
	head := d.head
	switch {
	case head.Deleted != 0:
		reason := "the resource is to be deleted"
		return &displacement{run: head.Active, stop: stopRequest{spare: true, kind: stopCancel, reason: reason, cause: fmt.Errorf("%w: %s", ErrCanceled, reason)}}
	case head.Supersede:
		reason := fmt.Sprintf("generation %d came", head.Generation)
		return &displacement{run: head.Active, stop: stopRequest{spare: true, kind: stopSupersede, reason: reason, cause: fmt.Errorf("%w: %s", ErrSuperseded, reason)}}
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
	p := listenersPlan(d.s.listeners(d.j.key.Type))
	if name := d.head.Pipeline; name != "" {
		head, _, err := d.s.ledger.pipeline(d.s.base, name)
		switch {
		case errors.Is(err, ErrNotFound):
			return d.finishWith(StateFailed, fmt.Sprintf("pipeline %q, which says what to finalize, was deleted", name))
		case err != nil:
			return err
		}
		spec, err := d.s.ledger.definition(d.s.base, name, head.Hash)
		if err != nil {
			return err
		}
		p = spec.plan()
	}
	d.plan = p.backwards()
	d.extra = append(d.extra, store.Put(planKey(d.j.id), encode(d.plan)))
	d.states = make([]State, d.plan.len())
	return nil
}

func (d *draft) pinListeners() error {
	names := d.s.listeners(d.j.key.Type)
	limit := d.s.opts.Limits.Steps
	switch {
	case len(names) == 0:
		d.extra = append(d.extra, store.Put(unheardKey(d.j.key), []byte("{}")))
		return d.finishWith(StateSkipped, fmt.Sprintf("no driver listens to resources of type %q", d.j.key.Type))
	case len(names) > limit:
		return d.finishWith(StateFailed, fmt.Sprintf("%d drivers listen to resources of type %q, more than the limit of %d", len(names), d.j.key.Type, limit))
	}
	d.plan = listenersPlan(names)
	d.extra = append(d.extra, store.Put(planKey(d.j.id), encode(d.plan)), store.Delete(unheardKey(d.j.key)))
	d.states = make([]State, d.plan.len())
	return nil
}
