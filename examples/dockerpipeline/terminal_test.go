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
	p.live, p.color = true, false
	playScene(p)
	const wrapOff, wrapOn, line, up = "\x1b[?7l", "\x1b[?7h", "\r\x1b[K", "\x1b[3A"
	require.Equal(t, ""+
		wrapOff+
		line+"1 Clone\n"+
		line+"2 Test\n"+
		line+"3 Build it\n"+
		wrapOn+up+wrapOff+
		line+"1 Clone     succeeded     1.5s  cloned commit=abc depth=1\n"+
		line+"2 Test      running       1.5s  [31mred[0m and loud\n"+
		line+"3 Build it\n"+
		wrapOn+up+wrapOff+
		line+"1 Clone     succeeded     1.5s  cloned commit=abc depth=1\n"+
		line+"2 Test      failed        2.5s  exit status 1\n"+
		line+"3 Build it  skipped             step 2 failed\n"+
		wrapOn, out.String())
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
