package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/conveyor-go/conveyor"
)

// testRunner runs the tests of the clone.
type testRunner struct{ work workspace }

// Reconcile runs "go test ./..." and logs what it prints. Its error has the lines of the tests that failed. A failing test is a
// permanent error: a pipeline should not repeat a test until it passes.
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
	report := newTestReport(func(line string) { golang.log.Info(line) })
	events := &lineWriter{line: report.add}
	err := golang.exec(ctx, events, "go", "test", "-json", "./...")
	events.flush()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%w:%s", err, report.reason())
	}
	return permanentExit(err)
}
