package document

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
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

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; ; {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
}

// tooDeep returns the offset of the first bracket beyond a depth, or -1.
func tooDeep(data []byte, limit int) int {
	depth, text := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '[' || c == '{':
			if depth++; depth > limit {
				return i
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return -1
}

// syntaxError returns the offset of the byte that cannot be, or of the end of the text if something is missing there.
func syntaxError(data []byte, err error) int {
	var first json.RawMessage
	missing := json.NewDecoder(bytes.NewReader(data)).Decode(&first)
	if s := (*json.SyntaxError)(nil); errors.As(err, &s) && !errors.Is(missing, io.ErrUnexpectedEOF) && !errors.Is(missing, io.EOF) {
		return int(s.Offset) - 1
	}
	return len(data)
}

// judge takes up a fault that a look at the values has brought up: it gets the position of the value, or of what the
// value is missing from. What merely follows from a fault of the text is left out.
func (w *walker) judge(f fault.Field) {
	for path := f.Path; !w.faulty[path]; path = path[:max(strings.LastIndexAny(path, ".["), 0)] {
		if at, ok := w.places[path]; ok || path == "" {
			f.Line, f.Column = position(w.data, at)
			w.faults.Add(f)
			return
		}
	}
}

// here names the value being walked, in at most maxField bytes. Only what needs the name pays for it: a field with a
// long one may hold a great many values, and faults.
func (w *walker) here() string {
	var b strings.Builder
	b.WriteString(w.field)
	for _, s := range w.path {
		switch {
		case b.Len() > maxField:
		case !s.object:
			fmt.Fprintf(&b, "[%d]", s.index)
		case b.Len() > 0:
			b.WriteString("." + text.Truncate(s.name, maxField))
		default:
			b.WriteString(text.Truncate(s.name, maxField))
		}
	}
	return text.Truncate(b.String(), maxField)
}

func (w *walker) fault(offset int, problem string) {
	w.report(offset, func(path string) fault.Field { return fault.Invalidf(path, "%s", problem) })
}

func (w *walker) faultTooDeep(offset, depth int) {
	w.report(offset, func(path string) fault.Field { return fault.Larger(path, depth, w.maxDepth, "levels deep") })
}

func (w *walker) report(offset int, problem func(path string) fault.Field) {
	if w.faults.Full() {
		return
	}
	path := w.here()
	w.faulty[path] = true
	f := problem(path)
	f.Line, f.Column = position(w.data, offset)
	w.faults.Add(f)
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

// misfit says why a value does not fit a shape, or nothing.
func misfit(token json.Token, shape reflect.Type) string {
	want := wanted(shape)
	if want == "" {
		return ""
	}
	if got := kindOfToken(token); got != want {
		return fmt.Sprintf("is %s; want %s", article(got), article(want))
	}
	switch v := token.(type) {
	case string:
		if value, ok := reflect.New(shape).Interface().(encoding.TextUnmarshaler); ok {
			if err := value.UnmarshalText([]byte(v)); err != nil {
				return text.Truncate(err.Error(), maxField)
			}
		}
	case json.Number:
		if err := json.Unmarshal([]byte(v), reflect.New(shape).Interface()); err != nil {
			return fmt.Sprintf("%s does not fit %s", text.Truncate(v.String(), text.MaxName), shape)
		}
	}
	return ""
}

// halfCharacter says that a text has an escape for half of a character, such as \ud800. What would be made of it is
// another character, the same for all of them. Where the text is kept as it is written it does no harm.
func (w *walker) halfCharacter(token json.Token, at int) string {
	if text, ok := token.(string); !ok || !strings.ContainsRune(text, utf8.RuneError) {
		return ""
	}
	for text := w.data[at:w.dec.InputOffset()]; ; {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return ""
		}
		first, second := escaped(text[i:]), rune(-1)
		if utf16.IsSurrogate(first) {
			second = escaped(text[i+6:])
		}
		switch {
		case first < 0:
			text = text[i+2:]
		case second < 0 && !utf16.IsSurrogate(first):
			text = text[i+6:]
		case utf16.DecodeRune(first, second) != utf8.RuneError:
			text = text[i+12:]
		default:
			return fmt.Sprintf("has half of a character: %s", text[i:i+6])
		}
	}
}

// escaped returns the number of an escape like \u0041 that a text begins with, or -1. The text is valid JSON.
func escaped(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

func unknownField(name string, known map[string]member) string {
	for k := range known {
		if strings.EqualFold(k, name) {
			return fmt.Sprintf("unknown field; did you mean %q? Case matters", k)
		}
	}
	return "unknown field"
}

// member is a field of a struct, or an element, as a document knows it. A nil shape takes any JSON.
type member struct {
	named    bool // it is a field of a struct
	shape    reflect.Type
	nullable bool // null stands for "not set": Conveyor CI writes that for a description and for metadata
}

var fieldCache sync.Map // reflect.Type -> map[string]member

// fieldsOf returns the JSON fields of a struct type, and nil for every other type.
func fieldsOf(shape reflect.Type) map[string]member {
	if shape == nil || shape.Kind() != reflect.Struct {
		return nil
	}
	if cached, ok := fieldCache.Load(shape); ok {
		return cached.(map[string]member)
	}
	members := map[string]member{}
	for _, f := range reflect.VisibleFields(shape) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "" || name == "-" {
			continue
		}
		of := f.Type
		nullable := name == "metadata" || name == "description"
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of == reflect.TypeFor[json.RawMessage]() {
			of, nullable = nil, true
		}
		members[name] = member{named: true, shape: of, nullable: nullable}
	}
	fieldCache.Store(shape, members)
	return members
}

// elementOf is what an array or an object without fixed fields is made of.
func elementOf(shape reflect.Type) member {
	if shape == nil || shape.Kind() != reflect.Slice && shape.Kind() != reflect.Map {
		return member{nullable: true}
	}
	return member{shape: shape.Elem()}
}

// wanted names the JSON kind that fills shape; "" for any.
func wanted(shape reflect.Type) string {
	if shape == nil {
		return ""
	}
	if reflect.PointerTo(shape).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "string"
	}
	switch shape.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "number"
	case reflect.Slice:
		return "array"
	case reflect.Struct, reflect.Map:
		return "object"
	default:
		return ""
	}
}

func kindOfToken(token json.Token) string {
	switch t := token.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case json.Number:
		return "number"
	case json.Delim:
		if t == '[' {
			return "array"
		}
		return "object"
	default:
		return "null"
	}
}

func article(kind string) string {
	switch kind {
	case "null":
		return kind
	case "array", "object":
		return "an " + kind
	default:
		return "a " + kind
	}
}

// position turns an offset into a line and a column, both counted from 1, the column in bytes.
func position(data []byte, offset int) (line, column int) {
	before := data[:min(max(offset, 0), len(data))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
