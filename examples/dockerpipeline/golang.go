package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/conveyor-go/conveyor"
)

// goEnv returns an environment in which the workspace and the flags of the user of this program do not affect the code
// that is built. GOFLAGS has the default value, because an empty GOFLAGS means the value that "go env -w" wrote. The
// sample needs nothing from the network, so goEnv turns the network off for it.
func goEnv(sample bool) []string {
	env := []string{"GOWORK=off", "GOFLAGS=-buildvcs=auto", "GO111MODULE=on"}
	if sample {
		env = append(env, "GOPROXY=off", "GOTOOLCHAIN=local")
	}
	return env
}

// download fetches the modules that the clone depends on. It is a separate command, so that a failure of the network can
// be told from a failure of the code. A retry can help against a failure of the network only.
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
