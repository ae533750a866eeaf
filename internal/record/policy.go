package record

import "github.com/conveyor-go/conveyor/internal/document"

// ChangePolicy defines what happens when a resource changes during its run.
type ChangePolicy uint8

const (
	// Coalesce lets the run end. Then the newest generation is reconciled, once.
	Coalesce ChangePolicy = iota + 1
	// Supersede cancels the run first. Then the newest generation is reconciled.
	Supersede
	// Queue reconciles every generation in a run of its own, one after the other, in order.
	Queue
)

var changePolicyNames = document.Enum[ChangePolicy]{What: "change policy", Names: []string{"", "coalesce", "supersede", "queue"}}

// String returns the name that documents use, and "unset" for the zero value.
func (c ChangePolicy) String() string { return changePolicyNames.Text(c) }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (c ChangePolicy) MarshalText() ([]byte, error) { return changePolicyNames.Marshal(c) }

// UnmarshalText accepts exactly what MarshalText returns.
func (c *ChangePolicy) UnmarshalText(b []byte) error { return changePolicyNames.Unmarshal(b, c) }
