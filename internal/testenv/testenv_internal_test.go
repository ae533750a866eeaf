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
func (f *fake) Skip(...any)           { f.skipped = true }
func (f *fake) Fatalf(string, ...any) { f.failed = true }

func TestASkipIsCountedAndPrinted(t *testing.T) {
	t.Setenv(Strict, "")
	before := skipped
	defer func() { skipped = before }()
	skipped = map[string]int{}
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
