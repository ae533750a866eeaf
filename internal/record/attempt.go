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
	Frame     string       `json:"frame,omitempty"`  // of a panic: the first frame of the code of the program
	Code      string       `json:"reason,omitempty"` // one of few values, which the driver has given
}

// Failure says why a run or a step has not succeeded, in values of which there are few.
type Failure struct {
	Class fault.Class `json:"errorKind,omitempty"`
	Code  string      `json:"errorReason,omitempty"` // which the driver has given
}

// append writes the members of a failure.
func (f *Failure) append(w *writer) {
	w.text("errorKind", string(f.Class), false)
	w.text("errorReason", f.Code, false)
}
