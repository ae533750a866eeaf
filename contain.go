package conveyor

import (
	"fmt"
	"reflect"
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
			p.Value = cut(textOf(v), limits.ErrorText)
			own = p
		}
	}()
	if cause != nil && !contains(err, cause) {
		err = &endedError{cause: cause, err: err}
	}
	kept := &recordedError{text: cut(err.Error(), limits.ErrorText)}
	if p, ok := find[*PanicError](err); ok {
		kept.is = &PanicError{Value: kept.text, Stack: []byte(cut(string(p.Stack), limits.ErrorText))}
	} else {
		kept.is = sentinelOf(kindOf(err))
	}
	if d, ok := direction(err); ok {
		return &directedError{err: kept, permanent: d.permanent, delay: d.delay}
	}
	return kept
}

// maxWrapped bounds how many errors are looked at inside one, since they may lead round in a circle.
const maxWrapped = 1_000

// search goes through an error and those that it wraps, in the order of package errors, until one of them is the one.
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

// contains is [errors.Is], which does not return for an error that wraps itself. The target is a pointer.
func contains(err, target error) bool {
	left := maxWrapped
	return search(err, &left, func(e error) bool {
		if e == target {
			return true
		}
		x, ok := e.(interface{ Is(error) bool })
		return ok && x.Is(target)
	})
}

// find is [errors.As], with the same difference.
func find[T error](err error) (found T, ok bool) {
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

// textOf shows a value that a driver panicked with. It does not panic itself, and shows the type alone of what package fmt
// would follow for ever, or for very long.
func textOf(v any) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("a %T that cannot be shown", v)
		}
	}()
	switch v.(type) {
	case error, fmt.Stringer, fmt.Formatter:
		return fmt.Sprint(v)
	}
	left := maxShown
	if value := reflect.ValueOf(v); !showable(reflect.Indirect(value), &left) {
		return fmt.Sprintf("a %T", v)
	}
	return fmt.Sprint(v)
}

// maxShown bounds the values that are shown of one.
const maxShown = 1_000

// showable counts what package fmt would go through, which does not follow pointers that lie inside a value.
func showable(v reflect.Value, left *int) bool {
	if *left--; *left < 0 {
		return false
	}
	switch v.Kind() {
	case reflect.Interface:
		return showable(v.Elem(), left)
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if !showable(v.Index(i), left) {
				return false
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			if !showable(entries.Key(), left) || !showable(entries.Value(), left) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !showable(v.Field(i), left) {
				return false
			}
		}
	}
	return true
}
