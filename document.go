package conveyor

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"unicode/utf8"
)

// Documents are decoded strictly. The standard decoder takes "Driver" for "driver", the second of two equal fields,
// and bytes that are no UTF-8; a deployment must not depend on such luck. So a document is walked once, against the
// Go type it shall fill, and every fault is collected with its position; only a faultless one is then unmarshalled.

// readDocument reads one document from r into a pointer to a struct, strictly, and has the values checked by
// validate. It reports the faults of both, each with its position.
func readDocument(r io.Reader, into any, limits Limits, validate func() error) error {
	data, err := io.ReadAll(io.LimitReader(r, int64(limits.Document)+1))
	if err != nil {
		return fmt.Errorf("conveyor: read document: %w", err)
	}
	if len(data) > limits.Document {
		return &FieldError{Problem: fmt.Sprintf("document has more than the limit of %d bytes", limits.Document), kind: ErrTooLarge}
	}
	w := walk(data, reflect.TypeOf(into).Elem(), "", limits)
	if !w.hopeless {
		// Even of a faulty document the values can be looked at, so that all is told at once.
		w.faults.add(w.unmarshal(into))
		for _, err := range split(validate()) {
			w.faults.add(w.located(err))
		}
	}
	return w.faults.join()
}

// decodeStrict fills into, a pointer to a struct, from one JSON document.
func decodeStrict(data []byte, into any, limits Limits) error {
	if len(data) > limits.Document {
		return tooLarge("", len(data), limits.Document, "bytes")
	}
	w := walk(data, reflect.TypeOf(into).Elem(), "", limits)
	if len(w.faults.errs) == 0 {
		w.faults.add(w.unmarshal(into))
	}
	return w.faults.join()
}

// checkJSON reports the faults of a JSON value of any shape: its syntax, its depth, repeated fields.
func checkJSON(field string, data []byte, limits Limits) error {
	w := walk(data, nil, field, limits)
	return w.faults.join()
}

// walk goes through data as a document for shape; nil stands for any shape.
func walk(data []byte, shape reflect.Type, field string, limits Limits) *walker {
	w := &walker{data: data, maxDepth: limits.Depth}
	if shape != nil {
		w.places = map[string]int{}
	}
	if i := invalidUTF8(data); i >= 0 {
		w.fault(i, field, "invalid UTF-8")
		w.hopeless = true
		return w
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		at := len(data)
		if s := (*json.SyntaxError)(nil); errors.As(err, &s) {
			at = max(int(s.Offset)-1, 0)
		}
		w.fault(at, field, "not one JSON value: "+strings.TrimPrefix(err.Error(), "json: "))
		w.hopeless = true
		return w
	}
	w.dec = json.NewDecoder(bytes.NewReader(data))
	w.dec.UseNumber()
	w.value(shape, field, 0, shape == nil)
	return w
}

// unmarshal fills into. What can still be wrong are values of the right kind that do not fit, such as a duration that
// is none; what is of the wrong kind was reported by the walk.
func (w *walker) unmarshal(into any) error {
	err := json.Unmarshal(w.data, into)
	if t := (*json.UnmarshalTypeError)(nil); errors.As(err, &t) {
		if w.mistyped {
			return nil
		}
		f := invalid(t.Field, "%s does not fit %s", t.Value, t.Type)
		f.Line, f.Column = position(w.data, int(t.Offset))
		return f
	}
	if err != nil {
		return invalid("", "%v", err)
	}
	return nil
}

// located gives a fault of a value the position of the value, or of what it is missing from.
func (w *walker) located(err error) error {
	f := (*FieldError)(nil)
	if !errors.As(err, &f) || f.Line > 0 {
		return err
	}
	for path := f.Field; path != ""; path = path[:max(strings.LastIndexAny(path, ".["), 0)] {
		if at, ok := w.places[path]; ok {
			f.Line, f.Column = position(w.data, at)
			return f
		}
	}
	return f
}

// split is the reverse of errors.Join.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
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

