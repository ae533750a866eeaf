// Package record holds what the engine keeps in a store: the keys, the records, their checks and their encoding. It must
// not know how records are read or written, and it takes no decision about a run.
package record

// Key identifies a resource by its type and its name.
type Key struct {
	Type string `json:"resource"`
	Name string `json:"name"`
}

// String returns "type/name".
func (k Key) String() string { return k.Type + "/" + k.Name }

// Format is the record under [FormatKey]. It holds the version of the records in the store.
type Format struct {
	Format int `json:"format"`
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (f *Format) Check() string { return unless(f.Format >= 1, "has no format") }
