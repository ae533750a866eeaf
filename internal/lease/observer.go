package lease

import (
	"slices"
	"strings"
	"time"
)

// Observer tells which other engines have been silent for a whole lease. It counts the time by the monotonic clock of its own
// machine, from the moment at which it has seen a heartbeat for the first time. The zero value is not ready for use; make one with
// [NewObserver].
type Observer struct {
	lease   time.Duration // of the engine that observes
	renewed time.Duration // when this engine has renewed its own lease last; by the monotonic clock, like all times below
	others  map[string]*other
}

// other is what an observer knows of another engine.
type other struct {
	lease     time.Duration
	heartbeat int64         // the revision that was seen last
	since     time.Duration // when it was seen first, or when counting began anew
	present   bool          // in the newest look
}

// NewObserver returns an observer that has seen nothing. now is by the monotonic clock.
func NewObserver(lease, now time.Duration) *Observer {
	return &Observer{lease: lease, renewed: now, others: map[string]*other{}}
}

// Renewed notes that the observer has renewed its own lease at a moment. If it had not done so for more than a third of the
// lease, it may have been paused, or the store was away, and then the others could not renew either: the observer begins to
// count anew for all of them.
func (o *Observer) Renewed(now time.Duration) {
	if now-o.renewed > o.lease/3 {
		for _, of := range o.others {
			of.since = now
		}
	}
	o.renewed = now
}

// Seen is what one look at the store has shown of another engine that is live.
type Seen struct {
	ID        string
	Lease     time.Duration // of that engine, as its record says
	Heartbeat int64         // the revision of its heartbeat
}

// Look notes what a look at the store has shown. now is when the look had ended: an engine can have renewed its lease while the
// look went on. An engine that the look does not show is forgotten.
func (o *Observer) Look(now time.Duration, all []Seen) {
	for _, of := range o.others {
		of.present = false
	}
	for _, s := range all {
		of := o.others[s.ID]
		if of == nil || of.heartbeat != s.Heartbeat {
			of = &other{heartbeat: s.Heartbeat, since: now}
			o.others[s.ID] = of
		}
		of.lease, of.present = s.Lease, true
	}
	for id, of := range o.others {
		if !of.present {
			delete(o.others, id)
		}
	}
}

// Silent returns the engines, in the order of their ids, that have not changed their heartbeat for their whole lease while the
// observer has renewed its own without a gap. Whoever marks one of them dead must do so on condition that its heartbeat still has
// the revision that is returned.
func (o *Observer) Silent(now time.Duration) (silent []Seen) {
	if now-o.renewed > o.lease/3 {
		return nil // the observer itself is in trouble
	}
	for id, of := range o.others {
		if now-of.since > of.lease {
			silent = append(silent, Seen{id, of.lease, of.heartbeat})
		}
	}
	slices.SortFunc(silent, func(a, b Seen) int { return strings.Compare(a.ID, b.ID) })
	return silent
}
