package conveyor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// These errors are the conditions that callers branch on, with [errors.Is]. A condition that carries data is a
// struct: [FieldError], [StepError], [PanicError]. The engine returns the errors of a store (see package store)
// wrapped and otherwise unchanged.
var (
	// ErrNotFound reports that there is no such resource, pipeline, run, step or output.
	ErrNotFound = fault.NotFound
	// ErrExists reports that a name is already taken.
	ErrExists = fault.Exists
	// ErrConflict reports that the current state does not allow the call. Examples are a stale Version and a run that
	// has ended.
	ErrConflict = fault.Conflict
	// ErrInvalid reports input that can never be accepted. Most of these errors are a [FieldError].
	ErrInvalid = fault.Invalid
	// ErrTooLarge reports input that is larger than one of the [Limits], or than a fixed limit. Its text names the limit.
	ErrTooLarge = fault.TooLarge
	// ErrClosed reports that the engine was shut down. No call returns it because the engine was not started yet.
	ErrClosed = fault.Closed
	// ErrCanceled is the cause of a run that [Engine.Cancel] ended, and of the contexts of its attempts.
	ErrCanceled = fault.Canceled
	// ErrSuperseded is the cause of a run that a newer generation replaced, and of the contexts of its attempts.
	ErrSuperseded = fault.Superseded
	// ErrTimeout is the cause of an attempt or a run that took longer than its timeout.
	ErrTimeout = fault.Timeout
	// ErrGap reports that a watcher needs events that are no longer kept: it asked for them, or it fell too far
	// behind.
	ErrGap = fault.Gap
	// ErrUnsupported reports a run or a resource on a shared store that a newer program has written in a form which this program
	// would spoil. An engine leaves such a run to the newer programs. It happens while processes are upgraded one after the other.
	ErrUnsupported = fault.Unsupported
)

// ErrShutdown is the cause of the contexts of attempts that [Engine.Shutdown] ended. If a driver returns an error
// after that, it is called again with [Request].Resumed set. This happens after the next start of the engine, in this
// program or in another one.
var ErrShutdown = fault.Shutdown

// ErrLeaseLost is the cause of the contexts of attempts that end because the engine cannot be sure any more that its runs are its
// own: it could not renew its lease on a shared store in time, or another engine has taken its runs over (see [Options].Lease).
// What a driver returns after that may be discarded, and the driver is called again with [Request].Resumed set, in this process or
// in another one.
var ErrLeaseLost = fault.LeaseLost

// FieldError reports which field of a document or of a value is wrong, and why. It is an [ErrInvalid] or, if a limit
// was exceeded, an [ErrTooLarge]. Several of them are joined (see [errors.Join]). In Field, a name of a document is in
// quotes if it has a character that has a meaning in Field, such as a dot, or that is not printed.
type FieldError struct {
	Field   string // place in the document, such as "steps[2].driver"; empty for the document as a whole
	Line    int    // line of the parsed text, counted from 1; 0 if no text was parsed
	Column  int    // column in bytes, counted from 1; 0 if no text was parsed
	Problem string // what is wrong; if a limit was passed, with the limit and the field of [Limits] that sets it
	kind    error  // ErrTooLarge; otherwise the error is an ErrInvalid
}

