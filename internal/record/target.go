package record

// Target is what a run takes up when it begins.
type Target struct {
	Generation int64
	Pipeline   string
	Metadata   map[string]string
	Version    int64
	Updated    Time
	Spec       []byte
}

// Newest is the newest generation of a resource.
func (r *Resource) Newest(spec []byte) *Target {
	return &Target{
		Generation: r.Generation, Pipeline: r.Pipeline, Metadata: r.Metadata, Version: r.Version, Updated: r.Updated, Spec: spec,
	}
}
