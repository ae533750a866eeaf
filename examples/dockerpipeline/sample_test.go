package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSampleIsTheSameEachTime(t *testing.T) {
	t.Setenv("HOME", t.TempDir()) // no user configuration
	t.Setenv("GIT_DIR", "/nowhere")
	t.Setenv("GIT_AUTHOR_NAME", "Somebody Else")
	dir := filepath.Join(t.TempDir(), "sample")
	require.NoError(t, makeSample(t.Context(), dir, sampleFiles))
	first := gitIn(t, dir, "rev-parse", "HEAD")
	require.NoError(t, makeSample(t.Context(), dir, sampleFiles))
	require.Equal(t, first, gitIn(t, dir, "rev-parse", "HEAD"))
	left, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Len(t, left, 1)
}
