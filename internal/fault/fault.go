// Package fault holds the conditions on which callers of the library branch, the kinds under which a store keeps them, and
// the faults of single fields. It must not know where a condition occurs.
package fault

import "errors"

// The sentinels of the public package, which gives each of them to its callers under a name with the prefix Err.
var (
	NotFound   = errors.New("conveyor: not found")
	Exists     = errors.New("conveyor: already exists")
	Conflict   = errors.New("conveyor: conflict")
	Invalid    = errors.New("conveyor: invalid")
	TooLarge   = errors.New("conveyor: too large")
	Closed     = errors.New("conveyor: closed")
	Canceled   = errors.New("conveyor: canceled")
	Superseded = errors.New("conveyor: superseded")
	Timeout    = errors.New("conveyor: timed out")
	Gap        = errors.New("conveyor: events are missing")
	Shutdown   = errors.New("conveyor: shutting down")
	LeaseLost  = errors.New("conveyor: lease lost")
	// Unsupported is that of records which a newer program has written.
	Unsupported = errors.New("conveyor: not supported by this program")
)

// Text is the error of a text that is not a value of its type. It is an [Invalid].
type Text struct{ Problem string }

// Error returns the problem.
func (e *Text) Error() string { return Invalid.Error() + ": " + e.Problem }

// Unwrap returns [Invalid].
func (e *Text) Unwrap() error { return Invalid }
