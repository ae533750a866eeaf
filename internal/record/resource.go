package record

import (
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/store"
)

// Resource is small whatever the spec, since the end of every run writes it.
//
// Invariant: Active and Pending name unfinished runs or are empty. Active has begun; Pending has not, and takes up
// the newest generation when it does, unless it keeps another. Queued counts the runs behind it, which all keep theirs.
// All of them change only by a compare-and-set of this record, which is what keeps two runs of one resource apart.
type Resource struct {
	ID         string            `json:"id"`
	Pipeline   string            `json:"pipeline,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Version    int64             `json:"version"`
	Generation int64             `json:"generation"`
	First      int64             `json:"first"` // generation with which this incarnation began
	Created    Time              `json:"created"`
	Updated    Time              `json:"updated"`
	Deleted    Time              `json:"deleted,omitempty"`
	Status     Status            `json:"status"`
	Active     string            `json:"active,omitempty"`
	Pending    string            `json:"pending,omitempty"`
	Cause      Cause             `json:"cause,omitzero"`      // of Pending
	Supersede  bool              `json:"supersede,omitempty"` // Pending does not wait for the end of Active
	Keeps      int64             `json:"keeps,omitempty"`     // generation that Pending keeps; 0 for the newest
	Queued     int               `json:"queued,omitempty"`    // runs behind Pending, each with a queueRecord
	LastPlace  int64             `json:"lastPlace,omitempty"` // the highest ever given to one of them
	Resync     Time              `json:"resync,omitempty"`    // when it is to be run again, if nothing comes before
}

// CancelResync takes that back, since another run comes first.
func (r *Resource) CancelResync(k Key) []store.Op {
	if r.Resync == 0 {
		return nil
	}
	due := r.Resync
	r.Resync = 0
	return []store.Op{store.Delete(ResyncKey(due, k))}
}

func (r *Resource) Check() string {
	if r.First < 1 || r.First > r.Generation || r.Version < 1 || r.Keeps < 0 || r.Keeps > r.Generation || r.Queued < 0 {
		return "has impossible numbers"
	}
	if !refers(r.Pipeline, r.Active, r.Pending) {
		return refersToNothing
	}
	return unless(r.ID != "" && r.Status.Run != "" && refers(r.Status.Run), "has no id, or no run")
}

func (r *Resource) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("id", r.ID, true)
	w.text("pipeline", r.Pipeline, false)
	w.labels("metadata", r.Metadata)
	w.int("version", int64(r.Version), true)
	w.int("generation", int64(r.Generation), true)
	w.int("first", int64(r.First), true)
	w.int("created", int64(r.Created), true)
	w.int("updated", int64(r.Updated), true)
	w.int("deleted", int64(r.Deleted), false)
	w.Key("status")
	w.b = r.Status.AppendJSON(w.b)
	w.text("active", r.Active, false)
	w.text("pending", r.Pending, false)
	w.text("cause", causeNames.Names[r.Cause], false)
	w.bool("supersede", r.Supersede)
	w.int("keeps", int64(r.Keeps), false)
	w.int("queued", int64(r.Queued), false)
	w.int("lastPlace", int64(r.LastPlace), false)
	w.int("resync", int64(r.Resync), false)
	return append(w.b, '}')
}

// Status shows how far the engine is with a resource. It is written when a run is queued, when it starts, and when it
// ends. The state in between is in the run (see [Engine.GetRun]).
type Status struct {
	// Phase is the state of the newest run: queued, running, or one of the final states.
	Phase plan.State `json:"phase,omitzero"`
	// ObservedGeneration is the newest generation for which a run has ended, whether the run succeeded or not.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Run is the id of the newest run.
	Run string `json:"run,omitempty"`
	// Message is the reason in words if Phase is a final state other than succeeded.
	Message string `json:"message,omitempty"`
}

func (s *Status) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("phase", plan.StateNames.Names[s.Phase], false)
	w.int("observedGeneration", int64(s.ObservedGeneration), false)
	w.text("run", s.Run, false)
	w.text("message", s.Message, false)
	return append(w.b, '}')
}
