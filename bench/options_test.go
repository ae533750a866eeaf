package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOptionsChooseParts(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-only", "speed,budgets"})
	require.NoError(t, err)
	require.True(t, o.has(partSpeed))
	require.False(t, o.has(partGrowth))
	require.Empty(t, o.out, "a part is not the result of all")

	_, err = parseOptions([]string{"-only", "speed,sped"})
	require.ErrorContains(t, err, `"sped"`)

	o, err = parseOptions(nil)
	require.NoError(t, err)
	require.Equal(t, "RESULTS.md", o.out)
}
