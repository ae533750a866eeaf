package conveyor

import (
	"errors"
	"fmt"
	"strings"
)

// These errors are the conditions that callers branch on, with [errors.Is]. A condition that carries data is a
// struct: [FieldError], [StepError], [PanicError]. The engine returns the errors of a store (see package store)
// wrapped and otherwise unchanged.
var (
	// ErrNotFound reports that there is no such resource, pipeline, run, step or output.
	ErrNotFound = errors.New("conveyor: not found")
	// ErrExists reports that a name is already taken.
	ErrExists = errors.New("conveyor: already exists")
	// ErrConflict reports that the current state does not allow the call. Examples are a stale Version and a run that
	// has ended.
	ErrConflict = errors.New("conveyor: conflict")
	// ErrInvalid reports input that can never be accepted. Most of these errors are a [FieldError].
	ErrInvalid = errors.New("conveyor: invalid")
	// ErrTooLarge reports input that is larger than one of the [Limits].
	ErrTooLarge = errors.New("conveyor: too large")
	// ErrClosed reports that the engine was shut down, or that it has not been started and the call needs this.
	ErrClosed = errors.New("conveyor: closed")
	// ErrCanceled is the cause of a run that [Engine.Cancel] ended, and of the contexts of its attempts.
	ErrCanceled = errors.New("conveyor: canceled")
	// ErrSuperseded is the cause of a run that a newer generation replaced, and of the contexts of its attempts.
	ErrSuperseded = errors.New("conveyor: superseded")
	// ErrTimeout is the cause of an attempt or a run that took longer than its timeout.
	ErrTimeout = errors.New("conveyor: timed out")
	// ErrGap reports that a watcher needs events that are no longer kept: it asked for them, or it fell too far
	// behind.
	ErrGap = errors.New("conveyor: events are missing")
)

// ErrShutdown is the cause of the contexts of attempts that [Engine.Shutdown] ended. If a driver returns an error
// after that, it is called again with [Request].Resumed set. This happens after the next start of the engine, in this
// program or in another one.
var ErrShutdown = errors.New("conveyor: shutting down")

// FieldError reports which field of a document or of a value is wrong, and why. It is an [ErrInvalid] or, if a limit
// was exceeded, an [ErrTooLarge]. Several of them are joined (see [errors.Join]).
type FieldError struct {
	Field   string // place in the document, such as "steps[2].driver"; empty for the document as a whole
	Line    int    // line of the parsed text, counted from 1; 0 if no text was parsed
	Column  int    // column in bytes, counted from 1; 0 if no text was parsed
	Problem string // what is wrong, with the limit if there is one
	kind    error
}

// Error returns the place, the field and the problem.
func (e *FieldError) Error() string {
	var b strings.Builder
	b.WriteString(e.kind.Error())
	if e.Line > 0 {
		fmt.Fprintf(&b, ": line %d, column %d", e.Line, e.Column)
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	b.WriteString(": " + e.Problem)
	return b.String()
}

// Unwrap returns [ErrInvalid] or [ErrTooLarge].
func (e *FieldError) Unwrap() error { return e.kind }

func invalid(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...), kind: ErrInvalid}
}

func tooLarge(field string, size, limit int, unit string) *FieldError {
	return &FieldError{Field: field, Problem: fmt.Sprintf("%d %s, more than the limit of %d", size, unit, limit), kind: ErrTooLarge}
}

// StepError reports which step made a run fail. Unwrap returns the cause. If the run was read back from the store,
// the cause is rebuilt: it has the same text, and it is still an [ErrTimeout], an [ErrTooLarge] or a [*PanicError] if
// it was one before. An error of the driver's own type has become plain text.
type StepError struct {
	Run     string
	Step    string // its id
	Driver  string
	Attempt int
	Err     error
}

// Error returns the names of the run, the step and the driver, the number of the attempt, and the cause.
func (e *StepError) Error() string {
	return fmt.Sprintf("conveyor: run %s: step %s (driver %s), attempt %d: %v", e.Run, e.Step, e.Driver, e.Attempt, e.Err)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// PanicError is the error of an attempt whose driver panicked or called [runtime.Goexit].
type PanicError struct {
	Value any    // the panic value; its text if the run was read back from the store
	Stack []byte // the stack of the goroutine that panicked, cut to [Limits].ErrorText
}

// Error returns the panic value as text, without the stack. If the value contains itself or cannot be formatted,
// Error returns its type.
func (e *PanicError) Error() string { return "driver panicked: " + textOf(e.Value) }

// Unwrap returns the panic value if it is an error, and nil otherwise.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// errorKind keeps, beside an error's text, what [errors.Is] and [errors.As] shall still find in it after it was
// written to the store and read back.
type errorKind string

const (
	kindPlain     errorKind = ""
	kindTimeout   errorKind = "timeout"
	kindPanic     errorKind = "panic"
	kindTooLarge  errorKind = "too-large"
	kindInvalid   errorKind = "invalid"
	kindCanceled  errorKind = "canceled"
	kindNotFound  errorKind = "not-found"
	kindInterrupt errorKind = "interrupted"
)

// kinds is tried in order; the first sentinel found in an error names its kind.
var kinds = []struct {
	kind     errorKind
	sentinel error
}{
	{kindTooLarge, ErrTooLarge}, {kindInvalid, ErrInvalid}, {kindTimeout, ErrTimeout},
	{kindCanceled, ErrCanceled}, {kindNotFound, ErrNotFound},
}

func kindOf(err error) errorKind {
	if _, ok := find[*PanicError](err); ok {
		return kindPanic
	}
	for _, k := range kinds {
		if contains(err, k.sentinel) {
			return k.kind
		}
	}
	return kindPlain
}

// recordedError is an error that was read back: the text as it was, and what it stood for.
type recordedError struct {
	text string
	is   error
}

func (e *recordedError) Error() string { return e.text }
func (e *recordedError) Unwrap() error { return e.is }

// rebuildError is the reverse of kindOf and the error's text.
func rebuildError(kind errorKind, text, stack string) error {
	if kind == kindPanic {
		return &PanicError{Value: strings.TrimPrefix(text, "driver panicked: "), Stack: []byte(stack)}
	}
	if is := sentinelOf(kind); is != nil {
		return &recordedError{text: text, is: is}
	}
	return errors.New(text)
}

// sentinelOf is what an error of a kind is to [errors.Is]; nil for nothing.
func sentinelOf(kind errorKind) error {
	for _, k := range kinds {
		if k.kind == kind {
			return k.sentinel
		}
	}
	return nil
}
