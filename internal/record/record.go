// Package record holds what the engine keeps in a store: the keys, the records, their checks and their encoding. It must
// not know how records are read or written, and it takes no decision about a run.
package record

import (
	"fmt"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// Key identifies a resource by its type and its name.
type Key struct {
	Type string `json:"resource"`
	Name string `json:"name"`
}

// String returns "type/name".
func (k Key) String() string { return k.Type + "/" + k.Name }

// Rewritable returns nil if this program can rewrite a record on a shared store that needs a format, and an error that wraps
// [fault.Unsupported] otherwise. Rewriting drops the fields that this program does not know.
//
// A program that writes such a field of a resource must do so only while no engine of a lower format has the active run of the
// resource, because that engine has to note in the record of the resource that the run has ended. It raises what the unfinished runs of
// the resource need in the same commit, so that no such engine makes one of them its own.
func Rewritable(needs int) error {
	if needs <= SharedVersion {
		return nil
	}
	return fmt.Errorf("%w: its records have format %d, and this program knows %d; make the call with the newer program", fault.Unsupported, needs, SharedVersion)
}

// Format is the record under [FormatKey]. It holds the version of the records in the store.
type Format struct {
	Format int `json:"format"`
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (f *Format) Check() string { return unless(f.Format >= 1, "has no format") }
