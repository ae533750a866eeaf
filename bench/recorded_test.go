package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecordedRunHasACommitMoreThanSteps(t *testing.T) {
	commits, err := recordCommits(t.Context())
	require.NoError(t, err)
	require.Len(t, commits, steps+1)
	for _, ops := range commits {
		require.NotEmpty(t, ops)
		for _, op := range ops {
			require.Greater(t, len(op.key), 1, "the key %q has no name of the run or its resource in it", op.key)
		}
	}
}
