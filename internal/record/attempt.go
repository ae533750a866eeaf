package record

import "github.com/conveyor-go/conveyor/internal/fault"

// Attempt is the record of a failed attempt of a step.
type Attempt struct {
	Started Time       `json:"started"`
	Ended   Time       `json:"ended"`
	Error   string     `json:"error"`
	Kind    fault.Kind `json:"kind,omitempty"`
	Stack   string     `json:"stack,omitempty"`
}
