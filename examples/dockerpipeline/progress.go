package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor"
)

// progress shows a run: on a terminal one line a step, drawn again in place; elsewhere a line for each thing that
// happens. It is used by one goroutine.
type progress struct {
	out   io.Writer
	live  bool
	color bool
	rows  []*row
	seen  int64 // Seq of the newest log line taken up
	drawn int   // lines on the terminal that the next frame replaces
}

// row is what is shown of one step.
type row struct {
	id, name       string
	state          conveyor.State
	attempt        int
	started, ended time.Time
	last           string             // log line, or the reason of a state
	early          []conveyor.LogLine // came before the event that the step has begun
}

func newProgress(out io.Writer, steps []conveyor.Step) *progress {
	p := &progress{out: out, color: os.Getenv("NO_COLOR") == ""}
	p.live = isTerminal(out) && len(steps) <= maxLive
	for _, step := range steps {
		p.rows = append(p.rows, &row{id: step.ID, name: step.Name})
	}
	return p
}

// restore takes up what an earlier start left of a run: which steps are finished, and the last words of each. Older log
// lines are not shown again.
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

// update brings the steps to what is on record of the run.
func (p *progress) update(run *conveyor.Run) {
	for i := range run.Steps {
		if s := &run.Steps[i]; s.State != conveyor.StateUnset {
			p.updateStep(s)
		}
	}
}

func (p *progress) updateStep(s *conveyor.StepRun) {
	if at := p.row(s.ID); at != nil {
		p.setState(at, s.State, s.Attempt, s.Reason, s.StartedAt, s.EndedAt)
	}
}

// addEvent takes up a change of a step.
func (p *progress) addEvent(e conveyor.Event) {
	if at := p.row(e.Step); e.Kind == conveyor.EventStep && at != nil {
		p.setState(at, e.State, e.Attempt, e.Reason, e.Time, e.Time)
	}
}

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
		at.last = printable(reason)
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

// printState writes the state of a step.
func (p *progress) printState(at *row, reason string) {
	line := fmt.Sprintf("%s %s: %s", at.id, at.name, at.state)
	if at.attempt > 1 {
		line += fmt.Sprintf(", attempt %d", at.attempt)
	}
	if at.state.Final() && at.state != conveyor.StateSkipped {
		line += " after " + elapsed(at, time.Time{})
	}
	if reason != "" {
		line += ": " + printable(reason)
	}
	fmt.Fprintln(p.out, line)
}

// addLine takes up a log line, once. Lines and events come in two streams; a line that overtakes the event that its step
// has begun waits for it, so that no step seems to begin before the one before it has ended.
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
		p.setState(at, conveyor.StateRunning, l.Attempt, "", l.Time, l.Time) // the event of an attempt may come after its line
	}
	p.printLine(l)
}

// printLine writes a log line.
func (p *progress) printLine(l conveyor.LogLine) {
	text := p.setLast(l)
	if !p.live {
		fmt.Fprintln(p.out, l.Step+" | "+text)
	}
}

// setLast keeps a log line as the last of its step, and returns its text.
func (p *progress) setLast(l conveyor.LogLine) string {
	p.seen = max(p.seen, l.Seq)
	text := lineText(l)
	if at := p.row(l.Step); at != nil && text != "" {
		at.last = text
	}
	return text
}

func (p *progress) row(id string) *row {
	i := slices.IndexFunc(p.rows, func(s *row) bool { return s.id == id })
	if i < 0 {
		return nil
	}
	return p.rows[i]
}
