package record

import (
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Engine is the record of one of several engines on a shared store. The engine is live while its record is there and not marked
// dead. The record never changes in between, so that a commit that checks it conflicts with nothing but the mark.
type Engine struct {
	Name    string        `json:"name,omitempty"` // for people
	Started Time          `json:"started"`
	Version string        `json:"version,omitempty"` // of the program
	Format  int           `json:"format"`            // the highest version of records that it reads
	Lease   time.Duration `json:"lease"`             // how long it must be silent before another engine may mark it dead
	Options string        `json:"options,omitempty"` // a hash of the options that give runs a meaning
	Dead    Time          `json:"dead,omitempty"`    // when it was marked dead; 0 while it is live
	By      string        `json:"by,omitempty"`      // the id of the engine that has marked it, and its own if it was shut down
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (e *Engine) Check() string {
	switch {
	case e.Started <= 0:
		return "has no time"
	case e.Lease <= 0:
		return "has no lease"
	case e.Format < 1:
		return "has no format"
	case (e.Dead != 0) != (e.By != ""):
		return "is marked dead by nobody"
	case !refers(e.By):
		return refersToNothing
	}
	return ""
}

// Heartbeat is the record that an engine on a shared store writes again and again.
type Heartbeat struct {
	Count   int64    `json:"count"`             // of the heartbeats of the engine, so that no two are equal
	Clock   Time     `json:"clock"`             // of the machine of the engine
	Drivers []string `json:"drivers,omitempty"` // that are registered, in order
	Planned []string `json:"planned,omitempty"` // the pipelines that the engine has a Planner for, in order
	Owned   int      `json:"owned,omitempty"`   // the unfinished runs that the engine owns
	Busy    int      `json:"busy,omitempty"`    // workers
	Free    int      `json:"free,omitempty"`    // workers
	Letters bool     `json:"letters,omitempty"` // whether the engine applies letters
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (h *Heartbeat) Check() string {
	bad := func(name string) bool { return text.NameFault(name) != "" }
	return unless(h.Count > 0 && h.Clock > 0 && h.Owned >= 0 && h.Busy >= 0 && h.Free >= 0 && !slices.ContainsFunc(h.Drivers, bad) &&
		!slices.ContainsFunc(h.Planned, bad), "is no heartbeat")
}

// EngineKey returns the key of an [Engine].
func EngineKey(id string) string { return EnginePrefix + id }

// HeartbeatKey returns the key of a [Heartbeat].
func HeartbeatKey(engine string) string { return HeartbeatPrefix + engine }

// ParseEngineKey returns the id in a key that [EngineKey] or [HeartbeatKey] has made. For any other key, it returns an error
// that wraps [store.ErrCorrupt].
func ParseEngineKey(key string) (id string, err error) {
	id, ok := strings.CutPrefix(key, EnginePrefix)
	if !ok {
		id, ok = strings.CutPrefix(key, HeartbeatPrefix)
	}
	if !ok || text.NameFault(id) != "" {
		return "", BadKey(key)
	}
	return id, nil
}
