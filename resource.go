package conveyor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Resource is desired state: a type, a name and a spec. Any pointer to a struct that embeds [Meta] is a Resource, and
// so is an [*Object]. The struct must marshal to a document with the fields of Meta and a "spec", and nothing else:
//
//	type DockerBuild struct {
//		conveyor.Meta
//		Spec struct{ Repository, Image string } `json:"spec"`
//	}
type Resource interface {
	// ResourceMeta returns the resource's own Meta, never a copy and never nil. The method is promoted from Meta.
	ResourceMeta() *Meta
}

// Meta is what every resource has besides its spec. The program sets Name, Type, Pipeline and Metadata. It sets
// Version where it wants a compare-and-set. The engine sets all other fields and ignores the values that it finds
// there.
type Meta struct {
	// ID is set by the engine. It identifies one incarnation of a name: a name that was deleted and created again has
	// another ID. ID is part of every idempotency key.
	ID string `json:"id,omitempty"`
	// Name is unique among the resources of one Type. Name and Type have 1 to 253 bytes of letters, digits, '.', '_'
	// and '-', and do not start with a dot.
	Name string `json:"name"`
	Type string `json:"resource"`
	// Pipeline is the name of the pipeline that reconciles this resource. Empty means every driver that listens to
	// Type.
	Pipeline string `json:"pipeline,omitempty"`
	// Metadata belongs to the program; the engine never writes it. A change of the metadata alone starts no run.
	Metadata map[string]string `json:"metadata,omitempty"`
	// MetadataJSON is the part of the metadata whose values are not texts but other JSON. Servers of Conveyor CI write
	// such values. The document of a resource has both parts in one field "metadata": [ParseResource], and the methods
	// of [Object] that read and write JSON, divide and join them, so that nothing is lost. A name must not be in both
	// parts. The JSON of any other struct that embeds Meta has Metadata alone.
	MetadataJSON map[string]json.RawMessage `json:"-"`
	// Version counts the writes of this resource by the program: each Apply that changed the spec, the pipeline or
	// the metadata. If Version is not 0, Apply writes only if this is the current version, and otherwise returns
	// [ErrConflict]. What the engine writes into Status does not count, so that progress never makes a reader's copy
	// stale.
	Version int64 `json:"version,omitempty"`
	// Generation counts the changes of the spec and of the pipeline's name. Each generation is reconciled by a run.
	Generation int64 `json:"generation,omitempty"`
	// Status is written by the engine only.
	Status    Status     `json:"status,omitzero"`
	CreatedAt time.Time  `json:"createdAt,omitzero"`
	UpdatedAt time.Time  `json:"updatedAt,omitzero"`  // time of the last write that Version counted
	UpdatedBy string     `json:"updatedBy,omitempty"` // the actor of that write, or of the deletion; see [As]
	DeletedAt *time.Time `json:"deletedAt,omitempty"`
}

// ResourceMeta returns m. It makes every struct that embeds Meta a [Resource].
func (m *Meta) ResourceMeta() *Meta { return m }

// Key returns the type and the name.
func (m *Meta) Key() Key { return Key{Type: m.Type, Name: m.Name} }

// Status shows how far the engine is with a resource. It is written when a run is queued, when it starts, and when it
// ends. The state in between is in the run (see [Engine.GetRun]).
type Status struct {
	// Phase is the state of the newest run: queued, running, or one of the final states.
	Phase State `json:"phase,omitzero"`
	// ObservedGeneration is the newest generation for which a run has ended, whether the run succeeded or not.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Run is the id of the newest run.
	Run string `json:"run,omitempty"`
	// Message is the reason in words if Phase is a final state other than succeeded.
	Message string `json:"message,omitempty"`
}

// Key identifies a resource by its type and its name.
type Key struct {
	Type string `json:"resource"`
	Name string `json:"name"`
}

// String returns "type/name".
func (k Key) String() string { return k.Type + "/" + k.Name }

// Object is a resource of any type, with an undecoded spec. It is what the engine stores and what drivers get. The
// zero Object is not valid.
type Object struct {
	Meta
	// Spec is JSON and belongs to the program: the engine does not read it, and changes nothing in it but the white
	// space between its parts. Numbers stay as they are written. A field that occurs twice is rejected. Empty means
	// that there is no spec.
	Spec json.RawMessage `json:"spec,omitempty"`
}

