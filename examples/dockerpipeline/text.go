package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/conveyor-go/conveyor"
)

// lineText returns the message of a log line, followed by its attributes as name=value.
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

// printableLines applies printable to each line of a text.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// printable removes the control characters of text, so that the output of a program cannot control the terminal.
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
