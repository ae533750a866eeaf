package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor"
)

// progress shows a run. On a terminal it shows one line for each step, and draws the lines again in place. Elsewhere it
// prints a line for each change and for each log line. It must be used by one goroutine only.
type progress struct {
	out    io.Writer
	live   bool
	color  bool
	height func() int // returns the number of lines of the window
	rows   []*row
	seen   int64 // Seq of the newest log line that was added
	drawn  int   // number of lines on the terminal that the next frame replaces
}

// row holds what is shown of one step.
type row struct {
	id, name       string
	state          conveyor.State
	attempt        int
	started, ended time.Time
	last           string             // the last log line, or the reason of the state
	early          []conveyor.LogLine // the log lines that came before the event that the step has begun
}

func newProgress(out io.Writer, steps []conveyor.Step) *progress {
	p := &progress{out: out, color: os.Getenv("NO_COLOR") == ""}
	p.live = isTerminal(out)
	p.height = func() int { return windowHeight(out) }
	for _, step := range steps {
		p.rows = append(p.rows, &row{id: step.ID, name: step.Name})
	}
	return p
}

// restore adds the recorded part of a run that an earlier start began: the finished steps, and the last log line of each
// step. It does not print the log lines again.
func (p *progress) restore(run *conveyor.Run, log []conveyor.LogLine) {
	for _, l := range log {
		p.setLast(l)
	}
	for i := range run.Steps {
		if s := &run.Steps[i]; s.State.Final() {
			p.updateStep(s)
		}
	}
}

// update sets the state of each step to its recorded state.
func (p *progress) update(run *conveyor.Run) {
	for i := range run.Steps {
		if s := &run.Steps[i]; s.State != conveyor.StatePending {
			p.updateStep(s)
		}
	}
}

func (p *progress) updateStep(s *conveyor.StepRun) {
	if at := p.row(s.ID); at != nil {
		p.setState(at, s.State, s.Attempt, s.Reason, s.StartedAt, s.EndedAt)
	}
}

// addEvent adds a change of a step.
func (p *progress) addEvent(e conveyor.Event) {
	if at := p.row(e.Step); e.Kind == conveyor.EventStep && at != nil {
		p.setState(at, e.State, e.Attempt, e.Reason, e.Time, e.Time)
	}
}

// setState changes the state of a step, and then prints the log lines that waited for the change.
func (p *progress) setState(at *row, state conveyor.State, attempt int, reason string, started, ended time.Time) {
	if at.state == state && at.attempt == attempt {
		return
	}
	if state == conveyor.StateRunning || at.started.IsZero() {
		at.started = started
	}
	if state.Final() {
		at.ended = ended
	}
	at.state, at.attempt = state, attempt
	if reason != "" {
		at.last = summary(reason)
	}
	if !p.live {
		p.printState(at, reason)
	}
	early := at.early
	at.early = nil
	for _, l := range early {
		p.printLine(l)
	}
}

// printState prints the state of a step.
func (p *progress) printState(at *row, reason string) {
	line := at.label() + ": " + at.state.String()
	if at.attempt > 1 {
		line += fmt.Sprintf(", attempt %d", at.attempt)
	}
	if at.state.Final() && at.state != conveyor.StateSkipped {
		line += " after " + elapsed(at, time.Time{})
	}
	if reason != "" {
		line += ": " + summary(reason)
	}
	fmt.Fprintln(p.out, line)
}

// addLine adds a log line, unless the line was added before. Log lines and events come from two streams. A log line can
// come before the event that its step has begun. addLine keeps such a line until the event comes, so that no step seems
// to begin before the end of the step before it.
func (p *progress) addLine(l conveyor.LogLine) {
	if l.Seq <= p.seen {
		return
	}
	p.seen = l.Seq
	at := p.row(l.Step)
	if at != nil && at.state == conveyor.StateUnset {
		at.early = append(at.early, l)
		return
	}
	if at != nil && !at.state.Final() {
		// The event of an attempt can come after its first log line.
		p.setState(at, conveyor.StateRunning, l.Attempt, "", l.Time, l.Time)
	}
	p.printLine(l)
}

// printLine prints a log line.
func (p *progress) printLine(l conveyor.LogLine) {
	text := p.setLast(l)
	if !p.live {
		fmt.Fprintln(p.out, printable(l.Step)+" | "+text)
	}
}

// setLast makes a log line the last line of its step, and returns its text.
func (p *progress) setLast(l conveyor.LogLine) string {
	p.seen = max(p.seen, l.Seq)
	text := lineText(l)
	if at := p.row(l.Step); at != nil && text != "" {
		at.last = text
	}
	return text
}

// row returns the row of a step, or nil if there is no such step.
func (p *progress) row(id string) *row {
	i := slices.IndexFunc(p.rows, func(s *row) bool { return s.id == id })
	if i < 0 {
		return nil
	}
	return p.rows[i]
}
