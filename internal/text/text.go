// Package text shortens text, checks names, and shows values of foreign code safely. It must not know what a text is for.
package text

import (
	"strings"
	"unicode/utf8"
)

// CutMark ends a text that Truncate has shortened.
const CutMark = " … [cut]"

// Truncate shortens text to at most limit bytes, CutMark included. It never breaks a character. Bytes that are not
// UTF-8 are replaced by U+FFFD.
//
// The bytes are those that the text has in a record, as Size counts them. A text of control characters is therefore cut
// to a sixth of the limit. A limit in bytes could not be kept otherwise, because a store bounds the size of a record.
func Truncate(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit/largestEscape {
		return text
	}
	size, end := 0, 0 // end is where the text is cut if it does not fit
	for i, r := range text {
		if size <= limit-len(CutMark) {
			end = i
		}
		if size += sizeOf(r); size > limit {
			if limit < len(CutMark) {
				return text[:end]
			}
			return text[:end] + CutMark
		}
	}
	return text
}

// largestEscape is the largest number of bytes that JSON needs for one byte of a text.
const largestEscape = 6

// Size returns the number of bytes of a text in a record, which is JSON, without the quotes.
func Size(text string) (n int) {
	for i := 0; i < len(text); {
		if c := text[i]; c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			n++
			i++
			continue
		}
		r, bytes := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && bytes == 1 {
			n += largestEscape // a byte that is not UTF-8
		} else {
			n += sizeOf(r)
		}
		i += bytes
	}
	return n
}

// sizeOf returns the number of bytes that encoding/json writes for a character, without the escapes for HTML.
func sizeOf(r rune) int {
	switch {
	case r == '"', r == '\\', r == '\b', r == '\f', r == '\n', r == '\r', r == '\t':
		return 2
	case r < ' ', r == '\u2028', r == '\u2029':
		return largestEscape
	default:
		return utf8.RuneLen(r)
	}
}
