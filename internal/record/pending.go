package record

import "github.com/conveyor-go/conveyor/store"

// Pending is the record of a run that is pending behind the run in [Resource].Pending. These runs are promoted in the order
// of their keys.
type Pending struct {
	Run        string `json:"run"`
	Generation int64  `json:"generation"`
	Cause      Cause  `json:"cause"`
	Lane       string `json:"lane,omitempty"` // of the run on a shared store; see Lane
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (q *Pending) Check() string {
	return unless(q.Run != "" && refers(q.Run) && q.Generation >= 1 && q.Cause != 0, "has no run, no generation or no cause")
}

// EnqueuePending adds a new run behind the pending runs of the resource, and returns the writes that are needed besides
// those of r and rec. If the run is the first pending one, it takes the newest generation when it begins, unless keep is
// set. A run behind another pending run always keeps its generation. lane is the lane of the run on a shared store, and empty on
// any other.
func (r *Resource) EnqueuePending(k Key, id string, rec *Run, keep bool, lane string) []store.Op {
	if r.Pending == "" {
		r.Pending, r.Cause, r.FixedGeneration, r.Lane = id, rec.Cause, 0, lane
		if keep {
			r.FixedGeneration = rec.Generation
		}
		return nil
	}
	if r.FixedGeneration == 0 { // until now, the first pending run was to take the newest generation
		r.FixedGeneration = rec.Generation
		if rec.Cause != Deleted {
			r.FixedGeneration-- // the new run has come for a newer one
		}
	}
	r.Queued++
	r.LastPosition++
	rec.Position = r.LastPosition
	place := &Pending{Run: id, Generation: rec.Generation, Cause: rec.Cause, Lane: lane}
	return []store.Op{store.Put(PendingKey(k, rec.Position), Encode(place)).IfAbsent()}
}

// PendingRuns returns how many runs of the resource have not begun.
func (r *Resource) PendingRuns() int {
	if r.Pending == "" {
		return r.Queued
	}
	return r.Queued + 1
}

// FixesGeneration reports whether the last pending run keeps its generation, so that a newer generation needs a run of its
// own.
func (r *Resource) FixesGeneration() bool { return r.FixedGeneration != 0 || r.Queued > 0 }
