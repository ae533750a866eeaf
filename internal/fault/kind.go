package fault

import (
	"context"

	"github.com/conveyor-go/conveyor/store"
)

// Kind is recorded beside the text of an error. It says what [errors.Is] and [errors.As] must find in the error that is
// rebuilt from the record.
type Kind string

// The kinds that code of the library names. KindPlain is the kind of an error that wraps no sentinel.
const (
	KindPlain     Kind = ""
	KindTimeout   Kind = "timeout"
	KindPanic     Kind = "panic"
	KindTooLarge  Kind = "too-large"
	KindInvalid   Kind = "invalid"
	KindCanceled  Kind = "canceled"
	KindNotFound  Kind = "not-found"
	KindInterrupt Kind = "interrupted"
	// KindRefusedPlan is the kind of steps that a Planner has returned and that are not valid.
	KindRefusedPlan Kind = "refused-plan"
)

// kinds are in the order in which [KindsOf] lists the kinds of an error. The first five have stood in this order since
// the first version, which recorded the first kind of an error only.
var kinds = []struct {
	kind     Kind
	sentinel error
}{
	{KindTooLarge, TooLarge}, {KindInvalid, Invalid}, {KindTimeout, Timeout},
	{KindCanceled, Canceled}, {KindNotFound, NotFound},
	{"exists", Exists}, {"conflict", Conflict}, {"closed", Closed}, {"superseded", Superseded},
	{"gap", Gap}, {"shutdown", Shutdown}, {"lease-lost", LeaseLost}, {"unsupported", Unsupported},
	{"context-canceled", context.Canceled}, {"context-deadline", context.DeadlineExceeded},
	{"store-not-found", store.ErrNotFound}, {"store-conflict", store.ErrConflict}, {"store-closed", store.ErrClosed},
	{"store-locked", store.ErrLocked}, {"store-corrupt", store.ErrCorrupt}, {"store-unknown", store.ErrUnknown},
	{"store-unavailable", store.ErrUnavailable}, {"store-gap", store.ErrGap},
}

// KindsOf returns the kinds of an error: the first one, and all others. The caller reports whether the error wraps a
// panic, which then is the first kind.
func KindsOf(err error, isPanic bool) (first Kind, others []Kind) {
	var all []Kind
	if isPanic {
		all = append(all, KindPanic)
	}
	for _, k := range kinds {
		if Is(err, k.sentinel) {
			all = append(all, k.kind)
		}
	}
	switch len(all) {
	case 0:
		return KindPlain, nil
	case 1:
		return all[0], nil
	}
	return all[0], all[1:]
}

// Sentinel returns the sentinel that an error of this kind wraps, or nil if it wraps none.
func Sentinel(kind Kind) error {
	for _, k := range kinds {
		if k.kind == kind {
			return k.sentinel
		}
	}
	return nil
}

// Sentinels returns the sentinels that an error of these kinds wraps.
func Sentinels(first Kind, others []Kind) (all []error) {
	if is := Sentinel(first); is != nil {
		all = append(all, is)
	}
	for _, kind := range others {
		if is := Sentinel(kind); is != nil {
			all = append(all, is)
		}
	}
	return all
}
