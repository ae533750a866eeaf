package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor"
)

// A command is a program that a step runs in a folder.
type command struct {
	dir string
	env []string // is added to the environment of this process; of two equal names the later counts
	log *slog.Logger
}

// killWait is how long exec waits, after it has ended a group of processes, for processes that still hold the output open. It
// is less than the five seconds that a driver has after the end of its context.
const killWait = 2 * time.Second

// run runs a program and logs each line that the program writes. When ctx ends, run kills the program and all processes
// that the program started, and returns the cause.
func (c command) run(ctx context.Context, name string, args ...string) error {
	return c.exec(ctx, nil, name, args...)
}

// output runs a program, returns its standard output without the white space around it, and logs the lines of its
// standard error.
func (c command) output(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	err := c.exec(ctx, &out, name, args...)
	return strings.TrimSpace(out.String()), err
}

// exec runs a program, and logs the lines that it writes to its standard error, and to its standard output if stdout is nil.
// Its error has the lines that it has logged, or an excerpt of them.
func (c command) exec(ctx context.Context, stdout io.Writer, name string, args ...string) error {
	lines := &lineWriter{line: func(text string) { c.log.Info(text) }}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.dir
	cmd.Env = append(withoutRepository(cmd.Environ()), c.env...)
	cmd.Stdout, cmd.Stderr = lines, lines
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.WaitDelay = killWait
	err := runGroup(cmd)
	lines.flush()
	switch {
	case err == nil:
		return nil // a finished program is a success, even if ctx has ended since
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case lines.kept.empty():
		return fmt.Errorf("%s %s: %w", name, args[0], err)
	default:
		return fmt.Errorf("%s %s: %w:%s", name, args[0], err, lines.kept.String())
	}
}

// runGroup runs a program, and returns when the program and all processes that it has started have ended.
func runGroup(cmd *exec.Cmd) error {
	g, err := newGroup(cmd)
	if err != nil {
		return err
	}
	defer g.end()
	err = cmd.Start()
	if groupErr := g.started(cmd); err == nil {
		err = groupErr
	}
	if err != nil && cmd.Process != nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// permanentExit makes an error permanent if the program exited with an error or was not found. The error of a program
// that was killed, for example for lack of memory, is not permanent.
func permanentExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && !exit.Exited() {
		return err
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) || errors.Is(err, exec.ErrNotFound) {
		return conveyor.Permanent(err)
	}
	return err
}
