// Package text shortens text, checks names, and shows values of foreign code safely. It must not know what a text is for.
package text

import "strings"

// CutMark ends a text that Truncate has shortened.
const CutMark = " … [cut]"

// Truncate shortens text to at most limit bytes, CutMark included. It never breaks a character. Bytes that are not
// UTF-8 are replaced by U+FFFD, as encoding/json would replace them when the text is written.
func Truncate(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	end := max(limit-len(CutMark), 0)
	for end > 0 && text[end]&0xC0 == 0x80 {
		end--
	}
	if limit < len(CutMark) {
		return text[:end]
	}
	return text[:end] + CutMark
}
