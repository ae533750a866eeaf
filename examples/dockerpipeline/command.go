package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor"
)

// A command is a program that a step runs in a folder.
type command struct {
	dir string
	env []string // on top of the environment of this process; the later of two equal names counts
	log *slog.Logger
}

// killWait is the time between the kill of a process group and giving up on whoever still holds its output. It is
// less than the five seconds that a driver has after the end of its context.
const killWait = 2 * time.Second

// run logs every line that the program writes. When ctx ends, the program and all it started are killed, and the
// error is the cause.
func (c command) run(ctx context.Context, name string, args ...string) error {
	return c.exec(ctx, nil, name, args...)
}

// output returns what the program writes to its standard output, trimmed, and logs the lines of its standard error.
func (c command) output(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	err := c.exec(ctx, &out, name, args...)
	return strings.TrimSpace(out.String()), err
}

func (c command) exec(ctx context.Context, stdout *bytes.Buffer, name string, args ...string) error {
	lines := &lineWriter{line: func(text string) { c.log.Info(text) }}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.dir
	cmd.Env = append(withoutRepository(cmd.Environ()), c.env...)
	cmd.Stdout, cmd.Stderr = lines, lines
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.WaitDelay = killWait
	newProcessGroup(cmd)
	err := cmd.Run()
	lines.flush()
	switch {
	case err == nil:
		return nil // finished is finished, even if ctx ended a moment ago
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case lines.last == "":
		return fmt.Errorf("%s %s: %w", name, args[0], err)
	default:
		return fmt.Errorf("%s %s: %w: %s", name, args[0], err, lines.last)
	}
}

// withoutRepository drops what would point git to another repository than the one in its folder, as happens to a
// program that was started by a git hook.
func withoutRepository(env []string) []string {
	redirects := []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
		"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_DEFAULT_HASH"}
	return slices.DeleteFunc(env, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(redirects, name)
	})
}

// gitEnv keeps git from asking questions: there is nobody to answer them.
func gitEnv() []string { return []string{"GIT_TERMINAL_PROMPT=0", "LC_ALL=C"} }

// permanentExit makes an error permanent if the program ran and said no. One that was killed, for lack of memory
// say, may be run again.
func permanentExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && !exit.Exited() {
		return err
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) || errors.Is(err, exec.ErrNotFound) {
		return conveyor.Permanent(err)
	}
	return err
}
