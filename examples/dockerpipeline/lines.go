package main

import (
	"bytes"
	"strings"
)

// lineWriter calls line for each line that is written to it. The text has no line end.
type lineWriter struct {
	line func(text string)
	part []byte // the line that has not ended yet
	kept excerpt
}

// maxLine is the number of bytes after which a line without an end is broken.
const maxLine = 64 << 10

func (w *lineWriter) Write(p []byte) (int, error) {
	w.part = append(w.part, p...)
	for {
		end := bytes.IndexByte(w.part, '\n')
		if end < 0 && len(w.part) < maxLine {
			return len(p), nil
		}
		if end < 0 {
			end = len(w.part) - 1
		}
		w.emit(w.part[:end+1])
		w.part = w.part[end+1:]
	}
}

// flush emits the last line if it has no end.
func (w *lineWriter) flush() {
	if len(w.part) > 0 {
		w.emit(w.part)
		w.part = nil
	}
}

func (w *lineWriter) emit(line []byte) {
	text := strings.TrimRight(string(line), "\r\n")
	text = strings.ToValidUTF8(text, "\uFFFD")
	w.kept.add(text)
	w.line(text)
}
