package document

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// fastCheck reports whether a JSON value is nested at most limit levels deep and certainly has no faults. It reads the text
// once and decodes no value. It returns false for unusual values, such as an object with many fields or a name with an
// escape. Therefore false only means that the value must be walked.
func fastCheck(data []byte, limit int) bool {
	const levels, fields = 32, 64
	if limit > levels || !utf8.Valid(data) || !json.Valid(data) {
		return false
	}
	var names [fields][]byte // the names in the open objects, the outermost object first
	var open [levels]struct {
		object bool
		from   int // where its names begin
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
