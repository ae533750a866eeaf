package text

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestNameFault(t *testing.T) {
	const other = "a character other than"
	for _, c := range []struct {
		name  string
		given string
		fault string // part of it
	}{
		{"nothing", "", "is empty"},
		{"one byte", "a", ""},
		{"as long as can be", strings.Repeat("x", 253), ""},
		{"one byte more", strings.Repeat("x", 254), "has 254 bytes, more than the limit of 253 (a fixed limit)"},
		{"each class of character", "azAZ09._-", ""},
		{"a dot inside", "a.b", ""},
		{"two dots inside", "a..b", ""},
		{"a dot at the end", "a.", ""},
		{"a dot at the start", ".a", "starts with a dot"},
		{"a dot alone", ".", "starts with a dot"},
		{"two dots alone", "..", "starts with a dot"},
		{"a dash at the start", "-", ""},
		{"a digit at the start", "0", ""},
		{"a slash", "a/b", other},
		{"a backslash", `a\b`, other},
		{"a space", "a b", other},
		{"a colon", "a:b", other},
		{"a newline", "a\n", other},
		{"a zero byte", "a\x00", other},
		{"a letter that is not ASCII", "é", other},
		{"a digit that is not ASCII", "٣", other},
		{"no UTF-8", "a\xff", other},
		{"the neighbors of the letters", "@", other},
		{"a bracket", "[", other},
		{"a backquote", "`", other},
		{"a brace", "{", other},
	} {
		t.Run(c.name, func(t *testing.T) {
			fault := NameFault(c.given)
			require.Contains(t, fault, c.fault)
			require.Equal(t, c.fault == "", fault == "")
		})
	}
}

func TestAValidNameIsMadeOfNameRunes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.StringMatching(`[a-zA-Z0-9._-]{1,253}`), rapid.String()).Draw(t, "name")
		valid := name != "" && len(name) <= MaxName && name[0] != '.' && strings.Trim(name,
			"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
		require.Equal(t, valid, NameFault(name) == "")
	})
}
