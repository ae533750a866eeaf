package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

func TestProgressDrawsOneLineAStep(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, threeSteps)
	p.live, p.color, p.height = true, false, func() int { return 24 }
	playScene(p)
	const wrapOff, wrapOn, line, up = "\x1b[?7l", "\x1b[?7h", "\r\x1b[K", "\x1b[3A"
	require.Equal(t, ""+
		wrapOff+
		line+"1 Clone\n"+
		line+"2 Test\n"+
		line+"3 Build it\n"+
		wrapOn+up+wrapOff+
		line+"1 Clone     succeeded     1.5s  cloned commit=abc depth=1\n"+
		line+"2 Test      running       1.5s  red and loud\n"+
		line+"3 Build it\n"+
		wrapOn+up+wrapOff+
		line+"1 Clone     succeeded     1.5s  cloned commit=abc depth=1\n"+
		line+"2 Test      failed        2.5s  exit status 1\n"+
		line+"3 Build it  skipped             step 2 failed\n"+
		wrapOn, out.String())
}

func TestProgressFitsIntoALowWindow(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, threeSteps)
	height := 3
	p.live, p.color, p.height = true, false, func() int { return height }
	frame := func() string {
		out.Reset()
		p.draw(noon)
		return out.String()
	}
	const wrapOff, wrapOn, line = "\x1b[?7l", "\x1b[?7h", "\r\x1b[K"
	require.Equal(t, wrapOff+line+"1 Clone\n"+line+"2 Test\n"+wrapOn, frame(), "the cursor needs a line as well")
	p.addEvent(stepEvent("1", conveyor.StateSucceeded, 0, ""))
	p.addEvent(stepEvent("2", conveyor.StateSucceeded, 0, ""))
	p.addEvent(stepEvent("3", conveyor.StateRunning, 0, ""))
	require.Equal(t, "\x1b[2A"+wrapOff+line+"2 Test      succeeded     0.0s\n"+line+"3 Build it  running       0.0s\n"+wrapOn, frame())
	height = 2
	require.Equal(t, "\x1b[1A\r\x1b[J"+wrapOff+line+"3 Build it  running       0.0s\n"+wrapOn, frame(), "the window was made lower")
	height = 1
	require.Equal(t, "\r\x1b[J"+wrapOff+wrapOn, frame(), "there is no room")
}

func TestProgressColoursStatesUnlessAskedNotTo(t *testing.T) {
	at := &row{state: conveyor.StateSucceeded}
	require.Equal(t, "\x1b[32msucceeded\x1b[0m", newProgress(new(bytes.Buffer), nil).state(at))
	t.Setenv("NO_COLOR", "1")
	require.Equal(t, "succeeded", newProgress(new(bytes.Buffer), nil).state(at))
}

func TestTerminalIsNotAFileOrADumbOne(t *testing.T) {
	require.False(t, isTerminal(new(bytes.Buffer)))
	t.Setenv("TERM", "dumb")
	require.False(t, isTerminal(nil))
}
