package record

import (
	"encoding/json"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Letter is the record of a resource that somebody asks the engines on a shared store to apply, in a transaction of his own. It is
// written once and never changed.
type Letter struct {
	Type     string          `json:"resource"`
	Name     string          `json:"name"`
	Pipeline string          `json:"pipeline,omitempty"`
	Metadata Metadata        `json:"metadata,omitempty"`
	Version  int64           `json:"version,omitempty"` // that the resource must have; 0 for any
	Spec     json.RawMessage `json:"spec,omitempty"`
	Created  Time            `json:"created"`
	Origin
}

// Key returns the key of the resource.
func (l *Letter) Key() Key { return Key{Type: l.Type, Name: l.Name} }

// Check returns what is wrong with the record, and an empty text if nothing is.
func (l *Letter) Check() string {
	return unless(text.NameFault(l.Type) == "" && text.NameFault(l.Name) == "" && refers(l.Pipeline) && l.Created > 0, "is no letter")
}

// Answered is the record of what has become of a [Letter]: the run that reconciles the resource, or why there is none.
type Answered struct {
	Type      string       `json:"resource"`
	Name      string       `json:"name"`
	By        string       `json:"by,omitempty"`
	Created   Time         `json:"created"` // of the letter
	At        Time         `json:"at"`
	Run       string       `json:"run,omitempty"`
	Error     string       `json:"error,omitempty"` // why it was refused; then Run is empty
	Kind      fault.Kind   `json:"kind,omitempty"`  // the first kind of the error
	AlsoKinds []fault.Kind `json:"also,omitempty"`  // the others
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (a *Answered) Check() string {
	return unless(text.NameFault(a.Type) == "" && text.NameFault(a.Name) == "" && refers(a.Run) && a.At > 0 && (a.Run == "") != (a.Error == ""), "is no answer")
}

// LetterKey returns the key of a [Letter].
func LetterKey(id string) string { return LetterPrefix + id }

// AnsweredKey returns the key of what has become of a [Letter].
func AnsweredKey(id string) string { return AnsweredPrefix + id }
