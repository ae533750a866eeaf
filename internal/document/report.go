package document

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// fault adds a fault of the value that is being walked.
func (w *walker) fault(offset int, problem string) {
	w.report(offset, func(path string) fault.Field { return fault.Invalidf(path, "%s", problem) })
}

func (w *walker) faultTooDeep(offset, depth int) {
	w.report(offset, func(path string) fault.Field {
		return fault.Larger(path, depth, w.maxDepth, "levels deep", "Limits.Depth")
	})
}

// report adds the fault that problem returns for the path of the value that is being walked.
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

// here returns the path of the value that is being walked, in at most maxField bytes. Names that could
// be mistaken for something else are quoted. The path is made only when it is needed, because a field with a long name can
// contain very many values.
func (w *walker) here() string {
	var b strings.Builder
	b.WriteString(w.field)
	for _, s := range w.path {
		switch {
		case b.Len() > maxField:
		case !s.object:
			fmt.Fprintf(&b, "[%d]", s.index)
		case b.Len() > 0:
			b.WriteString("." + text.Segment(s.name, maxField))
		default:
			b.WriteString(text.Segment(s.name, maxField))
		}
	}
	return text.Truncate(b.String(), maxField)
}

// locate adds a fault that the check of the values has found. The fault gets the position of the value or, if the value is
// missing, of the nearest enclosing value. A fault is left out if it follows from a fault of the text.
func (w *walker) locate(f fault.Field) {
	for path := f.Path; !w.faulty[path]; path = path[:max(strings.LastIndexAny(path, ".["), 0)] {
		if at, ok := w.places[path]; ok || path == "" {
			f.Line, f.Column = position(w.data, at)
			w.faults.Add(f)
			return
		}
	}
}

// position returns the line and the column of an offset. Both are counted from 1, and the column is in bytes.
func position(data []byte, offset int) (line, column int) {
	before := data[:min(max(offset, 0), len(data))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
