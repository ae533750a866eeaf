package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

func TestPrintableCannotControlTheTerminal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, text, want string }{
		{name: "plain text", text: "größer 世界 🎉", want: "größer 世界 🎉"},
		{name: "a colour", text: "\x1b[1;31mred\x1b[0m", want: "red"},
		{name: "a colour with colons", text: "\x1b[38:2::1:2:3mred\x1b[m", want: "red"},
		{name: "a cursor that moves", text: "a\x1b[2Jb\x1b[10;10Hc\x1b[?25ld\x1b[!pe", want: "abcde"},
		{name: "a control sequence of one character", text: "a\u009b31mb", want: "ab"},
		{name: "a title", text: "a\x1b]0;evil\ab", want: "ab"},
		{name: "a title with another end", text: "a\x1b]2;evil\x1b\\b", want: "ab"},
		{name: "a title in characters of one", text: "a\u009d0;evil\u009cb", want: "ab"},
		{name: "a title without an end", text: "a\x1b]0;evil", want: "a"},
		{name: "a link", text: "\x1b]8;;http://example.com\x1b\\text\x1b]8;;\x1b\\", want: "text"},
		{name: "a string for the device", text: "a\x1bPq#0;2\x1b\\b\x1b_G\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e", want: "abcde"},
		{name: "a character set", text: "a\x1b(0b\x1b%Gc", want: "abc"},
		{name: "a reset", text: "a\x1bcb\x1b7c", want: "abc"},
		{name: "a sequence that is broken off", text: "a\x1b[31\x01b\x1b", want: "ab"},
		{name: "a redrawn line", text: "10%\r50%\r100%", want: "100%"},
		{name: "a redrawn line with an end", text: "10%\r100%\r\r", want: "100%"},
		{name: "a line that is cleared and redrawn", text: "10%\x1b[2K\r\x1b[1Gdone", want: "done"},
		{name: "several lines", text: "one\r\ntwo\tthree\n\x1b]0;x\nfour", want: "one two three  four"},
		{name: "other directions", text: "a\u202eb\u2066c\u2069\u200fd\u061ce", want: "abcde"},
		{name: "other control characters", text: "a\bb\x00c\x7fd\u0085e\u2028f\ufeffg", want: "abcdefg"},
		{name: "bytes that are no text", text: "a\xff\x9bb", want: "a\ufffd\ufffdb"},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, printable(test.text)) })
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[31mb\x1b]0;t\a\u009b1mc\x1b(0\rd")
	f.Fuzz(func(t *testing.T, text string) {
		once := printable(text)
		for _, r := range once {
			require.False(t, r < ' ' || r >= 0x7f && r < 0xa0, "%q", once)
		}
		require.Equal(t, once, printable(once))
	})
}

const evil = "evil\x1b]0;title\a\x1b[2J\u202e\rname"

func TestNamesCannotControlTheTerminal(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{true, false} {
		var out bytes.Buffer
		p := newProgress(&out, []conveyor.Step{{ID: "1", Name: evil}})
		p.live, p.color, p.height = live, false, func() int { return 24 }
		p.addEvent(stepEvent("1", conveyor.StateRunning, 0, evil))
		p.draw(noon)
		require.Contains(t, out.String(), "name")
		require.NotContains(t, out.String(), "title")
		require.NotContains(t, out.String(), "\x1b[2J")
		require.NotContains(t, out.String(), "\u202e")
	}
}
