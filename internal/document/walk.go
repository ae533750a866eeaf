package document

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// A walker goes once through a document.
type walker struct {
	data     []byte
	dec      *json.Decoder // nil if data is no JSON
	field    string        // of the whole
	path     []segment     // from there to the value being walked
	maxDepth int
	maxList  int  // elements of a list that has a Go type
	deep     bool // reported once; one fault a bracket would drown the others
	faults   fault.Fields
	faulty   map[string]bool // the fields that faults are about
	places   map[string]int  // offsets of the values that have a Go type, by field
	clean    []byte          // data without its faulty values, up to dirty
	dirty    int
}

// segment is one step of a path: into an object by a name, or into an array.
type segment struct {
	name   string
	index  int
	object bool
}

const (
	maxPlaces = 1 << 14 // positions kept, whatever a document holds; others are found by what they are part of
	maxField  = 1 << 10 // bytes of a field in a fault
)

// walk goes through data as a document for shape, or as what stands in so many levels of one; nil stands for any shape.
func walk(data []byte, shape reflect.Type, field string, limits Limits, levels int) *walker {
	w := &walker{
		data: data, field: field, maxDepth: limits.Depth, maxList: limits.List,
		faulty: map[string]bool{}, places: map[string]int{},
	}
	if i := invalidUTF8(data); i >= 0 {
		w.fault(i, "invalid UTF-8")
		return w
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		// The standard decoder takes very deep nesting for a fault of the syntax.
		if at := tooDeep(data, limits.Depth-levels); at >= 0 {
			w.faultTooDeep(at, limits.Depth+1)
		} else {
			w.fault(syntaxError(data, err), "not one JSON value: "+strings.TrimPrefix(err.Error(), "json: "))
		}
		return w
	}
	w.dec = json.NewDecoder(bytes.NewReader(data))
	w.dec.UseNumber()
	w.value(member{shape: shape, nullable: shape == nil}, levels)
	return w
}

// value walks one value that shall fill a member, inside so many levels of nesting.
func (w *walker) value(m member, depth int) {
	clean, dirty := len(w.clean), w.dirty
	token, at := w.next()
	if (m.named || m.shape != nil) && len(w.places) < maxPlaces {
		w.places[w.here()] = at
	}
	shape, problem := m.shape, ""
	if !(token == nil && m.nullable) {
		problem = misfit(token, shape)
	}
	if problem == "" && m.shape != nil {
		problem = w.halfCharacter(token, at)
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
				// What would be made of it is many times as large as the text.
				problem = "is too long"
				w.report(at, func(path string) fault.Field { return fault.Larger(path, n, w.maxList, "steps") })
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
		return nil, at // cannot be: the syntax was checked
	}
	return token, at
}

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

func (w *walker) object(shape reflect.Type, depth int) {
	known := fieldsOf(shape)
	seen := map[string]bool{}
	for w.dec.More() {
		token, at := w.next()
		name, _ := token.(string)
		if shape != nil {
			if problem := w.halfCharacter(token, at); problem != "" {
				w.fault(at, "has a name that "+problem)
			}
		}
		w.path = append(w.path, segment{name: name, object: true})
		if seen[name] {
			w.fault(at, "comes twice")
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

// drop has the value between two offsets count as not set.
func (w *walker) drop(from, to int) {
	w.clean = append(append(w.clean, w.data[w.dirty:from]...), "null"...)
	w.dirty = to
}

// sound is the document without the values that were dropped.
func (w *walker) sound() []byte {
	if w.dirty == 0 {
		return w.data
	}
	return append(w.clean, w.data[w.dirty:]...)
}
