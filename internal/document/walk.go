package document

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// walker reads a document once, from the start to the end.
type walker struct {
	data     []byte
	dec      *json.Decoder // nil if data is no JSON
	field    string        // the field that the whole document fills
	path     []segment     // from field to the value that is being walked
	maxDepth int
	maxList  int  // the limit for the elements of a list that has a Go type
	deep     bool // a nesting that is too deep has been reported; one fault for each bracket would hide the others
	faults   fault.Fields
	faulty   map[string]bool // the fields that have a fault
	places   map[string]int  // the offsets of the values that have a Go type, by field
	clean    []byte          // data up to the offset dirty, without its faulty values
	dirty    int
}

// segment is one element of a path: a name in an object, or an index in an array.
type segment struct {
	name   string
	index  int
	object bool
}

const (
	maxPlaces = 1 << 14 // offsets that are kept; a fault of a value without one gets the position of an enclosing value
	maxField  = 1 << 10 // bytes of a field in a fault
)

// walk walks data as the value of a field, against the Go type shape; a nil shape accepts any JSON. The value is nested
// levels deep in its document.
func walk(data []byte, shape reflect.Type, field string, limits Limits, levels int) *walker {
	w := &walker{
		data: data, field: field, maxDepth: limits.Depth, maxList: limits.List,
		faulty: map[string]bool{}, places: map[string]int{},
	}
	if i := invalidUTF8(data); i >= 0 {
		problem := "invalid UTF-8"
		if isUTF16(data) {
			problem += ": " + saveAsUTF8
		}
		w.fault(i, problem)
		return w
	}
	var value json.RawMessage
	if err := json.Unmarshal(data, &value); err != nil {
		// The standard decoder reports very deep nesting as a fault of the syntax.
		if at := tooDeep(data, limits.Depth-levels); at >= 0 {
			w.faultTooDeep(at, limits.Depth+1)
		} else {
			at := syntaxError(data, err)
			problem := "not one JSON value: " + whole(data, at, strings.TrimPrefix(err.Error(), "json: "))
			if helps := remedy(data, at, field); helps != "" {
				problem += "; " + helps
			}
			w.fault(at, problem)
		}
		return w
	}
	w.dec = json.NewDecoder(bytes.NewReader(data))
	w.dec.UseNumber()
	w.value(member{shape: shape, nullable: shape == nil}, levels)
	return w
}

// value walks the next value, which is to fill m, inside depth levels of nesting.
func (w *walker) value(m member, depth int) {
	clean, dirty := len(w.clean), w.dirty
	token, at := w.next()
	if (m.named || m.text || m.shape != nil) && len(w.places) < maxPlaces {
		w.places[w.here()] = at
	}
	shape, problem := m.shape, ""
	if !(token == nil && m.nullable) {
		problem = misfit(token, shape)
	}
	if problem == "" && (m.shape != nil || m.text) {
		problem = w.loneSurrogate(token, at)
	}
	if problem != "" {
		w.fault(at, problem)
		shape = nil
	}
	if delim, ok := token.(json.Delim); ok {
		if depth++; depth > w.maxDepth && !w.deep {
			w.deep = true
			w.faultTooDeep(at, depth)
		}
		if delim == '[' {
			if n := w.array(shape, depth); shape != nil && n > w.maxList {
				// The decoded list would be many times as large as the text.
				problem = "is too long"
				w.report(at, func(path string) fault.Field { return fault.Larger(path, n, w.maxList, "steps", "Limits.Steps") })
				w.clean, w.dirty = w.clean[:clean], dirty
			}
		} else {
			w.object(shape, depth)
		}
		w.next() // the closing bracket
	}
	if problem != "" {
		w.drop(at, int(w.dec.InputOffset()))
	}
}

// next returns the next token and the offset at which it starts.
func (w *walker) next() (json.Token, int) {
	at := int(w.dec.InputOffset())
	for at < len(w.data) && strings.IndexByte(" \t\r\n,:", w.data[at]) >= 0 {
		at++
	}
	token, err := w.dec.Token()
	if err != nil {
		return nil, at // cannot happen: the syntax was checked
	}
	return token, at
}

// array walks the elements of an array and returns their number.
func (w *walker) array(shape reflect.Type, depth int) (n int) {
	element := elementOf(shape)
	w.path = append(w.path, segment{})
	for ; w.dec.More(); n++ {
		if shape != nil && n == w.maxList {
			element = member{nullable: true} // one fault is enough
		}
		w.path[len(w.path)-1].index = n
		w.value(element, depth)
	}
	w.path = w.path[:len(w.path)-1]
	return n
}

// object walks the members of an object.
func (w *walker) object(shape reflect.Type, depth int) {
	known := fieldsOf(shape)
	seen := map[string]bool{}
	var halves map[string]string // the problems of the names that have a lone surrogate; all of these can be the same name
	for w.dec.More() {
		token, at := w.next()
		name, _ := token.(string)
		if problem := w.loneSurrogate(token, at); problem != "" {
			if shape != nil {
				w.fault(at, "has a name that "+problem)
			}
			if halves == nil {
				halves = map[string]string{}
			}
			halves[name] = problem
		}
		w.path = append(w.path, segment{name: name, object: true})
		if seen[name] {
			if half := halves[name]; half == "" {
				w.fault(at, "comes twice")
			} else if shape == nil {
				w.fault(at, "cannot be told from another field: a name "+half)
			}
		}
		seen[name] = true
		m := elementOf(shape)
		if known != nil {
			var ok bool
			if m, ok = known[name]; !ok {
				m.nullable = true // one fault is enough
				w.fault(at, unknownField(name, known))
			}
		}
		w.value(m, depth)
		w.path = w.path[:len(w.path)-1]
	}
}

// drop replaces the value between two offsets by null in the text that sound returns.
func (w *walker) drop(from, to int) {
	w.clean = append(append(w.clean, w.data[w.dirty:from]...), "null"...)
	w.dirty = to
}

// sound returns the document with null in place of each value that was dropped.
func (w *walker) sound() []byte {
	if w.dirty == 0 {
		return w.data
	}
	return append(w.clean, w.data[w.dirty:]...)
}
