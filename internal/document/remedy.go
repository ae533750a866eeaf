package document

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// isUTF16 reports whether a text begins as texts in UTF-16 do: with a byte order mark, or with a character of which one byte is
// zero.
func isUTF16(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) ||
		len(data) >= 2 && (data[0] == 0) != (data[1] == 0)
}

const saveAsUTF8 = "it is UTF-16; save it as UTF-8"

const byteOrderMark = '\ufeff'

// beginsYAML matches the beginning of a document, a directive, a list or a mapping in YAML. A comment can come before it.
var beginsYAML = regexp.MustCompile(`^(#[^\n]*\n\s*)*(---|%YAML|- |[A-Za-z_][A-Za-z0-9_.-]*:(\s|$))`)

// otherQuotes are what editors write, and people type, instead of a quote.
const otherQuotes = "“”„«»‘’‚′″`'"

// remedy returns what most likely breaks the syntax of a text at an offset, and what helps. It returns an empty text if it does
// not know. The text is a document, or the value of a field.
func remedy(data []byte, at int, field string) string {
	trimmed := bytes.TrimSpace(data)
	switch {
	case len(trimmed) == 0:
		return "it is empty"
	case isUTF16(data):
		return saveAsUTF8
	case bytes.HasPrefix(data, []byte(string(byteOrderMark))):
		return "it begins with a byte order mark; save it as UTF-8 without one"
	case beginsYAML.Match(trimmed) && field == "":
		return "it looks like YAML; a document is JSON, so convert it first"
	case beginsYAML.Match(trimmed):
		return "it looks like YAML; it must be JSON, so convert it first"
	}
	at = min(at, len(data))
	rest := data[at:]
	switch r, _ := utf8.DecodeRune(rest); {
	case len(rest) == 0:
		if quote := quoteForEnd(data); quote != 0 {
			return fmt.Sprintf("a text has %c where JSON needs \" to end it", quote)
		}
	case strings.ContainsRune(otherQuotes, r):
		return fmt.Sprintf("it has %c where JSON needs \"", r)
	case r == byteOrderMark:
		return "it has a byte order mark here; take it out"
	case r != ' ' && unicode.IsSpace(r) || unicode.Is(unicode.Cf, r):
		return fmt.Sprintf("it has a white space that JSON does not know (%U); take it out or use a plain space", r)
	case bytes.HasPrefix(rest, []byte("//")), bytes.HasPrefix(rest, []byte("/*")), r == '#':
		return "JSON has no comments; take this one out"
	case (r == '}' || r == ']') && bytes.HasSuffix(bytes.TrimSpace(data[:at]), []byte(",")):
		return "JSON has no comma after the last element; take it out"
	}
	return ""
}

// quoteForEnd returns the first typographic quote in the text of JSON with which data ends, if that text has begun with a plain
// quote and does not end. Otherwise it returns 0.
func quoteForEnd(data []byte) rune {
	begin := -1 // of the text that has not ended
	for i := 0; i < len(data); i++ {
		switch {
		case data[i] == '\\' && begin >= 0:
			i++
		case data[i] == '"' && begin >= 0:
			begin = -1
		case data[i] == '"':
			begin = i
		}
	}
	if begin < 0 {
		return 0
	}
	for _, r := range string(data[begin:]) {
		if r > utf8.RuneSelf && strings.ContainsRune(otherQuotes, r) {
			return r
		}
	}
	return 0
}

// whole returns what the decoder says of a text that breaks the syntax at an offset, with the whole character there: the decoder
// takes each byte for a character.
func whole(data []byte, at int, says string) string {
	if at >= len(data) || data[at] < utf8.RuneSelf {
		return says
	}
	r, _ := utf8.DecodeRune(data[at:])
	return strings.Replace(says, strconv.QuoteRune(rune(data[at])), strconv.QuoteRune(r), 1)
}
