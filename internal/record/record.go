package record

// Key identifies a resource by its type and its name.
type Key struct {
	Type string `json:"resource"`
	Name string `json:"name"`
}

// String returns "type/name".
func (k Key) String() string { return k.Type + "/" + k.Name }

type Format struct {
	Format int `json:"format"`
}

func (f *Format) Check() string { return unless(f.Format >= 1, "has no format") }
