// Package document reads JSON strictly and writes it. It must not know which documents there are: the caller passes the Go
// type, the limits and a function that checks the values.
//
// The standard decoder accepts "Driver" for "driver", the second of two equal fields, and bytes that are not UTF-8. A
// deployment must not depend on chance. Package document therefore walks a text once, against the Go type that the text
// fills, and collects every fault with its position. A faulty value counts as not set when the rest is unmarshalled, so
// that the rest can be checked too.
package document

import (
	"encoding/json"
	"reflect"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// Limits bound the size of a document. A fault names the field of a program's Limits that sets the bound: Document, Depth or
// Steps.
type Limits struct {
	Bytes int // of the whole text
	Depth int // levels of nesting
	List  int // elements of a list that fills a Go type
}

// Decode reads a document into a pointer to a struct, and then calls validate, which checks the values. It returns the
// faults of the text and of the values, each with its position.
func Decode(data []byte, into any, limits Limits, validate func() []fault.Field) []fault.Field {
	if len(data) > limits.Bytes {
		return []fault.Field{fault.Larger("", len(data), limits.Bytes, "bytes", "Limits.Document")}
	}
	w := walk(data, reflect.TypeOf(into).Elem(), "", limits, 0)
	if w.dec == nil {
		return w.faults.List()
	}
	if err := json.Unmarshal(w.sound(), into); err != nil && !w.faults.Any() {
		return []fault.Field{fault.Invalidf("", "%v", err)} // cannot happen: every value was decoded once by the walk
	}
	for _, f := range validate() {
		w.locate(f)
	}
	return w.faults.List()
}

// Check returns the faults of a JSON value of any shape: faults of the syntax, a nesting that is too deep, and repeated
// fields. The value is nested levels deep in a document. These levels count, so that a value is refused if the whole
// document could not be read back.
func Check(path string, data []byte, limits Limits, levels int) []fault.Field {
	if fastCheck(data, limits.Depth-levels) {
		return nil
	}
	w := walk(data, nil, path, limits, levels)
	return w.faults.List()
}
