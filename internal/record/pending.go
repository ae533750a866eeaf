package record

import "github.com/conveyor-go/conveyor/store"

// Pending is a place in the line of the runs that wait behind Pending. The places are taken in the order of the keys.
type Pending struct {
	Run        string `json:"run"`
	Generation int64  `json:"generation"`
	Cause      Cause  `json:"cause"`
}

func (q *Pending) Check() string {
	return unless(q.Run != "" && refers(q.Run) && q.Generation >= 1 && q.Cause != 0, "has no run, no generation or no cause")
}

// EnqueuePending puts a new run at the end of the line, and returns what must be written for that.
func (r *Resource) EnqueuePending(k Key, id string, rec *Run, keep bool) []store.Op {
	if r.Pending == "" {
		r.Pending, r.Cause, r.Keeps = id, rec.Cause, 0
		if keep {
			r.Keeps = rec.Generation
		}
		return nil
	}
	if r.Keeps == 0 {
		r.Keeps = rec.Generation - 1 // up to here it took up what came
	}
	r.Queued++
	r.LastPlace++
	rec.Place = r.LastPlace
	place := &Pending{Run: id, Generation: rec.Generation, Cause: rec.Cause}
	return []store.Op{store.Put(PendingKey(k, rec.Place), Encode(place)).IfAbsent()}
}

// FixesGeneration says that the last run in line keeps its generation, so that a newer one needs a run of its own.
func (r *Resource) FixesGeneration() bool { return r.Keeps != 0 || r.Queued > 0 }
