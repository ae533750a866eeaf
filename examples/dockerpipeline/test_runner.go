package main

import (
	"context"

	"github.com/conveyor-go/conveyor"
)

// testRunner runs the tests of the clone.
type testRunner struct{}

// Reconcile runs "go test ./..." and logs each line of its output. A failing test is a permanent error: a pipeline should
// not repeat a test until it passes.
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
