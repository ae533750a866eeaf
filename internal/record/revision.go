package record

import "encoding/json"

// Revision is written once for each generation.
type Revision struct {
	Pipeline string            `json:"pipeline,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"` // as it was when the generation was made
	Version  int64             `json:"version"`
	At       Time              `json:"at"`
	Spec     json.RawMessage   `json:"spec,omitempty"`
}

func (r *Revision) Check() string {
	return unless(r.Version >= 1 && refers(r.Pipeline), "has no version, or no pipeline that can be")
}

// Tombstone keeps the generations of a name growing when it is used again.
type Tombstone struct {
	Generation int64 `json:"generation"`
}

func (g *Tombstone) Check() string { return unless(g.Generation >= 1, "has no generation") }
