package conveyor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// The conditions that callers branch on, with [errors.Is]. What carries data besides is a struct: [FieldError],
// [StepError], [PanicError]. Errors of a store (see package store) come through unchanged inside others.
var (
	// ErrNotFound reports that there is no such resource, pipeline, run, step or output.
	ErrNotFound = fault.NotFound
	// ErrExists reports a Create of a name that is taken.
	ErrExists = fault.Exists
	// ErrConflict reports that the state of things does not allow the call: a stale Version, a run that has ended.
	ErrConflict = fault.Conflict
	// ErrInvalid reports input that can never be accepted. Most are a [FieldError].
	ErrInvalid = fault.Invalid
	// ErrTooLarge reports input over one of the [Limits].
	ErrTooLarge = fault.TooLarge
	// ErrClosed reports a call on an engine that was shut down, or has not been started where it must be.
	ErrClosed = fault.Closed
	// ErrCanceled is the cause of a run, and of its attempts' contexts, that [Engine.Cancel] ended.
	ErrCanceled = fault.Canceled
	// ErrSuperseded is the cause of a run, and of its attempts' contexts, that a newer generation replaced.
	ErrSuperseded = fault.Superseded
	// ErrTimeout is the cause of an attempt or of a run that took longer than it was given.
	ErrTimeout = fault.Timeout
	// ErrGap reports that a watcher asked for events, or fell behind to events, that are no longer kept.
	ErrGap = fault.Gap
)

// ErrShutdown is the cause of an attempt's context that [Engine.Shutdown] canceled. A driver that answers with an
// error after it is called again, by this engine's next start or by another program, with [Request.Resumed] set.
var ErrShutdown = fault.Shutdown

// FieldError says which field of a document or of a value is wrong, and how. It is an [ErrInvalid] or, when a limit
// was passed, an [ErrTooLarge]. Several of them come joined (see [errors.Join]).
type FieldError struct {
	Field   string // where in the document, such as "steps[2].driver"; empty for the document as a whole
	Line    int    // in the text that was parsed, counted from 1; 0 when no text was
	Column  int    // in bytes, counted from 1; 0 when no text was parsed
	Problem string // what is wrong, with the limit where there is one
	kind    error
}

// Error gives the place, the field and the problem.
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

func newFieldError(f fault.Field) *FieldError {
	e := &FieldError{Field: f.Path, Line: f.Line, Column: f.Column, Problem: f.Problem, kind: ErrInvalid}
	if f.TooLarge {
		e.kind = ErrTooLarge
	}
	return e
}

// fieldErrors returns faults as one error: joined if there are several, and nil if there are none.
func fieldErrors(faults []fault.Field) error {
	switch len(faults) {
	case 0:
		return nil
	case 1:
		return newFieldError(faults[0])
	}
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = newFieldError(f)
	}
	return errors.Join(errs...)
}

func invalid(field, format string, args ...any) *FieldError {
	return newFieldError(fault.Invalidf(field, format, args...))
}

func tooLarge(field string, size, limit int, unit string) *FieldError {
	return newFieldError(fault.Larger(field, size, limit, unit))
}

// StepError tells which step made a run fail. Unwrap gives the cause. For a run that was read back from the store
// the cause is rebuilt: its text is the same, it still is an [ErrTimeout], [ErrTooLarge] or [*PanicError] if it was
// one, and errors of the driver's own types have become plain text.
type StepError struct {
	Run     string
	Step    string // its id
	Driver  string
	Attempt int
	Err     error
}

// Error names the run, the step, the driver and the attempt.
func (e *StepError) Error() string {
	return fmt.Sprintf("conveyor: run %s: step %s (driver %s), attempt %d: %v", e.Run, e.Step, e.Driver, e.Attempt, e.Err)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// PanicError is what a driver's panic, or its call of [runtime.Goexit], fails the attempt with.
type PanicError struct {
	Value any    // what was given to panic; its text for a run that was read back
	Stack []byte // of the goroutine that panicked, cut to [Limits].ErrorText
}

// Error gives the value, without the stack. Of a value that leads round in a circle, or cannot be shown, it gives the
// type.
func (e *PanicError) Error() string { return "driver panicked: " + text.Of(e.Value) }

// Unwrap returns the value if it is an error, and nil otherwise.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// recordedError is an error that was read back: the text as it was, and what it stood for.
type recordedError struct {
	text string
	is   error
}

func (e *recordedError) Error() string { return e.text }
func (e *recordedError) Unwrap() error { return e.is }

// rebuildError is the reverse of kindOf and the error's text.
func rebuildError(kind fault.Kind, text, stack string) error {
	if kind == fault.KindPanic {
		return &PanicError{Value: strings.TrimPrefix(text, "driver panicked: "), Stack: []byte(stack)}
	}
	if is := fault.Sentinel(kind); is != nil {
		return &recordedError{text: text, is: is}
	}
	return errors.New(text)
}
