package conveyor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Resource is desired state: a type, a name, a spec. Any pointer to a struct that embeds [Meta] is one, and so is an
// [*Object]. The struct marshals to a document with the fields of Meta and a "spec", and nothing else:
//
//	type DockerBuild struct {
//		conveyor.Meta
//		Spec struct{ Repository, Image string } `json:"spec"`
//	}
type Resource interface {
	// ResourceMeta returns the resource's own Meta, never a copy and never nil. It is promoted from Meta.
	ResourceMeta() *Meta
}

// Meta is what every resource has besides its spec. The program sets Name, Type, Pipeline and Metadata, and Version
// where it wants a compare-and-set; the engine alone sets the rest, and ignores what it finds there.
type Meta struct {
	// ID is given by the engine once per incarnation of a name: a name that was deleted and created anew has another
	// one. It is part of every idempotency key.
	ID string `json:"id,omitempty"`
	// Name is unique among the resources of one Type: 1 to 253 bytes of letters, digits, '.', '_' and '-', not
	// starting with a dot. So is Type.
	Name string `json:"name"`
	Type string `json:"resource"`
	// Pipeline names the pipeline that reconciles this resource. Empty: every driver that listens to Type does.
	Pipeline string `json:"pipeline,omitempty"`
	// Metadata is the program's own; the engine never writes here. A change of it alone starts no run.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Version counts the writes of this resource by the program: each Apply that changed anything, of spec, pipeline
	// or metadata. When it is not 0, Apply writes only over that very version and otherwise answers [ErrConflict].
	// What the engine writes into Status does not count, so that progress never makes a reader's copy stale.
	Version int64 `json:"version,omitempty"`
	// Generation counts the changes of the spec or of the pipeline's name. Each one is reconciled by a run.
	Generation int64 `json:"generation,omitempty"`
	// Status is written by the engine alone.
	Status    Status     `json:"status,omitzero"`
	CreatedAt time.Time  `json:"createdAt,omitzero"`
	UpdatedAt time.Time  `json:"updatedAt,omitzero"` // of the last write that Version counted
	DeletedAt *time.Time `json:"deletedAt,omitempty"`
}

// ResourceMeta returns m, which makes every struct that embeds Meta a [Resource].
func (m *Meta) ResourceMeta() *Meta { return m }

// Key returns the type and the name.
func (m *Meta) Key() Key { return Key{Type: m.Type, Name: m.Name} }

// Status says how far the engine is with a resource. It is written when a run is queued, starts and ends; the state
// between those is the run's (see [Engine.GetRun]).
type Status struct {
	// Phase is the state of the newest run: queued, running, or one of the final states.
	Phase State `json:"phase,omitzero"`
	// ObservedGeneration is the newest generation that some run has ended for, however it ended.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Run is the id of the newest run.
	Run string `json:"run,omitempty"`
	// Message says why, in words, when Phase is a final state other than succeeded.
	Message string `json:"message,omitempty"`
}

// Key names a resource.
type Key struct {
	Type string `json:"resource"`
	Name string `json:"name"`
}

// String gives "type/name".
func (k Key) String() string { return k.Type + "/" + k.Name }

// Object is any resource, untyped: what the engine stores, and what drivers are given. The zero Object is not valid.
type Object struct {
	Meta
	// Spec is JSON, and the caller's: the engine neither reads nor changes it, but for the white space between its parts.
	// Numbers stay as they are written. A field that comes twice is refused. Empty means that there is none.
	Spec json.RawMessage `json:"spec,omitempty"`
}

// Decode fills into from o: the Meta is copied, and the spec is decoded as [encoding/json] does, so that fields the
// struct does not know are passed over and a program can read what a newer one wrote. On an error (an [ErrInvalid])
// the contents of into are unspecified.
func (o *Object) Decode(into Resource) error {
	if isNilPointer(into) {
		return invalid("", "decode into a nil resource")
	}
	doc, err := document.Marshal(o)
	if err != nil {
		return fmt.Errorf("%w: encode resource %s: %w", ErrInvalid, o.Key(), err)
	}
	if err := json.Unmarshal(doc, into); err != nil {
		return fmt.Errorf("%w: decode resource %s into %T: %w", ErrInvalid, o.Key(), into, err)
	}
	meta := into.ResourceMeta()
	if meta == nil {
		return invalid("", "decode into a %T, which has no Meta", into)
	}
	*meta = o.Meta.clone()
	return nil
}

