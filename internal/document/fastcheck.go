package document

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// plain says that a JSON value has no faults, nested no deeper than a limit. It passes over the text once, without
// taking values apart, and gives up on what is out of the ordinary, many fields in one object or escapes in their names:
// false means that it must be walked, and no more.
func plain(data []byte, limit int) bool {
	const levels, fields = 32, 64
	if limit > levels || !utf8.Valid(data) || !json.Valid(data) {
		return false
	}
	var names [fields][]byte // of the open objects, the outermost first
	var open [levels]struct {
		object bool
		from   int // of its names
	}
	used, depth, named := 0, 0, false // named: the next string is a name
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			if depth == limit {
				return false
			}
			named = data[i] == '{'
			open[depth].object, open[depth].from = named, used
			depth++
		case '}', ']':
			depth--
			used, named = open[depth].from, false
		case ',':
			named = open[depth-1].object
		case '"':
			end := i + 1
			for data[end] != '"' {
				if data[end] == '\\' {
					if named {
						return false
					}
					end++
				}
				end++
			}
			if named {
				name := data[i+1 : end]
				for _, other := range names[open[depth-1].from:used] {
					if bytes.Equal(other, name) {
						return false
					}
				}
				if used == fields {
					return false
				}
				names[used], named = name, false
				used++
			}
			i = end
		}
	}
	return true
}