// Error returns the place, the field and the problem. Text of foreign origin in it is cut, and characters that a terminal
// would act upon are escaped.
func (e *FieldError) Error() string {
	var b strings.Builder
	b.WriteString(e.Unwrap().Error())
	if e.Line > 0 {
		fmt.Fprintf(&b, ": line %d, column %d", e.Line, e.Column)
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	b.WriteString(": " + e.Problem)
	return text.Plain(b.String())
}

// Unwrap returns [ErrInvalid] or [ErrTooLarge].
func (e *FieldError) Unwrap() error {
	if e.kind != nil {
		return e.kind
	}
	return ErrInvalid
}

// maxProblem bounds the bytes of a problem, which can contain the text of an error of foreign code.
const maxProblem = 4 << 10

func newFieldError(f fault.Field) *FieldError {
	e := &FieldError{Field: f.Path, Line: f.Line, Column: f.Column, Problem: text.Truncate(f.Problem, maxProblem)}
	if f.TooLarge {
		e.kind = ErrTooLarge
	}
	return e
}

// recorded returns what is recorded of e.
func (e *FieldError) recorded() *fault.Field {
	return &fault.Field{
		Path: text.Truncate(e.Field, maxProblem), Line: e.Line, Column: e.Column, Problem: text.Truncate(e.Problem, maxProblem),
		TooLarge: e.kind == ErrTooLarge,
	}
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

func tooLarge(field string, size, limit int, unit, name string) *FieldError {
	return newFieldError(fault.Larger(field, size, limit, unit, name))
}

// StepError reports which step made a run fail. Unwrap returns the cause. The cause is rebuilt from what is recorded of
// the driver's error. It has the same text, cut to [Limits].ErrorText. [errors.Is] finds in it every sentinel of this
// package and of package store, [context.Canceled] and [context.DeadlineExceeded], if the driver's error wrapped them.
// [errors.As] finds a [*PanicError], and the first [*FieldError]. An error of the driver's own type has become plain
// text. The same is found before and after a restart of the program.
type StepError struct {
	Run     string
	Step    string // its id
	Driver  string
	Attempt int
	Err     error
}

// Error returns the names of the run, the step and the driver, the number of the attempt, and the cause. The result is
// one line: characters of the cause that a terminal would act upon are escaped. The text of Err is as the driver wrote
// it.
func (e *StepError) Error() string {
	return text.Plain(fmt.Sprintf("conveyor: run %s: step %s (driver %s), attempt %d: %v", e.Run, e.Step, e.Driver, e.Attempt, e.Err))
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// PanicError is the error of an attempt whose driver panicked or called [runtime.Goexit].
type PanicError struct {
	Value any    // the text of the panic value: nothing else of the value is recorded
	Stack []byte // the stack of the goroutine that panicked, cut to [Limits].ErrorText
	// Frame is the first frame of the stack that is neither of Go's library nor of this package: the function, the file and
	// the line in the code of the program, such as "main.(*Builder).Reconcile build.go:42". It is empty if there is none.
	Frame string
}

// Error returns the panic value as text, without the stack. If the value contains itself or cannot be formatted,
// Error returns its type.
func (e *PanicError) Error() string { return panicPrefix + text.Of(e.Value) }

const panicPrefix = "driver panicked: "

// Unwrap returns the panic value if it is an error, and nil otherwise.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// recordedError is an error that was read back from the store, or one that can be recorded.
type recordedError struct {
	text string
	is   []error // what the error stands for: sentinels, and errors that carry data
}

func (e *recordedError) Error() string   { return e.text }
func (e *recordedError) Unwrap() []error { return e.is }

// rebuildError returns the error of a failed attempt from what is recorded of it (see failureOf).
func rebuildError(a *Attempt) error {
	e := &recordedError{text: a.Error}
	if a.kinds == nil {
		return e // the attempt is not from a store: a program has made it
	}
	e.is = fault.Sentinels(a.kinds.first, a.kinds.others)
	if a.kinds.first == fault.KindPanic {
		_, value, found := strings.Cut(a.Error, panicPrefix)
		if !found {
			value = a.Error
		}
		e.is = append(e.is, &PanicError{Value: value, Stack: []byte(a.Stack), Frame: a.Frame})
	}
	if a.kinds.field != nil {
		e.is = append(e.is, newFieldError(*a.kinds.field))
	}
	return e
}

// refusedPlan is the error of a Plan whose steps are not valid.
type refusedPlan struct{ err error }

func (e *refusedPlan) Error() string { return e.err.Error() }
func (e *refusedPlan) Unwrap() error { return e.err }

// ownPackage is the path of this package.
const ownPackage = "github.com/conveyor-go/conveyor"

// foreign returns an error with the text of err, which code or a document of others has made. The text is cut, and
// characters that a terminal would act upon are escaped. The result wraps err.
func foreign(err error) error {
	return &recordedError{text: text.Plain(text.Truncate(fmt.Sprint(err), maxProblem)), is: []error{err}}
}

// endedError is an error that a driver returned after its context had ended. Its text begins with the cause of the end.
type endedError struct{ cause, err error }

func (e *endedError) Error() string { return fmt.Sprintf("%v: %v", e.cause, e.err) }

func (e *endedError) Unwrap() []error { return []error{e.cause, e.err} }

// contained returns an error of the engine's own in place of a driver's error, so that later no code of the driver is
// called. It has the same text, cut to the limit, and stands for the same conditions. If cause is not nil, it is part of
// the error too. A panic in a method of the driver's error becomes the error.
func contained(err, cause error, limits Limits) (own error) {
	defer func() {
		if v := recover(); v != nil {
			p := panicked(v, limits)
			p.Value = text.Truncate(text.Of(v), limits.ErrorText)
			own = p
		}
	}()
	if cause != nil && !fault.Is(err, cause) {
		err = &endedError{cause: cause, err: err}
	}
	kept := &recordedError{text: text.Truncate(err.Error(), limits.ErrorText)}
	kept.is = fault.Sentinels(fault.KindsOf(err, false))
	if p, ok := fault.As[*PanicError](err); ok {
		kept.is = append(kept.is, &PanicError{
			Value: text.Truncate(text.Of(p.Value), limits.ErrorText), Stack: []byte(text.Truncate(string(p.Stack), limits.ErrorText)),
			Frame: text.Truncate(p.Frame, maxProblem),
		})
	}
	if f, ok := fault.As[*FieldError](err); ok && f != nil {
		kept.is = append(kept.is, newFieldError(*f.recorded()))
	}
	own = kept
	if _, refused := fault.As[*refusedPlan](err); refused {
		own = &refusedPlan{own}
	}
	if code := codeOf(err); code != "" {
		own = &reasonedError{own, code}
	}
	if d, ok := direction(err); ok {
		own = &directedError{err: own, permanent: d.permanent, delay: d.delay}
	}
	return own
}
