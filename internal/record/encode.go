package record

import (
	"fmt"
	"strconv"

	"github.com/conveyor-go/conveyor/internal/document"
)

// Encode writes a record. Specs, settings and outputs were checked to be JSON before they came into a record, so
// that encoding cannot fail.
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

// Appender is a record that is encoded by hand. appendJSON appends it to b.
type Appender interface{ AppendJSON(b []byte) []byte }

// writer writes the members of a JSON object. Names are written as they are.
type writer struct{ b []byte }

func (w *writer) Key(name string) {
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
		w.Key(name)
		w.b = appendString(w.b, value)
	}
}

func (w *writer) int(name string, value int64, always bool) {
	if value != 0 || always {
		w.Key(name)
		w.b = strconv.AppendInt(w.b, value, 10)
	}
}

func (w *writer) bool(name string, value bool) {
	if value {
		w.Key(name)
		w.b = append(w.b, "true"...)
	}
}

// raw writes what is JSON already.
func (w *writer) raw(name string, value []byte) {
	if len(value) > 0 {
		w.Key(name)
		w.b = append(w.b, value...)
	}
}

func (w *writer) labels(name string, value map[string]string) {
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
