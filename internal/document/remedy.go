package document

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// isUTF16 reports whether a text begins with the byte order mark of UTF-16.
func isUTF16(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff"))
}

const byteOrderMark = "\ufeff"

// beginsYAML matches the beginning of a document, a list or a mapping in YAML. A comment can come before it.
var beginsYAML = regexp.MustCompile(`^(#[^\n]*\n\s*)*(---|- |[A-Za-z_][A-Za-z0-9_.-]*:(\s|$))`)

// remedy returns what most likely breaks the syntax of a text at an offset, and what helps. It returns an empty text if it does
// not know.
func remedy(data []byte, at int) string {
	whole := bytes.TrimSpace(data)
	switch {
	case len(whole) == 0:
		return "it is empty"
	case strings.HasPrefix(string(data[:min(len(data), len(byteOrderMark))]), byteOrderMark):
		return "it begins with a byte order mark; save it as UTF-8 without one"
	case beginsYAML.Match(whole):
		return "it looks like YAML; a document is JSON, so convert it first"
	}
	at = min(at, len(data))
	rest := data[at:]
	switch r, _ := utf8.DecodeRune(rest); {
	case strings.ContainsRune("“”„«»‘’‚′″`'", r):
		return fmt.Sprintf("it has %c where JSON needs \"", r)
	case bytes.HasPrefix(rest, []byte("//")), bytes.HasPrefix(rest, []byte("/*")), r == '#':
		return "JSON has no comments; take this one out"
	case (r == '}' || r == ']') && bytes.HasSuffix(bytes.TrimSpace(data[:at]), []byte(",")):
		return "JSON has no comma after the last element; take it out"
	}
	return ""
}
