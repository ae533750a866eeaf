package record

import (
	"fmt"
	"strconv"

	"github.com/conveyor-go/conveyor/internal/document"
)

// The records that every transition of a run writes are encoded by hand. Reflection took a third of the time of a step and
// made most of its allocations. The result is byte for byte the result of package encoding/json; a test compares the two.
// Decoding is left to package encoding/json.

// Encode returns the JSON of a record. Encoding cannot fail, because specs, settings and outputs are checked to be JSON
// before they become part of a record.
func Encode(record any) []byte {
	if r, ok := record.(Appender); ok {
		return r.AppendJSON(nil)
	}
	data, err := document.Marshal(record)
	if err != nil {
		panic(fmt.Sprintf("conveyor: encode %T: %v", record, err))
	}
	return data
}

// Appender is a record that is encoded by hand.
type Appender interface {
	// AppendJSON appends the JSON of the record to b and returns the result.
	AppendJSON(b []byte) []byte
}

// writer writes the members of a JSON object. It writes names without escapes.
type writer struct{ b []byte }

// Key writes the name of a member.
func (w *writer) Key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

// text writes a member with a string. It omits an empty string unless always is set.
func (w *writer) text(name, value string, always bool) {
	if value != "" || always {
		w.Key(name)
		w.b = appendString(w.b, value)
	}
}

// int writes a member with a number. It omits 0 unless always is set.
func (w *writer) int(name string, value int64, always bool) {
	if value != 0 || always {
		w.Key(name)
		w.b = strconv.AppendInt(w.b, value, 10)
	}
}

// bool writes a member with true. It omits false.
func (w *writer) bool(name string, value bool) {
	if value {
		w.Key(name)
		w.b = append(w.b, "true"...)
	}
}

// raw writes a member with a value that is JSON already. It omits an empty value.
func (w *writer) raw(name string, value []byte) {
	if len(value) > 0 {
		w.Key(name)
		w.b = append(w.b, value...)
	}
}

// labels writes a member with a map. It omits an empty map.
func (w *writer) labels(name string, value Metadata) {
	if len(value) > 0 {
		w.raw(name, Encode(value))
	}
}

// appendString appends a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7F {
			return append(b, Encode(s)...) // rare enough to leave the details to the library
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
