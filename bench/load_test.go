package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoadBeginsAtLeastOneRunForEachCaller(t *testing.T) {
	f := &fake{}
	out, err := (&loadGenerator{session: f}).run(t.Context(), 7, 0)
	require.NoError(t, err)
	require.Equal(t, 7, out.runs)
	require.Len(t, out.latencies, 7)
}
