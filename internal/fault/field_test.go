package fault

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFieldsStopAfterAHundred(t *testing.T) {
	for _, c := range []struct {
		name           string
		added, listed  int
		full, mentions bool
	}{
		{"none", 0, 0, false, false},
		{"one", 1, 1, false, false},
		{"as many as are listed", 100, 100, false, false},
		{"one more", 101, 101, true, true},
		{"many more", 250, 101, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Fields
			for i := range c.added {
				f.Add(Invalidf(fmt.Sprint("steps[", i, "]"), "is wrong"))
			}
			require.Len(t, f.List(), c.listed)
			require.Equal(t, c.added > 0, f.Any())
			require.Equal(t, c.full, f.Full())
			for i := range min(c.added, 100) {
				require.Equal(t, fmt.Sprint("steps[", i, "]"), f.List()[i].Path)
			}
			last := append([]Field{{}}, f.List()...)[c.listed]
			require.Equal(t, c.mentions, last.Problem == "more faults than the 100 listed")
		})
	}
	var f Fields
	f.Add(make([]Field, 150)...)
	require.Len(t, f.List(), 101, "many at once")
}

func TestFieldsCheckNamesAndTexts(t *testing.T) {
	var f Fields
	f.Name("name", "a-good.name_1")
	f.Text("text", "é\x00\u2028")
	f.Labels("labels", map[string]string{"": "", "é": "\n"})
	require.Empty(t, f.List())

	f.Name("name", "a/b")
	f.Text("text", "\xff"+strings.Repeat("x", 1000))
	f.Labels("labels", map[string]string{"\xff": "v"})
	f.Labels("labels", map[string]string{"k": strings.Repeat("x", 1000) + "\xff"})
	require.Len(t, f.List(), 4)
	for i, path := range []string{"name", "text", "labels", "labels"} {
		require.Equal(t, path, f.List()[i].Path)
		require.False(t, f.List()[i].TooLarge)
		require.Less(t, len(f.List()[i].Problem), 600)
	}
}

func TestLargerNamesTheLimit(t *testing.T) {
	require.Equal(t, Field{Path: "spec", Problem: "12 bytes, more than the limit of 10 (Limits.Spec)", TooLarge: true}, Larger("spec", 12, 10, "bytes", "Limits.Spec"))
}
