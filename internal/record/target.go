package record

// Target is what a run pins of its resource when it begins.
type Target struct {
	Generation int64
	Pipeline   string
	Metadata   Metadata
	Version    int64
	Updated    Time
	UpdatedBy  string
	Spec       []byte
}

// Newest returns the target for the newest generation of the resource, whose spec the caller passes.
func (r *Resource) Newest(spec []byte) *Target {
	return &Target{
		Generation: r.Generation, Pipeline: r.Pipeline, Metadata: r.Metadata, Version: r.Version, Updated: r.Updated, UpdatedBy: r.UpdatedBy,
		Spec: spec,
	}
}
