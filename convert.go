package conveyor

import "github.com/conveyor-go/conveyor/internal/document"

// document returns the limits that concern the reading of a document.
func (l Limits) document() document.Limits {
	return document.Limits{Bytes: l.Document, Depth: l.Depth, List: l.Steps}
}
