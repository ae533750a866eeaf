package text

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Quote returns a text of foreign origin in quotes, for an error. The text is cut to the length of a name, and every
// character that a terminal would act upon is escaped.
func Quote(text string) string { return strconv.Quote(Truncate(text, MaxName)) }

// Plain returns a text with an escape, such as \n, \x1b or \u202e, for every character that is not printed: ends of lines,
// control characters, and characters that change the direction of what follows. A text without such characters is
// returned as it is.
func Plain(text string) string {
	if !strings.ContainsFunc(text, unprinted) && utf8.ValidString(text) {
		return text
	}
	quoted := make([]byte, 0, len(text)+16)
	for _, r := range strings.ToValidUTF8(text, "\uFFFD") {
		if unprinted(r) {
			escape := strconv.AppendQuoteRune(nil, r)
			quoted = append(quoted, escape[1:len(escape)-1]...)
		} else {
			quoted = utf8.AppendRune(quoted, r)
		}
	}
	return string(quoted)
}

func unprinted(r rune) bool { return !strconv.IsPrint(r) }

// Segment returns a name of foreign origin as one element of a path such as a.b[2]. A name is quoted if it has characters
// that are not printed or that have a meaning in a path.
func Segment(name string, limit int) string {
	name = Truncate(name, limit)
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return unprinted(r) || strings.ContainsRune(` ."[]\`, r) }) {
		return strconv.Quote(name)
	}
	return name
}
