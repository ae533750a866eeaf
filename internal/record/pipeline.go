package record

import (
	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/store"
)

type Pipeline struct {
	Hash     string            `json:"hash"`
	Resource string            `json:"resource"` // the type it is for
	OnChange ChangePolicy      `json:"onChange,omitzero"`
	Resync   document.Duration `json:"resync,omitzero"`
	MaxRuns  int               `json:"maxRuns,omitempty"`
	Planned  bool              `json:"planned,omitempty"` // the steps are not in the definition

	Saved Time `json:"saved"`
	// Rev is the revision under which the record was read. It is not part of the record.
	Rev store.Revision `json:"-"`
}

func (p *Pipeline) Check() string {
	return unless(p.Hash != "" && refers(p.Hash) && p.Resource != "", "has no definition, or no type")
}
