package record

import (
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/store"
)

// Pipeline is the record of a pipeline as it is now. The definition is kept apart under its hash; see [DefinitionKey].
type Pipeline struct {
	Hash     string            `json:"hash"`
	Resource string            `json:"resource"` // the type of the resources
	OnChange ChangePolicy      `json:"onChange,omitzero"`
	Resync   document.Duration `json:"resync,omitzero"`
	MaxRuns  int               `json:"maxRuns,omitempty"`
	Planned  bool              `json:"planned,omitempty"` // a Planner of the program plans the steps of each run

	Saved Time `json:"saved"`
	// Rev is the revision at which the record was read. It is not part of the record.
	Rev store.Revision `json:"-"`
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (p *Pipeline) Check() string {
	return unless(p.Hash != "" && refers(p.Hash) && p.Resource != "", "has no definition, or no type")
}