// Decode fills into from o. It copies the Meta and decodes the spec as [encoding/json] does. Fields that the struct
// does not have are ignored, so that a program can read what a newer program wrote. If Decode returns an error (an
// [ErrInvalid]), the content of into is unspecified.
func (o *Object) Decode(into Resource) error {
	if isNilPointer(into) {
		return invalid("", "decode into a nil resource")
	}
	doc, err := document.Marshal((*plainObject)(o)) // without MetadataJSON, which the struct need not be able to decode
	if err != nil {
		return fmt.Errorf("%w: encode resource %s: %w", ErrInvalid, text.Quote(o.Key().String()), foreign(err))
	}
	if err := json.Unmarshal(doc, into); err != nil {
		return fmt.Errorf("%w: decode resource %s into %T: %w", ErrInvalid, text.Quote(o.Key().String()), into, foreign(err))
	}
	meta := into.ResourceMeta()
	if meta == nil {
		return invalid("", "decode into a %T, which has no Meta", into)
	}
	*meta = o.Meta.clone()
	return nil
}

// plainObject is an Object whose JSON has the texts of the metadata only.
type plainObject Object

// objectDocument is the JSON document of an Object.
type objectDocument struct {
	plainObject
	Metadata map[string]json.RawMessage `json:"metadata,omitempty"` // the whole metadata; it hides that of plainObject
}

// object returns the resource of the document.
func (d *objectDocument) object() *Object {
	o := Object(d.plainObject)
	o.Metadata, o.MetadataJSON = fromMetadata(d.Metadata)
	return &o
}

// MarshalJSON returns the document of the resource, with its whole metadata. It returns an error if the spec or the
// metadata is no JSON.
func (o Object) MarshalJSON() ([]byte, error) {
	if len(o.MetadataJSON) == 0 {
		return document.Marshal(plainObject(o))
	}
	whole := maps.Clone(o.MetadataJSON)
	for name, value := range o.Metadata {
		data, err := document.Marshal(value)
		if err != nil {
			return nil, err // cannot happen: a string has a JSON
		}
		whole[name] = data
	}
	return document.Marshal(objectDocument{plainObject(o), whole})
}

// UnmarshalJSON reads a document as [encoding/json] reads a struct. It is less strict than [ParseResource].
func (o *Object) UnmarshalJSON(data []byte) error {
	d := objectDocument{plainObject: plainObject(*o)}
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	*o = Object(d.plainObject)
	if d.Metadata != nil {
		o.Metadata, o.MetadataJSON = fromMetadata(d.Metadata)
	}
	return nil
}

// Clone returns a copy that shares nothing with o.
func (o *Object) Clone() *Object {
	return &Object{Meta: o.Meta.clone(), Spec: bytes.Clone(o.Spec)}
}

func (m *Meta) clone() Meta {
	c := *m
	c.Metadata, c.MetadataJSON = maps.Clone(m.Metadata), cloneJSON(m.MetadataJSON)
	if m.DeletedAt != nil {
		at := *m.DeletedAt
		c.DeletedAt = &at
	}
	return c
}

// cloneJSON returns a copy that shares nothing with m.
func cloneJSON(m map[string]json.RawMessage) map[string]json.RawMessage {
	c := maps.Clone(m)
	for name, value := range c {
		c[name] = bytes.Clone(value)
	}
	return c
}

// ParseResource reads one resource document. It is strict: an unknown field, a repeated field, a field name with the
// wrong case, trailing data, an invalid name, and anything over the default [Limits] is an error that contains the
// position. All faults are reported at once. Of a text that is not JSON, only the first fault is reported.
// ParseResource returns an [ErrInvalid] or [ErrTooLarge], or the error of r.
func ParseResource(r io.Reader) (*Object, error) {
	limits := standardLimits()
	var o *Object
	doc := new(objectDocument)
	err := readDocument(r, doc, limits, func() []fault.Field {
		o = doc.object()
		return o.validate(limits)
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// readDocument reads one document from r into a pointer to a struct, strictly, and calls validate to check the values.
// It returns the faults of both, each with its position.
func readDocument(r io.Reader, into any, limits Limits, validate func() []fault.Field) error {
	data, err := io.ReadAll(io.LimitReader(r, int64(limits.Document)+1))
	if err != nil {
		return fmt.Errorf("conveyor: read document: %w", err)
	}
	if len(data) > limits.Document {
		problem := fmt.Sprintf("at least %d bytes, %s", len(data), text.MoreThan(limits.Document, "Limits.Document"))
		return &FieldError{Problem: problem, kind: ErrTooLarge} // the rest was not read
	}
	return fieldErrors(document.Decode(data, into, limits.document(), validate))
}

// objectOf returns a valid Object with the content of r. The Object shares nothing with r.
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
		if err := fieldErrors(nameGoFields(o, o.validate(limits))); err != nil {
			return nil, fmt.Errorf("resource %q: %w", k, err)
		}
		return o.Clone(), nil
	}
	doc, err := document.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("resource %q: %w: encode %T: %w", k, ErrInvalid, r, foreign(err))
	}
	var o *Object
	read := new(objectDocument)
	faults := document.Decode(doc, read, limits.document(), func() []fault.Field {
		o = read.object()
		if len(meta.MetadataJSON) > 0 {
			o.MetadataJSON = cloneJSON(meta.MetadataJSON)
		}
		return o.validate(limits)
	})
	for i := range faults {
		faults[i].Line, faults[i].Column = 0, 0 // these are positions in a text that the caller has never seen
	}
	if err := fieldErrors(nameGoFields(o, faults)); err != nil {
		return nil, fmt.Errorf("resource %q, a %T: %w", k, r, err)
	}
	return o, nil
}

