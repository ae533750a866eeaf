package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// sampleFiles is a small program with a test and without dependencies.
var sampleFiles = map[string]string{
	"go.mod": "module example.com/greet\n\ngo 1.21\n",
	"main.go": `package main

import (
	"fmt"
	"os"
)

func main() {
	name := "world"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	fmt.Println(greeting(name))
}

func greeting(name string) string { return "Hello, " + name + "!" }
`,
	"main_test.go": `package main

import "testing"

func TestGreeting(t *testing.T) {
	if got, want := greeting("Conveyor"), "Hello, Conveyor!"; got != want {
		t.Errorf("greeting = %q, want %q", got, want)
	}
}
`,
}

// makeSample makes a git repository of files in dir. It replaces what is in dir.
func makeSample(ctx context.Context, dir string, files map[string]string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), ".sample~")
	if err != nil {
		return err
	}
	defer removeAll(fresh)
	if err := writeFiles(fresh, files); err != nil {
		return err
	}
	if err := commitAll(ctx, fresh); err != nil {
		return fmt.Errorf("make the sample repository: %w", err)
	}
	if err := removeAll(dir); err != nil {
		return err
	}
	return os.Rename(fresh, dir)
}

func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// commitAll makes dir a git repository with one commit of all its files. The commit is the same each time and on each
// machine, because the author and the time are given and git has no settings.
func commitAll(ctx context.Context, dir string) error {
	const who, mail, when = "Conveyor", "conveyor@example.com", "2026-01-01T00:00:00Z"
	git := command{dir: dir, log: slog.New(slog.DiscardHandler), env: append(gitEnv(),
		"GIT_AUTHOR_NAME="+who, "GIT_AUTHOR_EMAIL="+mail, "GIT_AUTHOR_DATE="+when,
		"GIT_COMMITTER_NAME="+who, "GIT_COMMITTER_EMAIL="+mail, "GIT_COMMITTER_DATE="+when,
	)}
	for _, args := range [][]string{
		{"init", "--quiet", "--template=", "--object-format=sha1"},
		{"symbolic-ref", "HEAD", "refs/heads/main"},
		{"add", "--all"},
		{"commit", "--quiet", "--message=Greet"},
	} {
		if err := git.run(ctx, "git", args...); err != nil {
			return err
		}
	}
	return nil
}
