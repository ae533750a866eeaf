package fault

// Kind is recorded beside the text of an error. It says what [errors.Is] and [errors.As] must find in the error that is
// rebuilt from the record.
type Kind string

// The kinds. KindPlain is the kind of an error that wraps no sentinel.
const (
	KindPlain     Kind = ""
	KindTimeout   Kind = "timeout"
	KindPanic     Kind = "panic"
	KindTooLarge  Kind = "too-large"
	KindInvalid   Kind = "invalid"
	KindCanceled  Kind = "canceled"
	KindNotFound  Kind = "not-found"
	KindInterrupt Kind = "interrupted"
)

// kinds is tried in order. The first sentinel that an error wraps gives the error its kind.
var kinds = []struct {
	kind     Kind
	sentinel error
}{
	{KindTooLarge, TooLarge}, {KindInvalid, Invalid}, {KindTimeout, Timeout},
	{KindCanceled, Canceled}, {KindNotFound, NotFound},
}

// KindOf returns the kind of an error. The caller reports whether the error wraps a panic.
func KindOf(err error, isPanic bool) Kind {
	if isPanic {
		return KindPanic
	}
	for _, k := range kinds {
		if Is(err, k.sentinel) {
			return k.kind
		}
	}
	return KindPlain
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
