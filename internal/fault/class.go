package fault

import "slices"

// Class says of which kind a failure is. There are few classes, and they have the names of the semantic conventions of
// OpenTelemetry for the result of a pipeline run.
type Class string

// The classes. ClassNone is that of a success, and of what has not ended.
const (
	ClassNone         Class = ""
	ClassFailure      Class = "failure"      // the work has failed: a driver has returned an error
	ClassError        Class = "error"        // what carries out the work has failed
	ClassTimeout      Class = "timeout"      // it took too long
	ClassCancellation Class = "cancellation" // somebody has ended it
	ClassSkip         Class = "skip"         // it was not needed, or nobody was there to do it
)

// ClassOf returns the class of an error of these kinds.
func ClassOf(first Kind, others []Kind) Class {
	is := func(kinds ...Kind) bool {
		return slices.Contains(kinds, first) || slices.ContainsFunc(others, func(k Kind) bool { return slices.Contains(kinds, k) })
	}
	switch {
	case is(KindPanic, KindInterrupt, KindRefusedPlan):
		return ClassError
	case is(KindTimeout):
		return ClassTimeout
	case is(KindCanceled, "superseded", "shutdown", "lease-lost"):
		return ClassCancellation
	case is("store-conflict", "store-closed", "store-locked", "store-corrupt", "store-unknown", "store-unavailable", "store-gap"):
		return ClassError
	}
	return ClassFailure
}
