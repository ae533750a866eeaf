package conveyor

import (
	"fmt"
	"strconv"

	"github.com/conveyor-go/conveyor/internal/document"
)

// The records that every transition of a run writes are encoded by hand: reflection took a third of the time of a step,
// and most of its allocations. What comes out is byte by byte what package encoding/json would write, which a test
// holds the two to; reading is left to that package.

// encode writes a record. Specs, settings and outputs were checked to be JSON before they came into a record, so
// that encoding cannot fail.
func encode(record any) []byte {
	if r, ok := record.(appender); ok {
		return r.appendJSON(nil)
	}
	data, err := document.Marshal(record)
	if err != nil {
		panic(fmt.Sprintf("conveyor: encode %T: %v", record, err))
	}
	return data
}

// appender is a record that is encoded by hand. appendJSON appends it to b.
type appender interface{ appendJSON(b []byte) []byte }

func (s *stepRecord) appendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("state", stateNames.names[s.State], true)
	w.int("attempt", int64(s.Attempt), false)
	w.int("started", int64(s.Started), false)
	w.int("ended", int64(s.Ended), false)
	w.int("due", int64(s.Due), false)
	w.text("reason", s.Reason, false)
	w.bool("resumed", s.Resumed)
	w.bool("again", s.Again)
	w.int("requeues", int64(s.Requeues), false)
	w.int("interruptions", int64(s.Interruptions), false)
	w.int("crashes", int64(s.Crashes), false)
	w.int("lines", int64(s.Lines), false)
	w.raw("output", s.Output)
	w.text("await", s.Await, false)
	w.raw("signal", s.Signal)
	w.bool("timedOut", s.TimedOut)
	if len(s.Waits) > 0 {
		w.raw("waits", encode(s.Waits))
	}
	return append(w.b, '}')
}

func (r *runRecord) appendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("resource", r.Type, true)
	w.text("name", r.Name, true)
	w.text("resourceId", r.ResourceID, true)
	w.text("cause", causeNames.names[r.Cause], true)
	w.text("state", stateNames.names[r.State], true)
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
	w.text("outcome", stateNames.names[r.Outcome], false)
	w.bool("cutShort", r.CutShort)
	return append(w.b, '}')
}

func (r *resourceRecord) appendJSON(b []byte) []byte {
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
	w.key("status")
	w.b = r.Status.appendJSON(w.b)
	w.text("active", r.Active, false)
	w.text("pending", r.Pending, false)
	w.text("cause", causeNames.names[r.Cause], false)
	w.bool("supersede", r.Supersede)
	w.int("keeps", int64(r.Keeps), false)
	w.int("queued", int64(r.Queued), false)
	w.int("lastPlace", int64(r.LastPlace), false)
	w.int("resync", int64(r.Resync), false)
	return append(w.b, '}')
}

func (s *Status) appendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("phase", stateNames.names[s.Phase], false)
	w.int("observedGeneration", int64(s.ObservedGeneration), false)
	w.text("run", s.Run, false)
	w.text("message", s.Message, false)
	return append(w.b, '}')
}

// writer writes the members of a JSON object. Names are written as they are.
type writer struct{ b []byte }

func (w *writer) key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

// text writes a string; an empty one only if it is always written.
func (w *writer) text(name, value string, always bool) {
	if value != "" || always {
		w.key(name)
		w.b = appendString(w.b, value)
	}
}

func (w *writer) int(name string, value int64, always bool) {
	if value != 0 || always {
		w.key(name)
		w.b = strconv.AppendInt(w.b, value, 10)
	}
}

func (w *writer) bool(name string, value bool) {
	if value {
		w.key(name)
		w.b = append(w.b, "true"...)
	}
}

// raw writes what is JSON already.
func (w *writer) raw(name string, value []byte) {
	if len(value) > 0 {
		w.key(name)
		w.b = append(w.b, value...)
	}
}

func (w *writer) labels(name string, value map[string]string) {
	if len(value) > 0 {
		w.raw(name, encode(value))
	}
}

// appendString appends a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7F {
			return append(b, encode(s)...) // rare enough to leave the details to the library
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