// A walker goes once through a document whose syntax is known to be right.
type walker struct {
	data     []byte
	dec      *json.Decoder
	maxDepth int
	tooDeep  bool           // reported once; one fault a bracket would drown the others
	mistyped bool           // some value is of the wrong kind
	hopeless bool           // not JSON at all
	places   map[string]int // where the value of each field starts; nil when nobody asks
	faults   faults
}

func (w *walker) fault(offset int, field, problem string) {
	f := invalid(field, "%s", problem)
	f.Line, f.Column = position(w.data, offset)
	w.faults.add(f)
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

// value walks one value that shall fill shape; nil takes anything.
func (w *walker) value(shape reflect.Type, field string, depth int, nullable bool) {
	token, at := w.next()
	if w.places != nil && shape != nil {
		w.places[field] = at
	}
	delim, isDelim := token.(json.Delim)
	if want := wanted(shape); want != "" && !(token == nil && nullable) {
		if got := kindOfToken(token); got != want {
			w.fault(at, field, fmt.Sprintf("is %s; want %s", article(got), article(want)))
			shape, w.mistyped = nil, true
		}
	}
	if !isDelim {
		return
	}
	if depth++; depth > w.maxDepth && !w.tooDeep {
		w.tooDeep = true
		f := tooLarge(field, depth, w.maxDepth, "levels deep")
		f.Line, f.Column = position(w.data, at)
		w.faults.add(f)
	}
	if delim == '[' {
		element := elementOf(shape)
		for i := 0; w.dec.More(); i++ {
			w.value(element, fmt.Sprintf("%s[%d]", field, i), depth, element == nil)
		}
	} else {
		w.object(shape, field, depth)
	}
	w.next() // the closing bracket
}

func (w *walker) object(shape reflect.Type, field string, depth int) {
	known := fieldsOf(shape)
	seen := map[string]bool{}
	for w.dec.More() {
		token, at := w.next()
		name, _ := token.(string)
		path := name
		if field != "" {
			path = field + "." + name
		}
		if seen[name] {
			w.fault(at, path, "comes twice")
		}
		seen[name] = true
		of, nullable := elementOf(shape), true
		if known != nil {
			member, ok := known[name]
			if !ok {
				w.fault(at, path, unknownField(name, known))
			}
			of, nullable = member.shape, !ok || member.nullable
		}
		w.value(of, path, depth, nullable)
	}
}

func unknownField(name string, known map[string]member) string {
	for k := range known {
		if strings.EqualFold(k, name) {
			return fmt.Sprintf("unknown field; did you mean %q? Case matters", k)
		}
	}
	return "unknown field"
}

// member is a field of a struct, as a document knows it. A nil shape takes any JSON.
type member struct {
	shape    reflect.Type
	nullable bool // null stands for "not set"
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
		nullable := of.Kind() == reflect.Map || of.Kind() == reflect.Pointer || name == "description"
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of == reflect.TypeFor[json.RawMessage]() {
			of, nullable = nil, true
		}
		members[name] = member{shape: of, nullable: nullable}
	}
	fieldCache.Store(shape, members)
	return members
}

func elementOf(shape reflect.Type) reflect.Type {
	if shape == nil || shape.Kind() != reflect.Slice && shape.Kind() != reflect.Map {
		return nil
	}
	return shape.Elem()
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

// faults collects what is wrong, so that all of it is reported at once.
type faults struct{ errs []error }

// maxFaults keeps the report of a hopeless document readable.
const maxFaults = 100

func (f *faults) add(err error) {
	if err == nil {
		return
	}
	if len(f.errs) == maxFaults {
		f.errs = append(f.errs, invalid("", "more faults than the %d listed", maxFaults))
	}
	if len(f.errs) < maxFaults {
		f.errs = append(f.errs, err)
	}
}

func (f *faults) name(field, name string) {
	if problem := nameFault(name); problem != "" {
		f.add(invalid(field, "%s", problem))
	}
}

func (f *faults) join() error {
	if len(f.errs) == 1 {
		return f.errs[0]
	}
	return errors.Join(f.errs...)
}
