package document

import (
	"fmt"
	"slices"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Enum gives an enumeration its names. The zero value of the enumeration has the empty name.
type Enum[T ~uint8] struct {
	What  string   // what the enumeration is, for error texts
	Names []string // by value
}

// Text returns the name of v for people: "unset" for the zero value, and the number for a value without a name.
func (e Enum[T]) Text(v T) string {
	if int(v) >= len(e.Names) {
		return fmt.Sprintf("%s(%d)", e.What, v)
	}
	if v == 0 {
		return "unset"
	}
	return e.Names[v]
}

// Marshal returns the name of v for documents. It returns an error for a value without a name.
func (e Enum[T]) Marshal(v T) ([]byte, error) {
	if int(v) >= len(e.Names) {
		return nil, fmt.Errorf("%w: %s %d", fault.Invalid, e.What, v)
	}
	return []byte(e.Names[v]), nil
}

// Unmarshal sets into to the value with a name. It returns a [fault.Text] if no value has the name.
func (e Enum[T]) Unmarshal(name []byte, into *T) error {
	i := slices.Index(e.Names, string(name))
	if i < 0 {
		return &fault.Text{Problem: text.Quote(string(name)) + " is no " + e.What}
	}
	*into = T(i)
	return nil
}
