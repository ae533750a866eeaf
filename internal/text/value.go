package text

import (
	"fmt"
	"reflect"
)

// Of returns the text of a value that foreign code panicked with. Of never panics. For a value that package fmt would
// follow for ever, or for very long, Of returns the type alone.
func Of(v any) (text string) {
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

// maxShown bounds how many values inside one value are shown.
const maxShown = 1_000

// showable counts the values that package fmt would visit. Package fmt does not follow pointers inside a value.
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

// TypeOf returns the name of a value's type. The engine logs nothing else of a value that a program's code panicked
// with, because the value can hold a secret.
func TypeOf(panicked any) string { return fmt.Sprintf("%T", panicked) }
