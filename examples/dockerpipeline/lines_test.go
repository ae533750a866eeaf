package main

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLineWriterBreaksLines(t *testing.T) {
	var got []string
	w := &lineWriter{line: func(text string) { got = append(got, text) }}
	for _, part := range []string{"one\r\ntw", "o\n\nthree \xff", "\n   \nend"} {
		n, err := io.WriteString(w, part)
		require.NoError(t, err)
		require.Len(t, part, n)
	}
	w.flush()
	require.Equal(t, []string{"one", "two", "", "three \uFFFD", "   ", "end"}, got)
	require.Equal(t, "\n  one\n  two\n  three \uFFFD\n  end", w.kept.String())

	got = nil
	for range 3 {
		_, err := w.Write(make([]byte, maxLine/2))
		require.NoError(t, err)
	}
	w.flush()
	require.Equal(t, []int{maxLine, maxLine / 2}, []int{len(got[0]), len(got[1])}, "a line without an end is broken")
}
