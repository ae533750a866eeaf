package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGitClonerFetchesOneCommit(t *testing.T) {
	t.Parallel()
	repository := newRepository(t, nil)
	first := gitIn(t, repository, "rev-parse", "HEAD")
	gitIn(t, repository, "tag", "v1")
	gitIn(t, repository, "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "--quiet", "--allow-empty", "-m", "Second")
	second := gitIn(t, repository, "rev-parse", "HEAD")

	for _, test := range []struct{ name, ref, want string }{
		{name: "the head by default", ref: "", want: second},
		{name: "a branch", ref: "main", want: second},
		{name: "a tag", ref: "v1", want: first},
		{name: "a commit", ref: first, want: first},
	} {
		t.Run(test.name, func(t *testing.T) {
			cloner := &gitCloner{work: workspace{root: t.TempDir()}}
			req, _ := newRequest("1")
			build := &DockerBuild{Spec: BuildSpec{Repository: repository, Ref: test.ref}}
			_, err := cloner.Clone(t.Context(), req, build)
			require.NoError(t, err)
			dir := filepath.Join(cloner.work.root, "run-1", "1")
			require.Equal(t, test.want, gitIn(t, dir, "rev-parse", "HEAD"))
			require.Equal(t, "1", gitIn(t, dir, "rev-list", "--count", "HEAD"), "the clone is shallow")
			require.FileExists(t, filepath.Join(dir, "main.go"))
		})
	}
}

func TestGitClonerReplacesWhatAnEarlierAttemptLeft(t *testing.T) {
	t.Parallel()
	cloner := &gitCloner{work: workspace{root: t.TempDir()}, sample: newRepository(t, nil)}
	run := filepath.Join(cloner.work.root, "run-1")
	for _, dir := range []string{"1", ".1~killed", ".2~other"} {
		require.NoError(t, os.MkdirAll(filepath.Join(run, dir), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(run, dir, "rubbish"), nil, 0o600))
	}
	req, _ := newRequest("1")
	_, err := cloner.Clone(t.Context(), req, &DockerBuild{Spec: BuildSpec{Repository: sampleRepository}})
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(run, "1", "rubbish"))
	require.FileExists(t, filepath.Join(run, "1", "main.go"))
	require.NoDirExists(t, filepath.Join(run, ".1~killed"))
	require.DirExists(t, filepath.Join(run, ".2~other"), "that is another step's")
}

func TestGitClonerLeavesNothingOfAFailure(t *testing.T) {
	t.Parallel()
	cloner := &gitCloner{work: workspace{root: t.TempDir()}}
	for _, test := range []struct {
		name  string
		build BuildSpec
	}{
		{name: "no repository there", build: BuildSpec{Repository: t.TempDir()}},
		{name: "no such ref", build: BuildSpec{Repository: newRepository(t, nil), Ref: "nowhere"}},
		{name: "an option for a repository", build: BuildSpec{Repository: "--upload-pack=touch x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			req, log := newRequest("1")
			_, err := cloner.Clone(t.Context(), req, &DockerBuild{Spec: test.build})
			require.ErrorContains(t, err, ": exit status 128:")
			require.Contains(t, log.String(), "fatal: ")
			left, err := os.ReadDir(filepath.Join(cloner.work.root, "run-1"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestGitClonerAnswersWithTheCauseOfTheEnd(t *testing.T) {
	t.Parallel()
	cloner := &gitCloner{work: workspace{root: t.TempDir()}, sample: newRepository(t, nil)}
	cause := errors.New("time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	req, _ := newRequest("1")
	_, err := cloner.Clone(ctx, req, &DockerBuild{Spec: BuildSpec{Repository: sampleRepository}})
	require.ErrorIs(t, err, cause)
}

func TestPublicURLHasNoCredentials(t *testing.T) {
	for _, test := range []struct{ name, repository, want string }{
		{name: "https with a token", repository: "https://user:token@example.com/app.git", want: "https://example.com/app.git"},
		{name: "ssh with a user", repository: "ssh://git@example.com/app.git", want: "ssh://example.com/app.git"},
		{name: "a path", repository: "/srv/app", want: ""},
		{name: "the sample", repository: sampleRepository, want: ""},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, publicURL(test.repository)) })
	}
}
