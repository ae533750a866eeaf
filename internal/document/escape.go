package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// loneSurrogate returns a problem if a string has an escape for half of a character (a lone surrogate), such as \ud800.
// The standard decoder replaces every lone surrogate by the same other character. A lone surrogate is harmless where the
// text of the JSON is kept unchanged.
func (w *walker) loneSurrogate(token json.Token, at int) string {
	if text, ok := token.(string); !ok || !strings.ContainsRune(text, utf8.RuneError) {
		return ""
	}
	for text := w.data[at:w.dec.InputOffset()]; ; {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return ""
		}
		first, second := escaped(text[i:]), rune(-1)
		if utf16.IsSurrogate(first) {
			second = escaped(text[i+6:])
		}
		switch {
		case first < 0:
			text = text[i+2:]
		case second < 0 && !utf16.IsSurrogate(first):
			text = text[i+6:]
		case utf16.DecodeRune(first, second) != utf8.RuneError:
			text = text[i+12:]
		default:
			return fmt.Sprintf("has half of a character (a lone surrogate): %s", text[i:i+6])
		}
	}
}

// escaped returns the number of an escape such as \u0041 at the start of a text, or -1 if there is none. The text must be
// part of valid JSON.
func escaped(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
