// Package document reads JSON strictly and writes it.
//
// The standard decoder takes "Driver" for "driver", the second of two equal fields, and bytes that are not UTF-8. A
// deployment must not depend on such luck. Package document therefore walks a text once, against the Go type that the
// text fills, and collects every fault with its position. A faulty value counts as not set when the rest is
// unmarshalled, so that the rest can be checked too.
package document

import (
	"encoding/json"
	"reflect"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// Limits bound a document.
type Limits struct {
	Bytes int // of the whole text
	Depth int // levels of nesting
	List  int // elements of a list that fills a Go type
}

// Decode reads a document into a pointer to a struct, and has the values checked by validate. It returns the faults of
// both, each with its position.
func Decode(data []byte, into any, limits Limits, validate func() []fault.Field) []fault.Field {
	if len(data) > limits.Bytes {
		return []fault.Field{fault.Larger("", len(data), limits.Bytes, "bytes")}
	}
	w := walk(data, reflect.TypeOf(into).Elem(), "", limits, 0)
	if w.dec == nil {
		return w.faults.List()
	}
	if err := json.Unmarshal(w.sound(), into); err != nil && !w.faults.Any() {
		return []fault.Field{fault.Invalidf("", "%v", err)} // cannot be: every value was tried
	}
	for _, f := range validate() {
		w.judge(f)
	}
	return w.faults.List()
}

// Check returns the faults of a JSON value of any shape: its syntax, its depth, repeated fields. The value stands inside
// that many levels of its document, so that no part is accepted of a document that could not be read back.
func Check(path string, data []byte, limits Limits, levels int) []fault.Field {
	if plain(data, limits.Depth-levels) {
		return nil
	}
	w := walk(data, nil, path, limits, levels)
	return w.faults.List()
}
