package conveyor

import (
	"errors"
	"fmt"
	"strings"
)

// The conditions that callers branch on, with [errors.Is]. What carries data besides is a struct: [FieldError],
// [StepError], [PanicError]. Errors of a store (see package store) come through unchanged inside others.
var (
	// ErrNotFound reports that there is no such resource, pipeline, run, step or output.
	ErrNotFound = errors.New("conveyor: not found")
	// ErrExists reports a Create of a name that is taken.
	ErrExists = errors.New("conveyor: already exists")
	// ErrConflict reports that the state of things does not allow the call: a stale Version, a run that has ended.
	ErrConflict = errors.New("conveyor: conflict")
	// ErrInvalid reports input that can never be accepted. Most are a [FieldError].
	ErrInvalid = errors.New("conveyor: invalid")
	// ErrTooLarge reports input over one of the [Limits].
	ErrTooLarge = errors.New("conveyor: too large")
	// ErrClosed reports a call on an engine that was shut down, or has not been started where it must be.
	ErrClosed = errors.New("conveyor: closed")
	// ErrCanceled is the cause of a run, and of its attempts' contexts, that [Engine.Cancel] ended.
	ErrCanceled = errors.New("conveyor: canceled")
	// ErrSuperseded is the cause of a run, and of its attempts' contexts, that a newer generation replaced.
	ErrSuperseded = errors.New("conveyor: superseded")
	// ErrTimeout is the cause of an attempt or of a run that took longer than it was given.
	ErrTimeout = errors.New("conveyor: timed out")
	// ErrGap reports that a watcher asked for events, or fell behind to events, that are no longer kept.
	ErrGap = errors.New("conveyor: events are missing")
)

// ErrShutdown is the cause of an attempt's context that [Engine.Shutdown] canceled. A driver that answers with an
// error after it is called again, by this engine's next start or by another program, with [Request.Resumed] set.
var ErrShutdown = errors.New("conveyor: shutting down")

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

func invalid(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...), kind: ErrInvalid}
}

func tooLarge(field string, size, limit int, unit string) *FieldError {
	return &FieldError{Field: field, Problem: fmt.Sprintf("%d %s, more than the limit of %d", size, unit, limit), kind: ErrTooLarge}
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
func (e *PanicError) Error() string { return "driver panicked: " + textOf(e.Value) }

// Unwrap returns the value if it is an error, and nil otherwise.
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
