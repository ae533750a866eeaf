package document

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// member is what a value of a document fills: a field of a struct, an element of a list, or a value of a map.
type member struct {
	named    bool         // the member is a field of a struct
	shape    reflect.Type // nil accepts any JSON
	nullable bool         // null means "not set"; Conveyor CI writes null for a description and for metadata
	text     bool         // the member accepts any JSON, and a text is decoded later
}

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

var fieldCache sync.Map // reflect.Type -> map[string]member

// elementOf returns the member that each element of a list, or each value of a map, fills.
func elementOf(shape reflect.Type) member {
	if shape == nil || shape.Kind() != reflect.Slice && shape.Kind() != reflect.Map {
		return member{nullable: true}
	}
	if shape.Elem() == reflect.TypeFor[json.RawMessage]() {
		return member{nullable: true, text: true}
	}
	return member{shape: shape.Elem()}
}

// unknownField returns the problem of a field with an unknown name.
func unknownField(name string, known map[string]member) string {
	for k := range known {
		if strings.EqualFold(k, name) {
			return fmt.Sprintf("unknown field; did you mean %q? Case matters", k)
		}
	}
	return "unknown field"
}

// misfit returns why a value does not fit a shape, and an empty text if it does.
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
				if t, ok := fault.As[*fault.Text](err); ok {
					return t.Problem
				}
				return text.Plain(text.Truncate(err.Error(), maxField))
			}
		}
	case json.Number:
		if err := json.Unmarshal([]byte(v), reflect.New(shape).Interface()); err != nil {
			return fmt.Sprintf("%s does not fit %s", text.Truncate(v.String(), text.MaxName), shape)
		}
	}
	return ""
}

// wanted returns the JSON kind that fills a shape, and an empty text if any kind does.
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

// kindOfToken returns the JSON kind of the value that begins with a token.
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

// article returns a JSON kind with its article.
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
