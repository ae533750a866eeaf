package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

// setHostileGit gives git settings of a user that would change a clone, make it fail, or leave a trace outside of it. It
// returns the path of the trace.
func setHostileGit(t *testing.T) (trace string) {
	t.Helper()
	if os.PathSeparator != '/' {
		testenv.Skip(t, "needs a shell for the hooks of git")
	}
	keepGoCaches(t)
	home := t.TempDir()
	trace = filepath.Join(home, "trace")
	hook := "#!/bin/sh\ntouch '" + trace + "'\nexit 1\n"
	for _, name := range []string{"post-checkout", "reference-transaction"} {
		require.NoError(t, writeFiles(filepath.Join(home, "hooks"), map[string]string{name: hook}))
		require.NoError(t, os.Chmod(filepath.Join(home, "hooks", name), 0o700))
	}
	require.NoError(t, writeFiles(home, map[string]string{
		".config/git/attributes": "* text eol=crlf\n",
		".config/git/ignore":     "*.go\n",
		".gitconfig": `[log]
	showSignature = true
[core]
	hooksPath = ` + filepath.Join(home, "hooks") + `
	autocrlf = true
[init]
	defaultObjectFormat = sha256
`,
	}))
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, ".gitconfig"))
	t.Setenv("GIT_DEFAULT_HASH", "sha256")
	// git sets these in the hook pre-receive, until the objects that it has received are accepted.
	t.Setenv("GIT_QUARANTINE_PATH", filepath.Join(home, "quarantine"))
	t.Setenv("GIT_OBJECT_DIRECTORY", filepath.Join(home, "quarantine"))
	return trace
}

// signed adds a commit with a signature that nobody can verify.
func signed(t *testing.T, repository string) (commit string) {
	t.Helper()
	object := gitIn(t, repository, "cat-file", "commit", "HEAD")
	head, message, found := strings.Cut(object, "\n\n")
	require.True(t, found)
	path := filepath.Join(t.TempDir(), "commit")
	text := head + "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ==\n -----END PGP SIGNATURE-----\n\n" + message + "\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	commit = gitIn(t, repository, "hash-object", "-t", "commit", "-w", path)
	gitIn(t, repository, "update-ref", "refs/heads/main", commit)
	return commit
}

func TestGitClonerKeepsTheSettingsOfTheUserOut(t *testing.T) {
	repository := newRepository(t, nil)
	head := signed(t, repository)
	trace := setHostileGit(t)
	cloner := &gitCloner{work: workspace{root: t.TempDir()}}
	req, log := newRequest("1")
	_, err := cloner.Clone(t.Context(), req, &DockerBuild{Spec: BuildSpec{Repository: repository}})
	require.NoError(t, err, "%s", log)
	require.NoFileExists(t, trace, "no hook has run")
	dir := filepath.Join(cloner.work.root, "run-1", "1")
	text, err := os.ReadFile(filepath.Join(dir, "main.go"))
	require.NoError(t, err)
	require.Equal(t, sampleFiles["main.go"], string(text))
	require.Contains(t, log.String(), "cloned")
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	require.Equal(t, head, gitIn(t, dir, "rev-parse", "HEAD"))
}

func TestFetchKeepsTheSettingsThatReachARepository(t *testing.T) {
	repository := newRepository(t, nil)
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "url."+repository+".insteadOf")
	t.Setenv("GIT_CONFIG_VALUE_0", "https://example.com/app")
	cloner := &gitCloner{work: workspace{root: t.TempDir()}}
	req, log := newRequest("1")
	_, err := cloner.Clone(t.Context(), req, &DockerBuild{Spec: BuildSpec{Repository: "https://example.com/app"}})
	require.NoError(t, err, "%s", log)
}

func TestPipelineBuildsARepositoryOfSHA256(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	repository := filepath.Join(t.TempDir(), "repository")
	require.NoError(t, writeFiles(repository, sampleFiles))
	gitIn(t, repository, "init", "--quiet", "--object-format=sha256", "--initial-branch=main")
	gitIn(t, repository, "add", "--all")
	gitIn(t, repository, "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "Greet")
	registry := newRegistry(t)
	for _, ref := range []string{"", "main", gitIn(t, repository, "rev-parse", "HEAD")} {
		cloner := &gitCloner{work: workspace{root: t.TempDir()}}
		req, log := newRequest("1")
		_, err := cloner.Clone(t.Context(), req, &DockerBuild{Spec: BuildSpec{Repository: repository, Ref: ref}})
		require.NoError(t, err, "%s", log)
	}
	got := start(t.Context(), "-data", t.TempDir(), "-repo", repository, "-image", registry+"/greet")
	require.Equal(t, exitSucceeded, got.code, "%s%s", got.out, got.errors)
	requireRuns(t, got.value(t, "image"))
}
