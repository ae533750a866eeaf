package text

import (
	"fmt"
	"strings"
)

// MaxName is the largest number of bytes in a name.
const MaxName = 253

// NameFault returns what is wrong with a name, and an empty text if the name is valid.
func NameFault(name string) string {
	switch {
	case name == "":
		return "is empty; a name has 1 to 253 letters, digits, '.', '_' or '-'"
	case len(name) > MaxName:
		return fmt.Sprintf("has %d bytes, %s", len(name), MoreThan(MaxName, FixedLimit))
	case name[0] == '.':
		return fmt.Sprintf("%q starts with a dot", name)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return !IsNameRune(r) }); i >= 0 {
		return fmt.Sprintf("%q has a character other than letters, digits, '.', '_' and '-'", name)
	}
	return ""
}

// IsNameRune reports whether a name can contain r.
func IsNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}
