package record

import "github.com/conveyor-go/conveyor/internal/document"

// Cause is the reason why a run exists.
type Cause uint8

const (
	Created   Cause = iota + 1 // the resource is new
	Updated                    // the spec or the pipeline of the resource changed
	Deleted                    // the resource is to be deleted
	Resynced                   // the pipeline's Resync asked for it, some time after a success
	Triggered                  // the program asked for it
	Retried                    // the run repeats an earlier run
)

var causeNames = document.Enum[Cause]{What: "cause", Names: []string{"", "created", "updated", "deleted", "resync", "triggered", "retried"}}

// String returns the name that documents use, and "unset" for the zero value.
func (c Cause) String() string { return causeNames.Text(c) }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (c Cause) MarshalText() ([]byte, error) { return causeNames.Marshal(c) }

// UnmarshalText accepts exactly what MarshalText returns.
func (c *Cause) UnmarshalText(b []byte) error { return causeNames.Unmarshal(b, c) }
