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

// isTerminal reports whether out is a terminal on which the cursor can be moved.
func isTerminal(out io.Writer) bool {
	if os.Getenv("TERM") == "dumb" || runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == "" {
		return false
	}
	return windowHeight(out) > 0
}

// windowHeight returns the number of lines of the window of a terminal, and 0 if out is no terminal.
func windowHeight(out io.Writer) int {
	file, ok := out.(*os.File)
	if !ok {
		return 0
	}
	return terminalHeight(file)
}

// draw replaces the frame on the terminal by a new frame. The frame and the line below it, where the cursor is, fit into the
// window: a cursor cannot be moved up to a line that has left the window.
func (p *progress) draw(now time.Time) {
	if !p.live {
		return
	}
	names := 0
	for _, at := range p.rows {
		names = max(names, len([]rune(at.label())))
	}
	fitting := max(p.height()-1, 0)
	var frame bytes.Buffer
	if up := min(p.drawn, fitting); up > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA", up)
	}
	rows := p.visible(fitting)
	if len(rows) < p.drawn {
		frame.WriteString("\r\x1b[J") // the window has become lower
	}
	frame.WriteString("\x1b[?7l") // do not wrap long lines: cut them at the edge
	for _, at := range rows {
		line := fmt.Sprintf("%-*s  %s  %7s  %s", names, at.label(), p.state(at), elapsed(at, now), at.last)
		frame.WriteString("\r\x1b[K" + strings.TrimRight(line, " ") + "\n")
	}
	frame.WriteString("\x1b[?7h")
	p.out.Write(frame.Bytes())
	p.drawn = len(rows)
}

// visible returns at most n rows. The newest step that has begun is one of them.
func (p *progress) visible(n int) []*row {
	end := min(n, len(p.rows))
	for i := range p.rows {
		if p.rows[i].state != conveyor.StateUnset {
			end = max(end, i+1)
		}
	}
	return p.rows[max(end-n, 0):end]
}

func (r *row) label() string { return printable(r.id + " " + r.name) }

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
