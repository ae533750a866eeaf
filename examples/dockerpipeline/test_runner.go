package main

import (
	"context"

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
