package plan

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/retry"
)

// Step is one step of a pipeline.
type Step struct {
	// ID is unique in the pipeline. The progress of a run is recorded under this id. Empty means the position of the
	// step: "1", "2", and so on. In the Finally of a pipeline whose steps are planned (see [Planner]), empty means
	// "finally-1", "finally-2", and so on.
	ID string `json:"id"`
	// Name is for people.
	Name string `json:"name,omitempty"`
	// Driver is the name of the driver that carries out the step. One driver can serve several steps.
	Driver string `json:"driver"`
	// After lists the ids of the steps that must come before this step. If no step of the pipeline has an After, the
	// steps run in the order of the list. If any step has one, a step without After starts at once.
	After []string `json:"after,omitempty"`
	// With is any JSON: the settings for this use of the driver (see [Request.Settings]).
	With  json.RawMessage `json:"with,omitempty"`
	Retry *retry.Policy   `json:"retry,omitempty"`
	// Timeout limits one attempt. 0 means the timeout of the driver (see [Timeout]) or, if it has none,
	// [Options].StepTimeout.
	Timeout document.Duration `json:"timeout,omitzero"`
	// ContinueOnError tolerates a failure of this step: the steps after it still start, and the run can still
	// succeed.
	ContinueOnError bool `json:"continueOnError,omitempty"`
}

func (s Step) Clone() Step {
	s.After = slices.Clone(s.After)
	s.With = bytes.Clone(s.With)
	s.Retry = ClonePtr(s.Retry)
	return s
}

func ClonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
