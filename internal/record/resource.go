package record

import (
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/store"
)

// Resource is the record of a resource without its spec. It stays small, because the end of every run writes it.
//
// Invariant: Active and Pending are empty or name unfinished runs. Active has begun. Pending has not begun; it takes the
// newest generation when it begins, unless FixedGeneration names another. Queued counts the runs behind Pending, and each of these
// runs keeps its generation. All of these fields change only by a compare-and-set of this record. The compare-and-set
// keeps two runs of one resource from running at once.
type Resource struct {
	ID              string   `json:"id"`
	Pipeline        string   `json:"pipeline,omitempty"`
	Metadata        Metadata `json:"metadata,omitempty"`
	Version         int64    `json:"version"`
	Generation      int64    `json:"generation"`
	First           int64    `json:"first"` // the generation with which this incarnation of the name began
	Created         Time     `json:"created"`
	Updated         Time     `json:"updated"`
	Deleted         Time     `json:"deleted,omitempty"`
	Status          Status   `json:"status"`
	Active          string   `json:"active,omitempty"`
	Pending         string   `json:"pending,omitempty"`
	Cause           Cause    `json:"cause,omitzero"`      // the cause of Pending
	Supersede       bool     `json:"supersede,omitempty"` // Active is to be stopped in favor of Pending
	FixedGeneration int64    `json:"keeps,omitempty"`     // the generation that Pending takes; 0 means the newest
	Queued          int      `json:"queued,omitempty"`    // the number of runs behind Pending; each has a record of type Pending
	LastPosition    int64    `json:"lastPlace,omitempty"` // the highest position that was ever given to such a run
	Resync          Time     `json:"resync,omitempty"`    // when a resync is due, unless another run comes first; 0 means never
	Lane            string   `json:"lane,omitempty"`      // of Pending on a shared store; see Lane
	Stray           string   `json:"stray,omitempty"`     // the engine on a shared store that has given up a call for the resource which has not returned
	Needs           int      `json:"needs,omitempty"`     // the lowest format of a program that may write the record; see Rewritable
	LastRun         int64    `json:"lastRun,omitempty"`   // the highest number that was ever given to a run; see Run.Number
	UpdatedBy       string   `json:"updatedBy,omitempty"` // who has made the last change, or has asked for the deletion
	// Change is the origin of the change that Pending takes up, if Pending was there before the change. It is nil
	// otherwise: the origin in the record of the run counts.
	Change *Origin `json:"change,omitempty"`
}

// Resync is the record of a due resync, under the key of [ResyncKey].
type Resync struct {
	// Delay is how long the resource was to rest when the record was written. Files of earlier versions do not have it.
	Delay time.Duration `json:"delay,omitempty"`
}

// CancelResync takes back the due resync of the resource, because another run comes first. It returns the writes that are
// needed besides the write of r.
func (r *Resource) CancelResync(k Key) []store.Op {
	if r.Resync == 0 {
		return nil
	}
	due := r.Resync
	r.Resync = 0
	return []store.Op{store.Delete(ResyncKey(due, k))}
}

// Unfinished returns the number of the runs of the resource that have not ended.
func (r *Resource) Unfinished() int {
	n := r.Queued
	if r.Active != "" {
		n++
	}
	if r.Pending != "" {
		n++
	}
	return n
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (r *Resource) Check() string {
	if r.First < 1 || r.First > r.Generation || r.Version < 1 || r.FixedGeneration < 0 || r.FixedGeneration > r.Generation || r.Queued < 0 || r.LastRun < 0 {
		return "has impossible numbers"
	}
	if !refers(r.Pipeline, r.Active, r.Pending) {
		return refersToNothing
	}
	return unless(r.ID != "" && r.Status.Run != "" && refers(r.Status.Run), "has no id, or no run")
}

// AppendJSON appends the JSON of the record to b.
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
	w.int("keeps", int64(r.FixedGeneration), false)
	w.int("queued", int64(r.Queued), false)
	w.int("lastPlace", int64(r.LastPosition), false)
	w.int("resync", int64(r.Resync), false)
	w.text("lane", r.Lane, false)
	w.text("stray", r.Stray, false)
	w.int("needs", int64(r.Needs), false)
	w.int("lastRun", r.LastRun, false)
	w.text("updatedBy", r.UpdatedBy, false)
	if r.Change != nil {
		w.Key("change")
		w.b = r.Change.appendObject(w.b)
	}
	return append(w.b, '}')
}

// Status is how far the engine is with a resource. It is written when a run is queued, when it starts, and when it ends.
// The state in between is in the records of the run and its steps.
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

// AppendJSON appends the JSON of the status to b.
func (s *Status) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("phase", plan.StateNames.Names[s.Phase], false)
	w.int("observedGeneration", int64(s.ObservedGeneration), false)
	w.text("run", s.Run, false)
	w.text("message", s.Message, false)
	return append(w.b, '}')
}
