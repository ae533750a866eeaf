package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// hostile sets what must not reach the code that is tested and built.
func hostile(t *testing.T) {
	t.Setenv("GOWORK", filepath.Join(t.TempDir(), "go.work"))
	t.Setenv("GOFLAGS", "-mod=vendor -run=None -tags=hostile")
	t.Setenv("GO111MODULE", "off")
}

// caches keeps the caches of Go where they are when HOME changes. A new one would be filled with the standard library.
func caches(t *testing.T) {
	t.Helper()
	for _, name := range []string{"GOCACHE", "GOPATH"} {
		value, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		require.NoError(t, err)
		t.Setenv(name, strings.TrimSpace(string(value)))
	}
}
