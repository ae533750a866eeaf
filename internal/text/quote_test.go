package text

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPlain(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"what is printed", `boom: "é" 日本 \n`, `boom: "é" 日本 \n`},
		{"ends of lines", "a\r\nb\u2028c\u0085", `a\r\nb\u2028c\u0085`},
		{"a tab", "a\tb", `a\tb`},
		{"an escape sequence", "\x1b[2J\u009b2J", `\x1b[2J\u009b2J`},
		{"a change of direction", "a\u202eb\u2066\u200f", `a\u202eb\u2066\u200f`},
		{"what has no width", "a\u200bb\ufeff", `a\u200bb\ufeff`},
		{"no UTF-8", "a\xff", "a\uFFFD"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Plain(c.text)) })
	}
	rapid.Check(t, func(t *rapid.T) {
		plain := Plain(rapid.String().Draw(t, "text"))
		require.False(t, strings.ContainsFunc(plain, unprinted))
		require.Equal(t, plain, Plain(plain))
	})
}

func TestQuoteIsBounded(t *testing.T) {
	require.Equal(t, `"a\x1b\n"`, Quote("a\x1b\n"))
	require.LessOrEqual(t, utf8.RuneCountInString(Quote(strings.Repeat("x", 1000))), MaxName+2)
	require.LessOrEqual(t, len(Quote(strings.Repeat("\x00", 1000))), 4*MaxName+2)
}

func TestSegment(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a name", "a-b_1", "a-b_1"},
		{"letters of any language", "é日", "é日"},
		{"nothing", "", `""`},
		{"a dot", "a.b", `"a.b"`},
		{"brackets", "a[0]", `"a[0]"`},
		{"quotes", `a"b`, `"a\"b"`},
		{"a space", "a b", `"a b"`},
		{"an end of a line", "a\nb", `"a\nb"`},
		{"a change of direction", "a\u202e", `"a\u202e"`},
		{"what is too long", strings.Repeat("x", 30), `"xxxxxxxxxxxx … [cut]"`},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Segment(c.text, 22)) })
	}
}
