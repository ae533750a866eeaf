package main

import (
	"encoding/json"
	"fmt"
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
	if l.Dropped > 0 {
		text = fmt.Sprintf("… %d lines are not kept …", l.Dropped)
	}
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

// printable returns text as one line that cannot control the terminal, whoever wrote the text. It removes whole escape
// sequences, titles of the window included, and all other characters that do not print: control characters, and those that
// change the direction of the text. Of a line that a program has drawn again and again, the last drawing stays.
func printable(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.TrimRight(withoutEscapes(line), "\r")
		lines[i] = line[strings.LastIndexByte(line, '\r')+1:]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		default:
			return -1
		}
	}, strings.Join(lines, " "))
}