// Clone returns a copy that shares nothing with o.
func (o *Object) Clone() *Object {
	return &Object{Meta: o.Meta.clone(), Spec: bytes.Clone(o.Spec)}
}

func (m *Meta) clone() Meta {
	c := *m
	c.Metadata = maps.Clone(m.Metadata)
	if m.DeletedAt != nil {
		at := *m.DeletedAt
		c.DeletedAt = &at
	}
	return c
}

// ParseResource reads one resource document, strictly: an unknown, repeated or differently-cased field, trailing
// data, a bad name, and anything over the default [Limits] is an error that gives the position. Every fault is
// reported at once, but of a text that is no JSON only the first. It returns an [ErrInvalid] or [ErrTooLarge], or the
// error of r.
func ParseResource(r io.Reader) (*Object, error) {
	limits := Limits{}.withDefaults()
	o := new(Object)
	if err := readDocument(r, o, limits, func() []fault.Field { return o.validate(limits) }); err != nil {
		return nil, err
	}
	return o, nil
}

// readDocument reads one document from r into a pointer to a struct, strictly, and has the values checked by
// validate. It reports the faults of both, each with its position.
func readDocument(r io.Reader, into any, limits Limits, validate func() []fault.Field) error {
	data, err := io.ReadAll(io.LimitReader(r, int64(limits.Document)+1))
	if err != nil {
		return fmt.Errorf("conveyor: read document: %w", err)
	}
	if len(data) > limits.Document {
		return &FieldError{Problem: fmt.Sprintf("document has more than the limit of %d bytes", limits.Document), kind: ErrTooLarge}
	}
	return fieldErrors(document.Decode(data, into, limits.document(), validate))
}

// objectOf turns a resource of the program's own type into a valid Object that shares nothing with it.
func objectOf(r Resource, limits Limits) (*Object, error) {
	if isNilPointer(r) {
		return nil, invalid("", "resource is nil")
	}
	meta := r.ResourceMeta()
	if meta == nil {
		return nil, invalid("", "resource of type %T has no Meta", r)
	}
	k := text.Truncate(meta.Key().String(), 2*text.MaxName)
	if o, ok := r.(*Object); ok {
		if err := fieldErrors(o.validate(limits)); err != nil {
			return nil, fmt.Errorf("resource %q: %w", k, err)
		}
		return o.Clone(), nil
	}
	doc, err := document.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("resource %q: %w: encode %T: %w", k, ErrInvalid, r, err)
	}
	o := new(Object)
	faults := document.Decode(doc, o, limits.document(), func() []fault.Field { return o.validate(limits) })
	for i := range faults {
		faults[i].Line, faults[i].Column = 0, 0 // in a text that the caller has never seen
	}
	if err := fieldErrors(faults); err != nil {
		return nil, fmt.Errorf("resource %q, a %T: %w", k, r, err)
	}
	return o, nil
}

// isNilPointer reports whether r is nil, or a nil pointer or function in an interface.
func isNilPointer(r any) bool {
	v := reflect.ValueOf(r)
	return !v.IsValid() || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil()
}

// validate reports every fault of what the program may set.
func (o *Object) validate(limits Limits) []fault.Field {
	var f fault.Fields
	f.Name("name", o.Name)
	f.Name("resource", o.Type)
	if o.Pipeline != "" {
		f.Name("pipeline", o.Pipeline)
	}
	if o.Version < 0 {
		f.Add(fault.Invalidf("version", "%d is negative", o.Version))
	}
	size := 0
	for k, v := range o.Metadata {
		size += len(k) + len(v)
	}
	f.Labels("metadata", o.Metadata)
	if size > limits.Spec {
		f.Add(fault.Larger("metadata", size, limits.Spec, "bytes"))
	}
	if len(o.Spec) > limits.Spec {
		f.Add(fault.Larger("spec", len(o.Spec), limits.Spec, "bytes"))
	} else if len(o.Spec) > 0 {
		f.Add(document.Check("spec", o.Spec, limits.document(), 1)...)
	}
	return f.List()
}

// sameSpec reports whether two specs mean the same: equal JSON, whatever the white space and the order of fields.
// Numbers are compared as they are written, so that 1 and 1.0 differ; a false "changed" only costs a run.
func sameSpec(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return decodeNumbers(a, &x) == nil && decodeNumbers(b, &y) == nil && reflect.DeepEqual(x, y)
}

func decodeNumbers(data []byte, into any) error {
	if len(data) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(into)
}
