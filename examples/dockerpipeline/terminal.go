package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor"
)

// maxLive is a number of lines that fits on each terminal. The cursor cannot be moved up beyond the edge of the terminal.
const maxLive = 20

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == "" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// draw replaces the frame on the terminal by a new frame.
func (p *progress) draw(now time.Time) {
	if !p.live {
		return
	}
	names := 0
	for _, at := range p.rows {
		names = max(names, len([]rune(at.label())))
	}
	var frame bytes.Buffer
	if p.drawn > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA", p.drawn)
	}
	frame.WriteString("\x1b[?7l") // do not wrap long lines: cut them at the edge
	for _, at := range p.rows {
		line := fmt.Sprintf("%-*s  %s  %7s  %s", names, at.label(), p.state(at), elapsed(at, now), at.last)
		frame.WriteString("\r\x1b[K" + strings.TrimRight(line, " ") + "\n")
	}
	frame.WriteString("\x1b[?7h")
	p.out.Write(frame.Bytes())
	p.drawn = len(p.rows)
}

func (r *row) label() string { return r.id + " " + r.name }

// state returns the word for the state of a step, padded and coloured.
func (p *progress) state(at *row) string {
	word := at.state.String()
	if at.state == conveyor.StateUnset {
		word = ""
	}
	word = fmt.Sprintf("%-9s", word)
	colors := map[conveyor.State]string{
		conveyor.StateSucceeded: "32", conveyor.StateFailed: "31", conveyor.StateRunning: "33", conveyor.StateRetrying: "33",
	}
	if color := colors[at.state]; color != "" && p.color {
		return "\x1b[" + color + "m" + word + "\x1b[0m"
	}
	return word
}

// elapsed returns the time that a step took, or the time until now if the step has not ended.
func elapsed(at *row, now time.Time) string {
	if at.started.IsZero() || at.state == conveyor.StateSkipped {
		return ""
	}
	if at.state.Final() {
		now = at.ended
	}
	return strconv.FormatFloat(max(now.Sub(at.started), 0).Seconds(), 'f', 1, 64) + "s"
}
