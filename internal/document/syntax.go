package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; ; {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
}

// tooDeep returns the offset of the first bracket that is nested deeper than limit, or -1.
func tooDeep(data []byte, limit int) int {
	depth, text := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '[' || c == '{':
			if depth++; depth > limit {
				return i
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return -1
}

// syntaxError returns the offset of the byte that breaks the syntax, or the length of the text if the text is incomplete.
func syntaxError(data []byte, err error) int {
	var first json.RawMessage
	missing := json.NewDecoder(bytes.NewReader(data)).Decode(&first)
	if s := (*json.SyntaxError)(nil); errors.As(err, &s) && !errors.Is(missing, io.ErrUnexpectedEOF) && !errors.Is(missing, io.EOF) {
		return int(s.Offset) - 1
	}
	return len(data)
}
