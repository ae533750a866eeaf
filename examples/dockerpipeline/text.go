package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/conveyor-go/conveyor"
)

// lineText renders a log line as its message and its attributes, name=value.
func lineText(l conveyor.LogLine) string {
	var attrs map[string]json.RawMessage
	text := l.Message
	if len(l.Attrs) > 0 && json.Unmarshal(l.Attrs, &attrs) == nil {
		for _, name := range slices.Sorted(maps.Keys(attrs)) {
			value := string(attrs[name])
			if plain := ""; json.Unmarshal(attrs[name], &plain) == nil {
				value = plain
			}
			text += " " + name + "=" + value
		}
	}
	return printable(text)
}

// printableLines is printable for a text of several lines.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// printable takes the power out of what the programs of a step wrote: it reaches the terminal without escapes.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case unicode.IsPrint(r):
			return r
		default:
			return -1
		}
	}, text)
}
