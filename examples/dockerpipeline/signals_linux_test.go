package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
)

// leavingTest starts a process of a session of its own, which connects to the listener and blocks. Then the test
// does the same if the greeting is to block, and passes otherwise.
const leavingTest = `package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestServer(t *testing.T) {
	if os.Getenv("SERVER") == "" {
		return
	}
	conn, err := net.Dial("tcp", "ADDRESS")
	if err != nil {
		t.Fatal(err)
	}
	println("connected")
	io.Copy(io.Discard, conn)
	select {}
}

func TestGreeting(t *testing.T) {
	if os.Getenv("SERVER") != "" {
		return
	}
	server := exec.Command(os.Args[0], "-test.run=TestServer")
	server.Env = append(os.Environ(), "SERVER=1")
	server.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ready, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("PASS") != "" {
		return
	}
	conn, err := net.Dial("tcp", "ADDRESS")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn)
}
`

// requireDead waits until the process at the other end of a connection is dead. The processes of these tests never close
// their connections.
func requireDead(t *testing.T, conns ...net.Conn) {
	t.Helper()
	for _, conn := range conns {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute))) // a guard against a process that stays
		_, err := conn.Read(make([]byte, 1))
		require.Error(t, err)
		require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "a process of the step is still there")
	}
}

func TestCommandLeavesNothingOfAPassingTest(t *testing.T) {
	t.Setenv("PASS", "1")
	blocking := newBlockingOn(t, leavingTest)
	req, log := newRequest("2")
	golang := command{dir: blocking.repository, env: goEnv(true), log: req.Log}
	require.NoError(t, runTests(t.Context(), golang), "%s", log)
	requireDead(t, blocking.await(t))
}

// newMain returns the program as a process of its own, which builds the repository.
func newMain(t *testing.T, repository string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-data", t.TempDir(), "-repo", repository)
	cmd.Env = append(os.Environ(), childMain+"=1")
	return cmd
}

// shellCode returns the exit code that a shell shows for a process that has ended.
func shellCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

func TestStoppedInAnyWayItLeavesNoProcess(t *testing.T) {
	t.Parallel()
	send := func(sig syscall.Signal) func(*testing.T, *exec.Cmd, *bufio.Reader) {
		return func(t *testing.T, cmd *exec.Cmd, _ *bufio.Reader) { require.NoError(t, cmd.Process.Signal(sig)) }
	}
	type way struct {
		name string
		stop func(t *testing.T, cmd *exec.Cmd, out *bufio.Reader)
		code int
	}
	for _, test := range testenv.First(t, 3,
		way{name: "by Ctrl-C", stop: send(syscall.SIGINT), code: 130},
		way{name: "by SIGKILL", stop: send(syscall.SIGKILL), code: 137},
		way{name: "by a second Ctrl-C", code: 130, stop: func(t *testing.T, cmd *exec.Cmd, out *bufio.Reader) {
			require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
			awaitLine(t, out, "stopping")
			require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
		}},
		way{name: "by SIGTERM", stop: send(syscall.SIGTERM), code: 143},
		way{name: "by SIGHUP", stop: send(syscall.SIGHUP), code: 129},
		way{name: "by SIGQUIT", stop: send(syscall.SIGQUIT), code: 131},
		way{name: "by another second signal", code: 143, stop: func(t *testing.T, cmd *exec.Cmd, out *bufio.Reader) {
			require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
			awaitLine(t, out, "stopping")
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		}},
	) {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			blocking := newBlockingOn(t, leavingTest)
			cmd := newMain(t, blocking.repository)
			pipe, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			server, greeting := blocking.await(t), blocking.await(t)
			out := bufio.NewReader(pipe)
			test.stop(t, cmd, out)
			_, err = io.Copy(io.Discard, out)
			require.NoError(t, err)
			require.Equal(t, test.code, shellCode(t, cmd.Wait()))
			requireDead(t, server, greeting)
		})
	}
}

func awaitLine(t *testing.T, out *bufio.Reader, word string) {
	t.Helper()
	for {
		line, err := out.ReadString('\n')
		require.NoError(t, err, "no line contains %q", word)
		if strings.Contains(line, word) {
			return
		}
	}
}

func TestWithoutAReaderItLeavesNoProcess(t *testing.T) {
	t.Parallel()
	blocking := newBlockingOn(t, leavingTest)
	cmd := newMain(t, blocking.repository)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout = write
	require.NoError(t, cmd.Start())
	server, greeting := blocking.await(t), blocking.await(t)
	require.NoError(t, errors.Join(read.Close(), write.Close()))
	// The program writes when it is told to stop.
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 128+int(syscall.SIGPIPE), shellCode(t, cmd.Wait()))
	requireDead(t, server, greeting)
}

func TestWithItsTerminalClosedItLeavesNoProcess(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	blocking := newBlockingOn(t, leavingTest)
	window, programs := openTerminal(t)
	cmd := newMain(t, blocking.repository)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = programs, programs, programs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	require.NoError(t, programs.Close())
	server, greeting := blocking.await(t), blocking.await(t)
	require.NoError(t, window.Close())
	require.Equal(t, 129, shellCode(t, cmd.Wait()))
	requireDead(t, server, greeting)
}

func TestIgnoredSignalStaysIgnored(t *testing.T) {
	testenv.Rare(t)
	t.Parallel()
	blocking := newBlockingOn(t, leavingTest)
	program := newMain(t, blocking.repository)
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `trap "" HUP; exec "$@"`, "sh", program.Path}, program.Args[1:]...)...)
	cmd.Env = program.Env
	require.NoError(t, cmd.Start())
	server, greeting := blocking.await(t), blocking.await(t)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP)) // as nohup has it
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 143, shellCode(t, cmd.Wait()))
	requireDead(t, server, greeting)
}

func TestGroupEndsAsItsProgram(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{name: "with an exit code", script: "exit 7", want: "exit status 7"},
		{name: "by SIGKILL", script: "kill -KILL $$", want: "signal: killed"},
		{name: "by another signal", script: "kill -SEGV $$", want: "sh: segmentation fault"},
	} {
		t.Run(test.name, func(t *testing.T) {
			req, _ := newRequest("2")
			err := command{dir: t.TempDir(), log: req.Log}.run(t.Context(), "sh", "-c", test.script)
			require.ErrorContains(t, err, test.want)
		})
	}
	req, _ := newRequest("2")
	err := command{dir: t.TempDir(), log: req.Log}.run(t.Context(), "no-such-program", "-c")
	require.ErrorIs(t, err, exec.ErrNotFound)
}
