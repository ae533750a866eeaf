package text

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNearestFindsWhatAMisspeltNameStandsFor(t *testing.T) {
	known := []string{"builder", "tester", "image-pusher", "a"}
	for _, c := range []struct{ name, of, want string }{
		{"a letter is missing", "buildr", "builder"},
		{"a letter is too much", "buildder", "builder"},
		{"a letter is another", "bvilder", "builder"},
		{"two letters are swapped", "biulder", "builder"},
		{"three changes in a long name", "imag-pshr", "image-pusher"},
		{"upper case", "Tester", "tester"},
		{"nothing is near", "deployer", ""},
		{"another short name", "b", "a"},
		{"a short name with two changes", "bc", ""},
		{"the name itself", "tester", ""},
		{"no name", "", "a"},
		{"a name that is too long", strings.Repeat("x", 300), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, Nearest(c.of, known))
		})
	}
	require.Equal(t, `; did you mean "builder"?`, DidYouMean("buildr", known))
	require.Empty(t, DidYouMean("deployer", known))
	require.Empty(t, Nearest("x", nil))
}