// nameGoFields adds the names of Go fields to the faults of a resource that is a value of the program, where the name is not
// that of the document. o is nil if the value could not be read.
func nameGoFields(o *Object, faults []fault.Field) []fault.Field {
	faults = slices.Clone(faults)
	for i := range faults {
		f := &faults[i]
		switch in, isKey := strings.CutPrefix(f.Path, "metadata."); {
		case f.Path == "resource":
			f.Problem += " (the Go field is Meta.Type)"
		case isKey && o != nil && !strings.Contains(f.Problem, "MetadataJSON"):
			for k := range o.MetadataJSON {
				if segment := text.Segment(k, text.MaxName); in == segment || strings.HasPrefix(in, segment+".") || strings.HasPrefix(in, segment+"[") {
					f.Problem += " (the Go field is Meta.MetadataJSON)"
					break
				}
			}
		}
	}
	return faults
}

// isNilPointer reports whether r is nil, or an interface that holds a nil pointer or a nil function.
func isNilPointer(r any) bool {
	v := reflect.ValueOf(r)
	return !v.IsValid() || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil()
}

// validate returns all faults of the fields that the program can set.
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
	f.Labels("metadata", o.Metadata)
	for k, v := range o.MetadataJSON {
		f.Text("metadata", k)
		field := "metadata." + text.Segment(k, text.MaxName)
		if _, twice := o.Metadata[k]; twice {
			f.Add(fault.Invalidf(field, "is in Metadata and in MetadataJSON"))
		}
		if bytes.HasPrefix(bytes.TrimLeft(v, " \t\r\n"), []byte(`"`)) {
			f.Add(fault.Invalidf(field, "is a text, and stands in MetadataJSON; texts stand in Metadata"))
		} else if len(v) <= limits.Spec {
			f.Add(document.Check(field, v, limits.document(), 2)...)
		}
	}
	if size := metadataSize(&o.Meta); size > limits.Spec {
		f.Add(fault.Larger("metadata", size, limits.Spec, "bytes as JSON", "Limits.Spec"))
	}
	if len(o.Spec) > limits.Spec {
		f.Add(fault.Larger("spec", len(o.Spec), limits.Spec, "bytes", "Limits.Spec"))
	} else if len(o.Spec) > 0 {
		f.Add(document.Check("spec", o.Spec, limits.document(), 1)...)
	}
	return f.List()
}

// sameMetadata reports whether the metadata of two records is equal as JSON.
func sameMetadata(a, b record.Metadata) bool { return maps.EqualFunc(a, b, sameSpec) }

// metadataSize returns the number of bytes of the metadata as JSON, as records contain it.
func metadataSize(m *Meta) int {
	const around = len(`"":,`) // each name has quotes, a colon, and a comma or the last bracket behind its value
	size := 1
	for k, v := range m.Metadata {
		size += around + text.Size(k) + len(`""`) + text.Size(v)
	}
	for k, v := range m.MetadataJSON {
		size += around + text.Size(k) + len(v)
	}
	return size
}

// sameSpec reports whether two specs are equal as JSON. White space and the order of fields do not matter. Numbers are
// compared as they are written, so that 1 and 1.0 differ. A difference without a meaning only costs a run.
func sameSpec(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return decodeNumbers(a, &x) == nil && decodeNumbers(b, &y) == nil && reflect.DeepEqual(x, y)
}

// decodeNumbers decodes JSON and keeps numbers as they are written. Empty data decodes to nothing.
func decodeNumbers(data []byte, into any) error {
	if len(data) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(into)
}
