package main

import "strings"

// The control characters with which escape sequences begin and end. Each of the last three has a form of one character,
// and a form of escape and a letter.
const (
	escape        = '\x1b'
	bell          = '\a'
	controlBegin  = '\u009b' // or escape [
	stringEnd     = '\u009c' // or escape \
	stringsBegin  = "\u0090\u0098\u009d\u009e\u009f"
	stringsBegin7 = "PX]^_" // after escape
)

// withoutEscapes removes the escape sequences of a line, as ECMA-48 defines them. A string without an end, such as the title
// of a window, goes to the end of the line.
func withoutEscapes(line string) string {
	if !strings.ContainsAny(line, string(escape)+string(controlBegin)+stringsBegin) {
		return line
	}
	var kept strings.Builder
	for text := []rune(line); len(text) > 0; {
		if n := escapeLen(text); n > 0 {
			text = text[n:]
			continue
		}
		kept.WriteRune(text[0])
		text = text[1:]
	}
	return kept.String()
}

// escapeLen returns the length of the escape sequence with which text begins, or 0.
func escapeLen(text []rune) int {
	switch first := text[0]; {
	case first == controlBegin:
		return controlLen(text, 1)
	case strings.ContainsRune(stringsBegin, first):
		return stringLen(text, 1)
	case first != escape:
		return 0
	case len(text) == 1:
		return 1
	}
	switch second := text[1]; {
	case second == '[':
		return controlLen(text, 2)
	case strings.ContainsRune(stringsBegin7, second):
		return stringLen(text, 2)
	case within(second, ' ', '/'): // for example the choice of a character set
		return endOf(text, skip(text, 1, ' ', '/'), '0', '~')
	default:
		return endOf(text, 1, '0', '~')
	}
}

// controlLen returns the length of a control sequence whose parameters begin at i.
func controlLen(text []rune, i int) int {
	i = skip(text, i, '0', '?')
	i = skip(text, i, ' ', '/')
	return endOf(text, i, '@', '~')
}

// stringLen returns the length of a sequence whose string begins at i.
func stringLen(text []rune, i int) int {
	for ; i < len(text); i++ {
		switch {
		case text[i] == bell, text[i] == stringEnd:
			return i + 1
		case text[i] == escape && i+1 < len(text) && text[i+1] == '\\':
			return i + 2
		}
	}
	return len(text)
}

// skip returns the index of the first character from i on that is not between low and high.
func skip(text []rune, i int, low, high rune) int {
	for i < len(text) && within(text[i], low, high) {
		i++
	}
	return i
}

// endOf returns the index after the last character of a sequence. A sequence that is broken off ends before the character
// that does not belong to it.
func endOf(text []rune, i int, low, high rune) int { return min(i+1, skip(text, i, low, high)) }

func within(r, low, high rune) bool { return low <= r && r <= high }
