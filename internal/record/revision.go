package record

import "encoding/json"

// Revision is the record of one generation of a resource. It is written once, together with the resource.
type Revision struct {
	Pipeline string          `json:"pipeline,omitempty"`
	Metadata Metadata        `json:"metadata,omitempty"` // the metadata at the time when the generation was made
	Version  int64           `json:"version"`
	At       Time            `json:"at"`
	By       string          `json:"by,omitempty"` // who has made the generation
	Spec     json.RawMessage `json:"spec,omitempty"`
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (r *Revision) Check() string {
	return unless(r.Version >= 1 && refers(r.Pipeline), "has no version, or no pipeline that can be")
}

// Tombstone is the record of a name whose resource was deleted. When the name is used again, its generations and the
// numbers of its runs continue after those in the tombstone.
type Tombstone struct {
	Generation int64 `json:"generation"`
	LastRun    int64 `json:"lastRun,omitempty"` // as in Resource
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (g *Tombstone) Check() string {
	return unless(g.Generation >= 1 && g.LastRun >= 0, "has no generation, or a negative number")
}
