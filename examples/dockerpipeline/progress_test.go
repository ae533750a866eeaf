package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func stepEvent(step string, state conveyor.State, seconds float64, reason string) conveyor.Event {
	at := noon.Add(time.Duration(seconds * float64(time.Second)))
	return conveyor.Event{Kind: conveyor.EventStep, Step: step, State: state, Attempt: 1, Time: at, Reason: reason}
}

// playScene adds a step that succeeds, a step that fails, and a step that is skipped.
func playScene(p *progress) {
	p.draw(noon)
	p.addEvent(stepEvent("1", conveyor.StateRunning, 0, ""))
	p.addLine(conveyor.LogLine{Seq: 1, Step: "1", Attempt: 1, Message: "cloned", Attrs: json.RawMessage(`{"depth":1,"commit":"abc"}`)})
	p.addLine(conveyor.LogLine{Seq: 1, Step: "1", Message: "seen before"})
	p.addEvent(stepEvent("1", conveyor.StateSucceeded, 1.5, ""))
	p.addEvent(stepEvent("2", conveyor.StateRunning, 1.5, ""))
	p.addLine(conveyor.LogLine{Seq: 2, Step: "2", Attempt: 1, Message: "\x1b[31mred\x1b[0m\tand\x07 loud"})
	p.draw(noon.Add(3 * time.Second))
	p.addEvent(stepEvent("2", conveyor.StateFailed, 4, "exit status 1"))
	p.addEvent(stepEvent("3", conveyor.StateSkipped, 4, "step 2 failed"))
	p.draw(noon.Add(time.Minute))
}

var threeSteps = []conveyor.Step{{ID: "1", Name: "Clone"}, {ID: "2", Name: "Test"}, {ID: "3", Name: "Build it"}}

func TestProgressWritesPlainLines(t *testing.T) {
	var out bytes.Buffer
	playScene(newProgress(&out, threeSteps))
	require.Equal(t, `1 Clone: running
1 | cloned commit=abc depth=1
1 Clone: succeeded after 1.5s
2 Test: running
2 | red and loud
2 Test: failed after 2.5s: exit status 1
3 Build it: skipped: step 2 failed
`, out.String())
}

func TestProgressKeepsALineUntilItsStepHasBegun(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, threeSteps)
	p.addEvent(stepEvent("1", conveyor.StateRunning, 0, ""))
	p.addLine(conveyor.LogLine{Seq: 1, Step: "2", Attempt: 1, Message: "testing"})
	p.addEvent(stepEvent("1", conveyor.StateSucceeded, 1, ""))
	p.addLine(conveyor.LogLine{Seq: 1, Step: "2", Attempt: 1, Message: "testing"})
	p.addEvent(stepEvent("2", conveyor.StateRunning, 1, ""))
	require.Equal(t, "1 Clone: running\n1 Clone: succeeded after 1.0s\n2 Test: running\n2 | testing\n", out.String())
}

func TestProgressRecallsWhatIsFinished(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, threeSteps)
	p.restore(&conveyor.Run{Steps: []conveyor.StepRun{
		{Step: threeSteps[0], State: conveyor.StateSucceeded, Attempt: 1, StartedAt: noon, EndedAt: noon.Add(time.Second)},
		{Step: threeSteps[1], State: conveyor.StateRunning, Attempt: 1, StartedAt: noon},
		{Step: threeSteps[2]},
	}}, []conveyor.LogLine{{Seq: 7, Step: "1", Message: "old"}})
	p.addLine(conveyor.LogLine{Seq: 8, Step: "2", Attempt: 1, Message: "new", Time: noon})
	p.addEvent(stepEvent("2", conveyor.StateRunning, 60, ""))
	require.Equal(t, "1 Clone: succeeded after 1.0s\n2 Test: running\n2 | new\n", out.String())
	require.Equal(t, "old", p.row("1").last)
}
