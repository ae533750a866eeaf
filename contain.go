package conveyor

import (
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// The methods of an error that a driver returns, and of a value that it panics with, are the driver's code too: they may
// panic, block, or differ from call to call. They are called once, where the driver is called, and what the rest of the
// engine sees is an error of its own.

// contained is an error of the engine's own that says the same as a driver's, the cause of the context's end included if
// there is one. It is limited to what is kept of an error.
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
	if p, ok := fault.As[*PanicError](err); ok {
		kept.is = &PanicError{Value: kept.text, Stack: []byte(text.Truncate(string(p.Stack), limits.ErrorText))}
	} else {
		kept.is = fault.Sentinel(fault.KindOf(err, false))
	}
	if d, ok := direction(err); ok {
		return &directedError{err: kept, permanent: d.permanent, delay: d.delay}
	}
	return kept
}
