package fault

import (
	"fmt"
	"unicode/utf8"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Field is one fault of a document or of a value: which field is wrong, where, and how.
type Field struct {
	Path     string `json:"path,omitempty"`     // such as "steps[2].driver"; empty for the whole
	Line     int    `json:"line,omitempty"`     // counted from 1; 0 if no text was read
	Column   int    `json:"column,omitempty"`   // in bytes, counted from 1; 0 if no text was read
	Problem  string `json:"problem,omitempty"`  // with the limit, where there is one
	TooLarge bool   `json:"tooLarge,omitempty"` // a limit was passed
}

// Invalidf returns a fault of a field.
func Invalidf(path, format string, args ...any) Field {
	return Field{Path: path, Problem: fmt.Sprintf(format, args...)}
}

// Larger returns the fault of a field that has passed a limit. The name is that of the limit (see [text.MoreThan]).
func Larger(path string, size, limit int, unit, name string) Field {
	return Field{Path: path, Problem: fmt.Sprintf("%d %s, %s", size, unit, text.MoreThan(limit, name)), TooLarge: true}
}

// Fields collects faults, so that all of them are reported at once. The zero value is empty.
type Fields struct{ list []Field }

// maxFields keeps the report of a hopeless document readable.
const maxFields = 100

// Add appends faults. Beyond a hundred of them, Add appends one that says that there are more.
func (f *Fields) Add(faults ...Field) {
	for _, one := range faults {
		switch {
		case f.Full():
			return
		case len(f.list) == maxFields:
			one = Invalidf("", "more faults than the %d listed", maxFields)
		}
		f.list = append(f.list, one)
	}
}

// Full reports whether Add would drop the next fault.
func (f *Fields) Full() bool { return len(f.list) > maxFields }

// Any reports whether there is a fault.
func (f *Fields) Any() bool { return len(f.list) > 0 }

// List returns the faults in the order in which they were added. The caller must not change them.
func (f *Fields) List() []Field { return f.list }

// Name adds a fault if name is not valid.
func (f *Fields) Name(path, name string) {
	if problem := text.NameFault(name); problem != "" {
		f.Add(Invalidf(path, "%s", problem))
	}
}

// Text adds a fault if value is not UTF-8. It could not be written as JSON and read back unchanged.
func (f *Fields) Text(path, value string) {
	if !utf8.ValidString(value) {
		f.Add(Invalidf(path, "%s is invalid UTF-8", text.Quote(value)))
	}
}

// Labels adds a fault for each name or value of labels that is not UTF-8.
func (f *Fields) Labels(path string, labels map[string]string) {
	for k, v := range labels {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			f.Add(Invalidf(path, "%s: %s is invalid UTF-8", text.Quote(k), text.Quote(v)))
		}
	}
}
