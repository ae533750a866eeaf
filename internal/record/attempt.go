package record

import "github.com/conveyor-go/conveyor/internal/fault"

// Attempt is the record of a failed attempt of a step.
type Attempt struct {
	Started Time       `json:"started"`
	Ended   Time       `json:"ended"`
	Error   string     `json:"error"`
	Kind    fault.Kind `json:"kind,omitempty"` // the first kind of the error
	// AlsoKinds are the other kinds of the error. Records of the first version have none.
	AlsoKinds []fault.Kind `json:"also,omitempty"`
	Field     *fault.Field `json:"field,omitempty"` // the first fault of a field in the error
	Stack     string       `json:"stack,omitempty"`
}
