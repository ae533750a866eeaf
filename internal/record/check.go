package record

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/text"
)

// checker is a record that knows what no program has ever written. It is asked when it was read, so that what follows
// may rely on it: a record that is damaged, and still JSON, must not pass for another one.
type checker interface {
	// Check says what is wrong, or nothing.
	Check() string
}

// refers says that texts are names under which other records may be found, or empty. What is none may be anything.
func refers(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return name != "" && text.NameFault(name) != "" })
}

const refersToNothing = "refers to what cannot be"

func unless(good bool, problem string) string {
	if good {
		return ""
	}
	return problem
}
