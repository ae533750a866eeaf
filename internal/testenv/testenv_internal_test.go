package testenv

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// fake is a test that takes note of how it ended.
type fake struct {
	testing.TB
	skipped, failed bool
}

func (f *fake) Helper()               {}
func (f *fake) Logf(string, ...any)   {}
func (f *fake) Skip(...any)           { f.skipped = true }
func (f *fake) Fatalf(string, ...any) { f.failed = true }

func TestASkipIsCountedAndPrinted(t *testing.T) {
	t.Setenv(Strict, "")
	before, had, were := skipped, lowered, left
	defer func() { skipped, lowered, left = before, had, were }()
	skipped, lowered, left = map[string]int{}, false, 0
	for _, reason := range []string{"no moon", "no sun", "no moon"} {
		f := &fake{TB: t}
		Skip(f, reason)
		require.True(t, f.skipped)
	}
	var out bytes.Buffer
	report(&out)
	require.Equal(t, "tests skipped: 2: no moon\ntests skipped: 1: no sun\n", out.String())
}

func TestASkipFailsWhereAllMustRun(t *testing.T) {
	t.Setenv(Strict, "1")
	f := &fake{TB: t}
	Skip(f, "no moon")
	require.True(t, f.failed)
}

func TestABoundIsSetFromOutside(t *testing.T) {
	const variable = "CONVEYOR_TEST_OF_BOUND"
	t.Setenv(variable, "")
	want := 500
	if Race {
		want = 50
	}
	require.Equal(t, want, Bound(t, variable, 500, 50))
	require.NoError(t, os.Setenv(variable, "12"))
	require.Equal(t, 12, Bound(t, variable, 500, 50))
	for _, bad := range []string{"0", "-1", "many"} {
		require.NoError(t, os.Setenv(variable, bad))
		f := &fake{TB: t}
		Bound(f, variable, 500, 50)
		require.True(t, f.failed, bad)
	}
}

func TestALoweredBoundIsPrinted(t *testing.T) {
	before, had := skipped, lowered
	defer func() { skipped, lowered = before, had }()
	skipped, lowered = map[string]int{}, false
	printed := func() string {
		var out bytes.Buffer
		report(&out)
		return out.String()
	}
	f := &fake{TB: t}
	t.Setenv(Everything, "1")
	require.Equal(t, 500, Some(f, 50, 500))
	require.Empty(t, printed())
	t.Setenv(Everything, "")
	require.Equal(t, 5, Some(f, 5, 5))
	require.Empty(t, printed())
	require.Equal(t, 50, Some(f, 50, 500))
	require.Equal(t, "bounds: default; CONVEYOR_FULL=1 for all\n", printed())

	require.Equal(t, []int{1}, First(f, 1, 1, 2))
	t.Run("rare", func(t *testing.T) { Rare(t); t.Error("a rare test is not left out") })
	require.Equal(t, "tests left to CONVEYOR_FULL=1: 1\nbounds: default; CONVEYOR_FULL=1 for all\n", printed())
	t.Setenv(Everything, "1")
	require.Equal(t, []int{1, 2}, First(f, 1, 1, 2))
	t.Run("not rare", func(t *testing.T) { Rare(t); require.Equal(t, 1, left) })
}
