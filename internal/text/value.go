package text

import (
	"fmt"
	"reflect"
)

// Of returns the text of a value with which foreign code panicked. Of never panics. If package fmt would need for ever or
// very long to print the value, Of returns only the type.
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

// TypeOf returns the name of the type of a value. The engine logs nothing else of a value with which code of the program
// panicked, because the value can contain a secret.
func TypeOf(panicked any) string { return fmt.Sprintf("%T", panicked) }
