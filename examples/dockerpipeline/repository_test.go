package main

import (
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newRepository makes a git repository with the files of the sample and with files. Of two equal names, files counts.
func newRepository(t *testing.T, files map[string]string) string {
	t.Helper()
	all := maps.Clone(sampleFiles)
	maps.Copy(all, files)
	dir := filepath.Join(t.TempDir(), "repository")
	require.NoError(t, makeSample(t.Context(), dir, all))
	return dir
}

const failingTest = `package main

import "testing"

func TestGreeting(t *testing.T) {
	t.Log("this line is the one before the last words")
	t.Error("the greeting is impolite")
}
`

// blocking is a repository with a test that blocks until its connection is closed.
type blocking struct {
	repository string
	listener   *net.TCPListener
}

func newBlocking(t *testing.T) blocking {
	t.Helper()
	return newBlockingOn(t, blockingTest)
}

// newBlockingOn makes a repository whose test is a text. The test connects to ADDRESS, which stands for a listener.
func newBlockingOn(t *testing.T, test string) blocking {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	test = strings.ReplaceAll(test, "ADDRESS", listener.Addr().String())
	return blocking{repository: newRepository(t, map[string]string{"main_test.go": test}), listener: listener.(*net.TCPListener)}
}

// await waits until the test is running, and returns the connection of the test. Closing the connection ends the test.
func (b blocking) await(t *testing.T) net.Conn {
	t.Helper()
	require.NoError(t, b.listener.SetDeadline(time.Now().Add(5*time.Minute))) // a guard against a test that never runs
	conn, err := b.listener.Accept()
	require.NoError(t, err, "the test in the repository did not run")
	t.Cleanup(func() { conn.Close() })
	return conn
}

// blockingTest connects to the listener, and blocks until the connection is closed.
const blockingTest = `package main

import (
	"io"
	"net"
	"testing"
)

func TestGreeting(t *testing.T) {
	conn, err := net.Dial("tcp", "ADDRESS")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn)
}
`

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = withoutRepository(cmd.Environ())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}
