package text

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestTruncate(t *testing.T) {
	for _, c := range []struct {
		name  string
		text  string
		limit int
		want  string
	}{
		{"what fits", "abc", 3, "abc"},
		{"what does not", "abcdefghijklmnop", 15, "abcde … [cut]"},
		{"no half character", "éééééééé", 15, "éé … [cut]"},
		{"no room for more than the mark", "abcdefghijklmnop", len(CutMark), CutMark},
		{"no room for the mark", "abcdefghijklmnop", 5, ""},
		{"no room", "abc", 0, ""},
		{"nothing", "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Truncate(c.text, c.limit)) })
	}
}

func TestTruncateKeepsToTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := rapid.String().Draw(t, "text")
		limit := rapid.IntRange(0, 40).Draw(t, "limit")
		short := Truncate(whole, limit)
		require.LessOrEqual(t, Size(short), max(limit, 0))
		require.Equal(t, utf8.ValidString(whole), utf8.ValidString(short) && utf8.ValidString(whole))
		require.True(t, strings.HasPrefix(whole, strings.TrimSuffix(short, CutMark)))
		if Size(whole) <= limit {
			require.Equal(t, whole, short)
		}
	})
}

func TestTruncateCountsWhatJSONNeeds(t *testing.T) {
	require.Equal(t, strings.Repeat("\x00", 5)+CutMark, Truncate(strings.Repeat("\x00", 100), 30+len(CutMark)))
	require.Equal(t, strings.Repeat("\n", 15)+CutMark, Truncate(strings.Repeat("\n", 100), 30+len(CutMark)))
	require.Equal(t, strings.Repeat("\u2028", 5)+CutMark, Truncate(strings.Repeat("\u2028", 100), 30+len(CutMark)))
}

// TestSizeIsThatOfTheJSON compares Size with what encoding/json writes without the escapes for HTML, as records are
// written.
func TestSizeIsThatOfTheJSON(t *testing.T) {
	size := func(t require.TestingT, text string) int {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		require.NoError(t, e.Encode(text))
		return b.Len() - len("\"\"\n")
	}
	for r := range rune(0x3000) {
		require.Equal(t, size(t, string(r)), Size(string(r)), "%U", r)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")) + rapid.String().Draw(t, "more")
		require.Equal(t, size(t, text), Size(text))
		require.LessOrEqual(t, Size(Truncate(text, 20)), 20)
	})
}
