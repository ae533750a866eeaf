package plan

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/retry"
)

// Step is one step of a plan. The type Step of the root package has the same fields and documents them for users.
type Step struct {
	// ID is unique in the plan. The progress of the step is recorded under this id.
	ID string `json:"id"`
	// Name is for people.
	Name string `json:"name,omitempty"`
	// Driver is the name of the driver that carries out the step. One driver can serve several steps.
	Driver string `json:"driver"`
	// After lists the ids of the steps that must be done before this step. A step without After comes after all the steps
	// listed before it. A step with After comes after those that it names and no others. An empty After that is not nil
	// names none.
	After []string `json:"after,omitzero"`
	// With is any JSON: the settings for this use of the driver.
	With  json.RawMessage `json:"with,omitempty"`
	Retry *retry.Policy   `json:"retry,omitempty"`
	// Timeout limits one attempt. 0 means that the step sets no timeout of its own.
	Timeout document.Duration `json:"timeout,omitzero"`
	// ContinueOnError tolerates a failure of this step: the steps after it still start, and the run can still
	// succeed.
	ContinueOnError bool `json:"continueOnError,omitempty"`
}

// Clone returns a copy that shares no memory with s.
func (s Step) Clone() Step {
	s.After = slices.Clone(s.After)
	s.With = bytes.Clone(s.With)
	s.Retry = ClonePtr(s.Retry)
	return s
}

// ClonePtr returns a pointer to a copy of *p, and nil if p is nil.
func ClonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
