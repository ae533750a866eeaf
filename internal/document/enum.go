package document

import (
	"fmt"
	"slices"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// Enum gives an enumeration its names. The zero value has the empty name.
type Enum[T ~uint8] struct {
	What  string
	Names []string
}

func (e Enum[T]) Text(v T) string {
	if int(v) >= len(e.Names) {
		return fmt.Sprintf("%s(%d)", e.What, v)
	}
	if v == 0 {
		return "unset"
	}
	return e.Names[v]
}

func (e Enum[T]) Marshal(v T) ([]byte, error) {
	if int(v) >= len(e.Names) {
		return nil, fmt.Errorf("%w: %s %d", fault.Invalid, e.What, v)
	}
	return []byte(e.Names[v]), nil
}

func (e Enum[T]) Unmarshal(text []byte, into *T) error {
	i := slices.Index(e.Names, string(text))
	if i < 0 {
		return fmt.Errorf("%q is no %s", text, e.What)
	}
	*into = T(i)
	return nil
}
