package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

// interrupted is a build that was stopped while its tests ran.
type interrupted struct {
	blocking blocking
	registry string
	data     string
	first    result
}

// interrupt begins a build of app:v1, and stops it.
func interrupt(t *testing.T) interrupted {
	t.Helper()
	b := interrupted{blocking: newBlocking(t), registry: newRegistry(t), data: t.TempDir()}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan result, 1)
	go func() { ended <- start(ctx, b.args("v1")...) }()
	b.blocking.await(t)
	stop()
	b.first = <-ended
	require.Equal(t, exitFailed, b.first.code)
	return b
}

func (b interrupted) args(tag string, more ...string) []string {
	return append([]string{"-data", b.data, "-repo", b.blocking.repository, "-image", b.registry + "/app:" + tag}, more...)
}

// restart starts the program again, and lets the given number of test runs pass.
func (b interrupted) restart(t *testing.T, tests int, args ...string) result {
	t.Helper()
	ended := make(chan result, 1)
	go func() { ended <- start(t.Context(), args...) }()
	for range tests {
		require.NoError(t, b.blocking.await(t).Close())
	}
	return <-ended
}

// requirePushed checks which tags of the app are in the registry.
func (b interrupted) requirePushed(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, tag := range []string{"v1", "v2"} {
		ref, err := name.NewTag(b.registry + "/app:" + tag)
		require.NoError(t, err)
		if _, err := remote.Head(ref, remote.WithContext(t.Context())); err == nil {
			got = append(got, tag)
		}
	}
	require.Equal(t, want, got)
}

func TestResumeIsAskedForIfTheFlagsAreOthers(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	b := interrupt(t)
	found := "run " + b.first.run(t) + " of an earlier start, of "
	got := start(t.Context(), b.args("v2")...)
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.out, found)
	require.Contains(t, got.out, "is unfinished at step 2 (Run tests): it builds "+b.blocking.repository+" and pushes "+b.registry+"/app:v1")
	require.Contains(t, got.errors, "say -resume=yes to finish it first, or -resume=no to cancel it")
	b.requirePushed(t)

	same := b.restart(t, 1, b.args("v1")...)
	require.Equal(t, exitSucceeded, same.code, "%s%s", same.out, same.errors)
	require.Contains(t, same.out, found)
	require.Equal(t, b.first.run(t), same.run(t))
	b.requirePushed(t, "v1")
}

func TestResumeIsAskedForAnotherResourceAndOtherSteps(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	b := interrupt(t)
	folder := t.TempDir()
	resource, pipeline := filepath.Join(folder, "resource.json"), filepath.Join(folder, "pipeline.json")
	require.NoError(t, os.WriteFile(resource, []byte(strings.Replace(string(resourceDocument), "build-app-1", "another", 1)), 0o600))
	require.NoError(t, os.WriteFile(pipeline, []byte(strings.Replace(string(pipelineDocument), "Run tests", "Test", 1)), 0o600))
	for _, args := range [][]string{{"-resource", resource}, {"-pipeline", pipeline}} {
		got := start(t.Context(), b.args("v1", args...)...)
		require.Equal(t, exitUsage, got.code, "%s%s", got.out, got.errors)
		require.Contains(t, got.errors, "-resume=yes")
	}
	both := b.restart(t, 2, b.args("v2", "-resource", resource, "-resume", "yes")...)
	require.Equal(t, exitSucceeded, both.code, "%s%s", both.out, both.errors)
	b.requirePushed(t, "v1", "v2")
}

func TestResumeNoCancels(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	for _, test := range []struct{ name, tag string }{
		{name: "with other flags", tag: "v2"},
		{name: "with the same flags", tag: "v1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := interrupt(t)
			got := b.restart(t, 1, b.args(test.tag, "-resume", "no")...)
			require.Equal(t, exitSucceeded, got.code, "%s%s", got.out, got.errors)
			require.Contains(t, got.out, "run "+b.first.run(t)+" is canceled")
			require.NotEqual(t, b.first.run(t), got.run(t))
			require.Contains(t, got.out, "1 Clone git repository: running")
			b.requirePushed(t, test.tag)
		})
	}
}

func TestResumeIsAskedOnATerminal(t *testing.T) {
	t.Parallel()
	type answer struct {
		name, answer string
		tests        int
		pushed       []string
	}
	for _, test := range testenv.First(t, 1,
		answer{name: "yes", answer: "y\n", tests: 2, pushed: []string{"v1", "v2"}},
		answer{name: "no", answer: "n\n", tests: 1, pushed: []string{"v2"}},
		answer{name: "nothing", answer: "\n", tests: 1, pushed: []string{"v2"}},
	) {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := interrupt(t)
			a, err := parse(b.args("v2"), nil)
			require.NoError(t, err)
			a.in = strings.NewReader(test.answer)
			var out strings.Builder
			ended := make(chan error, 1)
			go func() { ended <- a.run(t.Context(), &out) }()
			for range test.tests {
				require.NoError(t, b.blocking.await(t).Close())
			}
			require.NoError(t, <-ended)
			require.Contains(t, out.String(), "Finish it first? Otherwise it is canceled. [y/N] ")
			b.requirePushed(t, test.pushed...)
		})
	}
}
