package main

import (
	"fmt"
	"strings"
)

// An excerpt keeps the first and the last lines of a text. An excerpt is part of an error, and an error must be short enough
// to be recorded as a whole: see Limits.ErrorText of the engine, which cuts the end.
type excerpt struct {
	first, last []string
	omitted     int
}

const (
	excerptFirst = 8
	excerptLast  = 12
	excerptWidth = 200 // characters of a line that are kept
)

// add adds a line. Lines without text are not kept.
func (e *excerpt) add(line string) {
	line = printable(line)
	if strings.TrimSpace(line) == "" {
		return
	}
	if short := []rune(line); len(short) > excerptWidth {
		line = string(short[:excerptWidth]) + "…"
	}
	if len(e.first) < excerptFirst {
		e.first = append(e.first, line)
		return
	}
	if len(e.last) == excerptLast {
		e.last = e.last[1:]
		e.omitted++
	}
	e.last = append(e.last, line)
}

func (e *excerpt) empty() bool { return len(e.first) == 0 }

// String returns the lines, each of them indented and after a line end.
func (e *excerpt) String() string {
	lines := append([]string(nil), e.first...)
	if e.omitted > 0 {
		lines = append(lines, fmt.Sprintf("… %d lines …", e.omitted))
	}
	lines = append(lines, e.last...)
	if len(lines) == 0 {
		return ""
	}
	return "\n  " + strings.Join(lines, "\n  ")
}

// summary returns the first and the last line of an error as one line.
func summary(reason string) string {
	first, rest, several := strings.Cut(reason, "\n")
	if several {
		first += " " + strings.TrimSpace(rest[strings.LastIndexByte(rest, '\n')+1:])
	}
	return printable(first)
}
