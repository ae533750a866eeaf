package text

import (
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
		require.LessOrEqual(t, len(short), max(limit, 0))
		require.Equal(t, utf8.ValidString(whole), utf8.ValidString(short) && utf8.ValidString(whole))
		require.True(t, strings.HasPrefix(whole, strings.TrimSuffix(short, CutMark)))
		if len(whole) <= limit {
			require.Equal(t, whole, short)
		}
	})
}
