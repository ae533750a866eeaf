package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/conveyor-go/conveyor"
)

// goEnv keeps the workspace and the flags of this program's user out of the code that is built. GOFLAGS is set to
// what is the default anyway, because an empty one means what "go env -w" wrote. The sample needs nothing from the
// network, and is not given it.
func goEnv(sample bool) []string {
	env := []string{"GOWORK=off", "GOFLAGS=-buildvcs=auto", "GO111MODULE=on"}
	if sample {
		env = append(env, "GOPROXY=off", "GOTOOLCHAIN=local")
	}
	return env
}

// download fetches the modules that the clone depends on. It is a command of its own so that a failure of the
// network, which a retry may mend, is told from a failure of the code, which it cannot.
func download(ctx context.Context, golang command) error {
	if _, err := os.Stat(filepath.Join(golang.dir, "go.mod")); err != nil {
		return conveyor.Permanent(errors.New("the repository has no go.mod at its root"))
	}
	_, unvendored := os.Stat(filepath.Join(golang.dir, "vendor", "modules.txt"))
	_, alone := os.Stat(filepath.Join(golang.dir, "go.sum"))
	if unvendored == nil || alone != nil {
		return nil
	}
	return golang.run(ctx, "go", "mod", "download")
}
