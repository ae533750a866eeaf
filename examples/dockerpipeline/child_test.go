package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
)

// A child process is this test binary, run as the program. These variables of its environment control it.
const (
	childLedger = "DOCKERPIPELINE_LEDGER" // the file to which the child adds an entry when a driver begins and when it ends
	childMain   = "DOCKERPIPELINE_MAIN"   // makes the child run the main function of the program, without a ledger
	childBlock  = "DOCKERPIPELINE_BLOCK"  // "begin 3" makes the child block forever when step 3 begins
	blockedLine = "blocked"               // the line that the child prints when it blocks
)

// entry is a line of the ledger. It says that a driver is about to begin its work, or that it has done its work and is
// about to return.
type entry struct {
	What    string `json:"what"`
	Run     string `json:"run"`
	Step    string `json:"step"`
	Key     string `json:"key"`
	Attempt int    `json:"attempt"`
	Resumed bool   `json:"resumed"`
}

// child is the main function of a child process.
func child(ctx context.Context) int {
	a, err := parse(os.Args[1:], os.Stdout)
	if err == nil {
		a.wrap = recordCalls
		err = a.run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	return exitSucceeded
}

// recordCalls wraps a driver so that its calls are recorded in the ledger.
func recordCalls(d conveyor.Driver) conveyor.Driver {
	return conveyor.DriverFunc(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		appendEntry(req, "begin")
		result, err := d.Reconcile(ctx, req)
		appendEntry(req, "end")
		return result, err
	})
}

func appendEntry(req *conveyor.Request, what string) {
	line, err := json.Marshal(entry{
		What: what, Run: req.Run, Step: req.Step.ID, Key: req.IdempotencyKey(), Attempt: req.Attempt, Resumed: req.Resumed,
	})
	if err != nil {
		panic(err)
	}
	ledger, err := os.OpenFile(os.Getenv(childLedger), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	if _, err := ledger.Write(append(line, '\n')); err != nil {
		panic(err)
	}
	if err := ledger.Close(); err != nil {
		panic(err)
	}
	if os.Getenv(childBlock) == what+" "+req.Step.ID {
		fmt.Println(blockedLine)
		select {} // until killed
	}
}

// runChild starts the program as a child process, and returns what the process printed. If block is set, runChild waits
// until the process blocks there, and kills the process. Otherwise it waits for the end of the process.
func runChild(t *testing.T, ledger, block string, args ...string) string {
	t.Helper()
	cmd := newChild(t, ledger, block, args...)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var out strings.Builder
	blocked := false
	for lines := bufio.NewScanner(io.TeeReader(pipe, &out)); lines.Scan(); {
		if lines.Text() == blockedLine {
			blocked = true
			require.NoError(t, cmd.Process.Kill())
		}
	}
	err = cmd.Wait()
	require.Equal(t, block != "", blocked, "%s%s", out.String(), errors.String())
	if block == "" {
		require.NoError(t, err, "%s%s", out.String(), errors.String())
	}
	return out.String()
}

func newChild(t *testing.T, ledger, block string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), childLedger+"="+ledger, childBlock+"="+block)
	return cmd
}

func readLedger(t *testing.T, path string) (entries []entry) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var e entry
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		entries = append(entries, e)
	}
	return entries
}
