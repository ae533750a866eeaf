package document

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

func (w *walker) fault(offset int, problem string) {
	w.report(offset, func(path string) fault.Field { return fault.Invalidf(path, "%s", problem) })
}

func (w *walker) faultTooDeep(offset, depth int) {
	w.report(offset, func(path string) fault.Field { return fault.Larger(path, depth, w.maxDepth, "levels deep") })
}

func (w *walker) report(offset int, problem func(path string) fault.Field) {
	if w.faults.Full() {
		return
	}
	path := w.here()
	w.faulty[path] = true
	f := problem(path)
	f.Line, f.Column = position(w.data, offset)
	w.faults.Add(f)
}

// here names the value being walked, in at most maxField bytes. Only what needs the name pays for it: a field with a
// long one may hold a great many values, and faults.
func (w *walker) here() string {
	var b strings.Builder
	b.WriteString(w.field)
	for _, s := range w.path {
		switch {
		case b.Len() > maxField:
		case !s.object:
			fmt.Fprintf(&b, "[%d]", s.index)
		case b.Len() > 0:
			b.WriteString("." + text.Truncate(s.name, maxField))
		default:
			b.WriteString(text.Truncate(s.name, maxField))
		}
	}
	return text.Truncate(b.String(), maxField)
}

// judge takes up a fault that a look at the values has brought up: it gets the position of the value, or of what the
// value is missing from. What merely follows from a fault of the text is left out.
func (w *walker) judge(f fault.Field) {
	for path := f.Path; !w.faulty[path]; path = path[:max(strings.LastIndexAny(path, ".["), 0)] {
		if at, ok := w.places[path]; ok || path == "" {
			f.Line, f.Column = position(w.data, at)
			w.faults.Add(f)
			return
		}
	}
}

// position turns an offset into a line and a column, both counted from 1, the column in bytes.
func position(data []byte, offset int) (line, column int) {
	before := data[:min(max(offset, 0), len(data))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
