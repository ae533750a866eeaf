package record

import (
	"fmt"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Run is the part of a run that its steps do not change. State is queued, running or final; what a running run
// is really doing follows from its steps.
type Run struct {
	Type       string     `json:"resource"`
	Name       string     `json:"name"`
	ResourceID string     `json:"resourceId"`
	Cause      Cause      `json:"cause"`
	State      plan.State `json:"state"`
	Reason     string     `json:"reason,omitempty"`
	// Pinned when the run starts.
	Generation int64             `json:"generation,omitempty"`
	Pipeline   string            `json:"pipeline,omitempty"`
	Hash       string            `json:"hash,omitempty"` // of the pipeline's definition
	Metadata   map[string]string `json:"metadata,omitempty"`
	Version    int64             `json:"version,omitempty"`
	MadeAt     Time              `json:"madeAt,omitempty"`    // the resource's CreatedAt
	UpdatedAt  Time              `json:"updatedAt,omitempty"` // and its UpdatedAt
	DeletedAt  Time              `json:"deletedAt,omitempty"` // and its DeletedAt
	Created    Time              `json:"created"`
	Started    Time              `json:"started,omitempty"`
	Ended      Time              `json:"ended,omitempty"`
	Deadline   Time              `json:"deadline,omitempty"`
	Stop       plan.Stop         `json:"stop,omitempty"` // it shall end, as soon as nothing runs
	StopReason string            `json:"stopReason,omitempty"`
	FailedStep string            `json:"failedStep,omitempty"`
	// Of is the run that this one repeats, from the step From on; empty for the steps that it has not done. Newest: along
	// the pipeline as it is defined now.
	Of     string `json:"of,omitempty"`
	From   string `json:"from,omitempty"`
	Newest bool   `json:"newest,omitempty"`
	// Place is where the run waited in line, if it did so behind another.
	Place int64 `json:"place,omitempty"`
	// Outcome is how the steps have ended, and Reason why; what is left is Finally. CutShort: that shall end too.
	Outcome  plan.State `json:"outcome,omitzero"`
	CutShort bool       `json:"cutShort,omitempty"`
}

func (r *Run) Key() Key { return Key{Type: r.Type, Name: r.Name} }

// OutcomeReason is why the steps have ended so, once they have.
func (r *Run) OutcomeReason() string {
	if r.Outcome == plan.Unset {
		return ""
	}
	return r.Reason
}

func (r *Run) Check() string {
	switch {
	case text.NameFault(r.Type) != "" || text.NameFault(r.Name) != "" || r.ResourceID == "" || r.Cause == 0:
		return "has no resource, or no cause"
	case !refers(r.Pipeline, r.Hash, r.Of):
		return refersToNothing
	case r.State != plan.Queued && r.State != plan.Running && !r.State.Final():
		return fmt.Sprintf("is a run that is %s", r.State)
	case (r.State == plan.Queued) == (r.Started != 0) && !r.State.Final():
		return fmt.Sprintf("is %s, and has begun at %d", r.State, r.Started)
	}
	return unless(r.Started == 0 || r.Generation >= 1, "has begun without a generation")
}

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
	w.int("place", int64(r.Place), false)
	w.text("outcome", plan.StateNames.Names[r.Outcome], false)
	w.bool("cutShort", r.CutShort)
	return append(w.b, '}')
}
