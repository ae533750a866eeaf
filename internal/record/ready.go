package record

import (
	"strings"

	"github.com/conveyor-go/conveyor/internal/text"
)

// OwnedKey returns the key that lists a run under the engine that owns it.
func OwnedKey(engine, run string) string { return OwnedPrefix + engine + "/" + run }

// AskKey returns the key that wakes the owner of a run.
func AskKey(engine, run string) string { return AskPrefix + engine + "/" + run }

// Ready is an entry of the index of the runs that have no owner.
type Ready struct {
	Driver string // that the run needs; empty if any engine can do what is to be done
	Lane   string // see [Lane]
	Due    Time   // when there is something to do; 0 for at once, and Never if nothing comes by itself
	Run    string
}

// Urgent is the lane of the runs that any engine is to look at, whatever drivers it has.
const Urgent = "!"

// Never is the time of a run that waits for a signal alone.
const Never = Time(1<<63 - 1)

// Lane returns the lane of a run, in which it waits for a worker: its pipeline, or a dot and the type of its resource if it has
// none. No name begins with a dot. The lanes take turns.
func Lane(pipeline string, k Key) string {
	if pipeline == "" {
		return "." + k.Type
	}
	return pipeline
}

// ReadyOf returns the prefix of the keys of the entries of a lane that need the driver of e, or of all lanes if e has no lane.
func ReadyOf(e Ready) string {
	prefix := ReadyPrefix + "any/"
	if e.Driver != "" {
		prefix = ReadyPrefix + "drv/" + e.Driver + "/"
	}
	if e.Lane == "" {
		return prefix
	}
	return prefix + e.Lane + "/"
}

// ReadyKey returns the key of an entry: rdy/any/LANE/DUE/RUN or rdy/drv/DRIVER/LANE/DUE/RUN. The entries of a lane sort by the
// time at which there is something to do, and then by the age of the run.
func ReadyKey(e Ready) string {
	return ReadyOf(e) + hex16(int64(e.Due)) + "/" + e.Run
}

// ParseReadyKey returns the entry of a key that [ReadyKey] has made. For any other key, it returns an error that wraps
// [store.ErrCorrupt].
func ParseReadyKey(key string) (e Ready, err error) {
	rest, ok := strings.CutPrefix(key, ReadyPrefix)
	parts := strings.Split(rest, "/")
	switch {
	case ok && len(parts) == 4 && parts[0] == "any":
	case ok && len(parts) == 5 && parts[0] == "drv" && text.NameFault(parts[1]) == "":
		e.Driver = parts[1]
		parts = parts[1:]
	default:
		return Ready{}, BadKey(key)
	}
	due, isNumber := ParseNumber(parts[2])
	e.Lane, e.Due, e.Run = parts[1], Time(due), parts[3]
	if !isNumber || text.NameFault(e.Run) != "" || e.Lane != Urgent && text.NameFault(strings.TrimPrefix(e.Lane, ".")) != "" || ReadyKey(e) != key {
		return Ready{}, BadKey(key)
	}
	return e, nil
}

// ParseOwnedKey returns the engine and the run of a key that [OwnedKey] or [AskKey] has made. For any other key, it returns an
// error that wraps [store.ErrCorrupt].
func ParseOwnedKey(key string) (engine, run string, err error) {
	rest, ok := strings.CutPrefix(key, OwnedPrefix)
	if !ok {
		rest, ok = strings.CutPrefix(key, AskPrefix)
	}
	engine, run, _ = strings.Cut(rest, "/")
	if !ok || text.NameFault(engine) != "" || text.NameFault(run) != "" {
		return "", "", BadKey(key)
	}
	return engine, run, nil
}

// SlotsOf returns the prefix of the keys of the places among the active runs of a pipeline.
func SlotsOf(pipeline string) string { return SlotPrefix + pipeline + "/" }

// SlotKey returns the key of a place, which is counted from 1.
func SlotKey(pipeline string, slot int64) string { return SlotsOf(pipeline) + hex16(slot) }

// ListenersOf returns the prefix of the keys of the drivers that listen to a type.
func ListenersOf(kind string) string { return ListenerPrefix + kind + "/" }

// ListenerKey returns the key that lists a driver among those that listen to a type.
func ListenerKey(kind, driver string) string { return ListenersOf(kind) + driver }
