package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// setHostileEnv sets variables that must not affect the code that is tested and built.
func setHostileEnv(t *testing.T) {
	t.Setenv("GOWORK", filepath.Join(t.TempDir(), "go.work"))
	t.Setenv("GOFLAGS", "-mod=vendor -run=None -tags=hostile")
	t.Setenv("GO111MODULE", "off")
}

// keepGoCaches keeps the caches of Go where they are when HOME changes. A new cache would have to compile the standard
// library.
func keepGoCaches(t *testing.T) {
	t.Helper()
	for _, name := range []string{"GOCACHE", "GOPATH"} {
		value, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		require.NoError(t, err)
		t.Setenv(name, strings.TrimSpace(string(value)))
	}
}
