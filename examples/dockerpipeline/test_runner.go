package main

import (
	"context"
	"fmt"
	"os"

	"github.com/conveyor-go/conveyor"
)

// testRunner runs the tests of the clone.
type testRunner struct{ work workspace }

// Reconcile runs "go test ./..." and logs each line of its output. A failing test is a permanent error: a pipeline should
// not repeat a test until it passes.
//
// The tests run in a copy of the clone, so that the later steps build what was committed, whatever a test writes. The copy
// is removed when the tests have ended.
func (r *testRunner) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	src, err := sourceOf(req)
	if err != nil {
		return conveyor.Result{}, err
	}
	return conveyor.Done(), r.work.lend(req, func(dir string) error {
		if err := os.CopyFS(dir, os.DirFS(src.Dir)); err != nil {
			return fmt.Errorf("copy the clone: %w", err)
		}
		return runTests(ctx, command{dir: dir, env: goEnv(src.Sample), log: req.Log})
	})
}

func runTests(ctx context.Context, golang command) error {
	if err := download(ctx, golang); err != nil {
		return err
	}
	return permanentExit(golang.run(ctx, "go", "test", "./..."))
}
