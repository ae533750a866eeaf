package record

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/text"
)

// checker is a record that recognizes values that no program has written. Decode calls Check, so that the rest of the
// engine can rely on the result. A damaged record can still be JSON, and must not be taken for another record.
type checker interface {
	// Check returns what is wrong with the record, and an empty text if nothing is.
	Check() string
}

// refers reports whether each text is empty or a valid name. Only a valid name can be part of the key of another record.
func refers(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return name != "" && text.NameFault(name) != "" })
}

const refersToNothing = "refers to what cannot be"

// unless returns an empty text if good is set, and problem otherwise.
func unless(good bool, problem string) string {
	if good {
		return ""
	}
	return problem
}
