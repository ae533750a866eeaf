package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/conveyor-go/conveyor"
)

// testRunner runs the tests of the clone.
type testRunner struct{}

// Reconcile logs each line of "go test ./...". A test that fails ends the run: running it again until it passes is
// not what a pipeline is for.
func (testRunner) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	src, err := sourceOf(req)
	if err != nil {
		return conveyor.Result{}, err
	}
	return conveyor.Done(), runTests(ctx, command{dir: src.Dir, env: goEnv(src.Sample), log: req.Log})
}

func runTests(ctx context.Context, golang command) error {
	if err := download(ctx, golang); err != nil {
		return err
	}
	return permanentExit(golang.run(ctx, "go", "test", "./..."))
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
