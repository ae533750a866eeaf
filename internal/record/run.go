package record

import (
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Run is the record of a run without its steps. State is queued, running or final. The state that users see of a running
// run follows from its steps; see [RunState.State].
type Run struct {
	Type       string     `json:"resource"`
	Name       string     `json:"name"`
	ResourceID string     `json:"resourceId"`
	Cause      Cause      `json:"cause"`
	State      plan.State `json:"state"`
	Reason     string     `json:"reason,omitempty"`
	// Generation and the fields up to DeletedAt are pinned when the run starts.
	Generation int64     `json:"generation,omitempty"`
	Pipeline   string    `json:"pipeline,omitempty"`
	Hash       string    `json:"hash,omitempty"` // of the pipeline's definition
	Metadata   Metadata  `json:"metadata,omitempty"`
	Version    int64     `json:"version,omitempty"`
	MadeAt     Time      `json:"madeAt,omitempty"`    // Created of the resource
	UpdatedAt  Time      `json:"updatedAt,omitempty"` // Updated of the resource
	UpdatedBy  string    `json:"updatedBy,omitempty"` // UpdatedBy of the resource
	DeletedAt  Time      `json:"deletedAt,omitempty"` // Deleted of the resource
	Created    Time      `json:"created"`
	Started    Time      `json:"started,omitempty"`
	Ended      Time      `json:"ended,omitempty"`
	Deadline   Time      `json:"deadline,omitempty"`
	Stop       plan.Stop `json:"stop,omitempty"` // why the run is to end as soon as no step runs
	StopReason string    `json:"stopReason,omitempty"`
	FailedStep string    `json:"failedStep,omitempty"`
	// Of is the run that this run repeats, beginning with the step From. Run Of is on record until this run has ended; at
	// its end, this run has copied what it kept of run Of. An empty From means the steps that run Of has not done. Newest
	// means that this run uses the present definition of the pipeline.
	Of     string `json:"of,omitempty"`
	From   string `json:"from,omitempty"`
	Newest bool   `json:"newest,omitempty"`
	// Position is the position under which the run has a record of type Pending, or had one; 0 if it never had one.
	Position int64 `json:"place,omitempty"`
	// Outcome is how the steps have ended, and Reason is why; only Finally is left. CutShort means that Finally is to end
	// too, as soon as none of its steps runs.
	Outcome  plan.State `json:"outcome,omitzero"`
	CutShort bool       `json:"cutShort,omitempty"`
	// Concluded is when the steps ended, if Finally followed. Files of earlier versions do not have it.
	Concluded Time `json:"concluded,omitempty"`
	// Number counts the runs of the resource from 1. It is 0 in a run that was made before runs had numbers.
	Number int64 `json:"number,omitempty"`
	// Copying means that the run still takes over steps of the run Of, in several commits because the store accepts no larger
	// ones. No step starts until then.
	Copying bool `json:"copying,omitempty"`
	Origin
	StopBy string `json:"stopBy,omitempty"` // who has asked for Stop, or for CutShort
	Failure
	Ownership
}

// Ownership is what the record of a run on a shared store has besides. It is empty on any other store.
type Ownership struct {
	Owner   string `json:"owner,omitempty"`   // the engine that alone may write the record, but for requests; empty if there is none
	Claims  int64  `json:"claims,omitempty"`  // how often an engine has become the owner
	Turn    int64  `json:"turn,omitempty"`    // how often an owner has written the record
	Signals int64  `json:"signals,omitempty"` // how many signals were ever sent to the run
	Slot    int64  `json:"slot,omitempty"`    // the place among the active runs of the pipeline, counted from 1; 0 for none
	Needs   int    `json:"needs,omitempty"`   // the lowest format of a program that may write the record; see [Rewritable]
}

func (o *Ownership) append(w *writer) {
	w.text("owner", o.Owner, false)
	w.int("claims", o.Claims, false)
	w.int("turn", o.Turn, false)
	w.int("signals", o.Signals, false)
	w.int("slot", o.Slot, false)
	w.int("needs", int64(o.Needs), false)
}

// Key returns the key of the resource of the run.
func (r *Run) Key() Key { return Key{Type: r.Type, Name: r.Name} }

// Ending reports whether the steps have ended or are to end, so that only Finally can start.
func (r *Run) Ending() bool { return r.Outcome != plan.Unset || r.Stop != plan.StopNone }

// OutcomeReason returns the reason for the outcome of the steps, and an empty text as long as there is no outcome.
func (r *Run) OutcomeReason() string {
	if r.Outcome == plan.Unset {
		return ""
	}
	return r.Reason
}

// RunsFromLater reports whether the deadline of the run, whose plan is p, was set at a time that has not come: the clock was
// set back.
func (r *Run) RunsFromLater(p *plan.Plan, now Time) bool {
	limit := time.Duration(p.Timeout)
	return r.Deadline != 0 && limit > 0 && r.Deadline.Add(-limit) > now+ClockTolerance
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (r *Run) Check() string {
	switch {
	case text.NameFault(r.Type) != "" || text.NameFault(r.Name) != "" || r.ResourceID == "" || r.Cause == 0:
		return "has no resource, or no cause"
	case !refers(r.Pipeline, r.Hash, r.Of, r.Owner):
		return refersToNothing
	case r.Owner != "" && r.State.Final():
		return "has ended, and has an owner"
	case r.Number < 0:
		return "has a negative number"
	case r.State != plan.Queued && r.State != plan.Running && !r.State.Final():
		return fmt.Sprintf("is a run that is %s", r.State)
	case (r.State == plan.Queued) == (r.Started != 0) && !r.State.Final():
		return fmt.Sprintf("is %s, and has begun at %d", r.State, r.Started)
	}
	return unless(r.Started == 0 || r.Generation >= 1, "has begun without a generation")
}

// AppendJSON appends the JSON of the record to b.
func (r *Run) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("resource", r.Type, true)
	w.text("name", r.Name, true)
	w.text("resourceId", r.ResourceID, true)
	w.text("cause", causeNames.Names[r.Cause], true)
	w.text("state", plan.StateNames.Names[r.State], true)
	w.text("reason", r.Reason, false)
	w.int("generation", int64(r.Generation), false)
	w.text("pipeline", r.Pipeline, false)
	w.text("hash", r.Hash, false)
	w.labels("metadata", r.Metadata)
	w.int("version", int64(r.Version), false)
	w.int("madeAt", int64(r.MadeAt), false)
	w.int("updatedAt", int64(r.UpdatedAt), false)
	w.text("updatedBy", r.UpdatedBy, false)
	w.int("deletedAt", int64(r.DeletedAt), false)
	w.int("created", int64(r.Created), true)
	w.int("started", int64(r.Started), false)
	w.int("ended", int64(r.Ended), false)
	w.int("deadline", int64(r.Deadline), false)
	w.text("stop", string(r.Stop), false)
	w.text("stopReason", r.StopReason, false)
	w.text("failedStep", r.FailedStep, false)
	w.text("of", r.Of, false)
	w.text("from", r.From, false)
	w.bool("newest", r.Newest)
	w.int("place", int64(r.Position), false)
	w.text("outcome", plan.StateNames.Names[r.Outcome], false)
	w.bool("cutShort", r.CutShort)
	w.int("concluded", int64(r.Concluded), false)
	w.int("number", r.Number, false)
	w.bool("copying", r.Copying)
	r.Origin.append(&w)
	w.text("stopBy", r.StopBy, false)
	r.Failure.append(&w)
	r.Ownership.append(&w)
	return append(w.b, '}')
}
