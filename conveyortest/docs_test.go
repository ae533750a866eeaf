package conveyortest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestATestOfFiveStepsWithARetryFitsIn25Lines holds the README to a test that is run, and that test to its length.
func TestATestOfFiveStepsWithARetryFitsIn25Lines(t *testing.T) {
	source, err := os.ReadFile("pipeline_test.go")
	require.NoError(t, err)
	_, function, found := strings.Cut(string(source), "\n)\n\n")
	require.True(t, found)
	require.True(t, strings.HasPrefix(function, "func TestFlakyTestsAreRepeated("))
	require.LessOrEqual(t, strings.Count(function, "\n"), 25)
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```go\n"+function+"```\n")
}
