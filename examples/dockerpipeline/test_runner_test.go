package main

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"

	"github.com/conveyor-go/conveyor"
)

func newTestRunner(t *testing.T) *testRunner { return &testRunner{work: workspace{root: t.TempDir()}} }

func TestTestRunnerPassesOnEveryLine(t *testing.T) {
	setHostileEnv(t)
	got := runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"1": source{Dir: newRepository(t, nil), Sample: true}})
	require.NoError(t, got.err)
	require.Regexp(t, `^ok\s+example.com/greet\s`, got.log)
}

func TestTestRunnerTakesAFailingTestForFinal(t *testing.T) {
	t.Parallel()
	repository := newRepository(t, map[string]string{"main_test.go": failingTest})
	got := runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"1": source{Dir: repository, Sample: true}})
	require.ErrorContains(t, got.err, "go test: exit status 1:")
	require.Equal(t, 1, got.attempts)
	require.Contains(t, got.log, "main_test.go:7: the greeting is impolite")
	require.Regexp(t, `FAIL\s+example.com/greet`, got.log)
}

func TestTestRunnerWantsAModule(t *testing.T) {
	got := runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"1": source{Dir: t.TempDir()}})
	require.ErrorContains(t, got.err, "no go.mod")
	require.Equal(t, 1, got.attempts)
}

func TestTestRunnerWantsTheClone(t *testing.T) {
	got := runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"1": source{Dir: filepath.Join(t.TempDir(), "gone")}})
	require.ErrorContains(t, got.err, "the work of an earlier step is gone")
	require.Equal(t, 1, got.attempts)

	got = runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"clone": source{Dir: t.TempDir()}})
	require.ErrorContains(t, got.err, `output of step "1"`)
	require.Equal(t, 1, got.attempts)
}

func TestTestRunnerRetriesADownload(t *testing.T) {
	t.Setenv("GOPROXY", "http://"+unusedAddress(t))
	t.Setenv("GOMODCACHE", t.TempDir())
	repository := newRepository(t, map[string]string{
		"go.mod": "module example.com/greet\n\ngo 1.21\n\nrequire example.com/absent v1.0.0\n",
		"go.sum": "example.com/absent v1.0.0 h1:AAAA\n",
	})
	got := runStep(t, newTestRunner(t), "2", BuildSpec{}, outputs{"1": source{Dir: repository}})
	require.ErrorContains(t, got.err, "go mod: exit status 1:")
	require.Equal(t, stepAttempts, got.attempts)
}

func TestTestRunnerKillsAllItStarted(t *testing.T) {
	if runtime.GOOS == "windows" {
		testenv.Skip(t, "needs process groups")
	}
	blocking := newBlocking(t)
	req, _ := newRequest("2")
	golang := command{dir: blocking.repository, env: goEnv(true), log: req.Log}

	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- runTests(ctx, golang) }()
	test := blocking.await(t)
	cancel(conveyor.ErrShutdown)
	require.ErrorIs(t, <-ended, conveyor.ErrShutdown)
	_, err := test.Read(make([]byte, 1))
	require.Error(t, err, "the program that go test started is dead, and its connection closed")
}
