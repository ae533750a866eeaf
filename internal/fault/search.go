package fault

// Is is [errors.Is] for errors of foreign code: it also returns if an error wraps itself. The target is a pointer.
func Is(err, target error) bool {
	left := maxWrapped
	return search(err, &left, func(e error) bool {
		if e == target {
			return true
		}
		x, ok := e.(interface{ Is(error) bool })
		return ok && x.Is(target)
	})
}

// As is [errors.As] for errors of foreign code: it also returns if an error wraps itself.
func As[T error](err error) (found T, ok bool) {
	left := maxWrapped
	ok = search(err, &left, func(e error) bool {
		if t, is := e.(T); is {
			found = t
			return true
		}
		x, can := e.(interface{ As(any) bool })
		return can && x.As(&found)
	})
	return found, ok
}

// maxWrapped bounds how many errors inside one error are looked at, because errors can wrap each other in a circle.
const maxWrapped = 1_000

// search visits an error and the errors that it wraps, in the order of package errors, until is reports true.
func search(err error, left *int, is func(error) bool) bool {
	for err != nil && *left > 0 {
		*left--
		if is(err) {
			return true
		}
		switch w := err.(type) {
		case interface{ Unwrap() error }:
			err = w.Unwrap()
		case interface{ Unwrap() []error }:
			for _, wrapped := range w.Unwrap() {
				if search(wrapped, left, is) {
					return true
				}
			}
			return false
		default:
			return false
		}
	}
	return false
}
