package file_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// childVariable is the environment variable that names what a child process does instead of running tests.
const childVariable = "CONVEYOR_FILE_TEST_CHILD"

// children are the functions that a child process can run, by name. Each gets the path of a store.
var children = map[string]func(t *childTest, path string){
	"hold":  hold,
	"write": write,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		children[name](new(childTest), os.Args[1])
		os.Exit(0)
	}
	testenv.Main(m)
}

// childTest lets a child process use require. A failure ends the process.
type childTest struct{}

func (*childTest) Context() context.Context { return context.Background() }

func (*childTest) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }

func (*childTest) FailNow() { os.Exit(1) }

func childCommand(t *testing.T, name, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, path)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// hold opens the store, prints a line, and closes the store when its input ends.
func hold(t *childTest, path string) {
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	require.NoError(t, s.Close())
}

func TestAnotherProcessIsLockedOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	holder := childCommand(t, "hold", path)
	in, err := holder.StdinPipe()
	require.NoError(t, err)
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)

	_, err = file.Open(t.Context(), path, file.Options{})
	require.ErrorIs(t, err, store.ErrLocked)
	if runtime.GOOS == "linux" { // the only system that says who has a lock
		require.ErrorContains(t, err, fmt.Sprintf("process %d (", holder.Process.Pid))
	}

	opened := make(chan error)
	go func() {
		s, err := file.Open(t.Context(), path, file.Options{Wait: true})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	require.NoError(t, in.Close())
	require.NoError(t, <-opened)
	require.NoError(t, holder.Wait())
}

// writers is the number of concurrent callers of a writing child. There are several, so that the child is killed within
// groups of commits too.
const writers = 4

// write makes commits of two records for ever. It prints the number and the revision of each commit once the commit is
// acknowledged. The numbers continue those in the store.
func write(t *childTest, path string) {
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := next(t, s, w); ; n++ {
				key := fmt.Sprintf("%d/%08d", w, n)
				value := []byte(strings.Repeat(key, n%40))
				rev, err := s.Commit(t.Context(), store.Put("a/"+key, value).IfAbsent(), store.Put("b/"+key, value))
				require.NoError(t, err)
				fmt.Printf("%s %d\n", key, rev)
			}
		})
	}
	group.Wait()
}

func next(t *childTest, s store.Store, w int) (n int) {
	for rec, err := range s.List(t.Context(), store.Query{Prefix: fmt.Sprintf("a/%d/", w), Reverse: true, Limit: 1}) {
		require.NoError(t, err)
		_, err = fmt.Sscanf(rec.Key[len("a/0/"):], "%d", &n)
		require.NoError(t, err)
		n++
	}
	return n
}

func TestWhatAKilledProcessHasAcknowledgedIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	acknowledged := map[string]store.Revision{}
	for _, lines := range []int{1, 30, 200, 77} {
		writer := childCommand(t, "write", path)
		out, err := writer.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, writer.Start())
		scanner := bufio.NewScanner(out)
		for n := 0; scanner.Scan(); n++ {
			var key string
			var rev store.Revision
			if n == lines {
				require.NoError(t, writer.Process.Kill())
			}
			// A line is one write to the pipe, so a killed process has written either the whole line or nothing of it.
			_, err := fmt.Sscanf(scanner.Text(), "%s %d", &key, &rev)
			require.NoError(t, err)
			acknowledged[key] = rev
		}
		require.Error(t, writer.Wait())
		require.NoError(t, file.Check(t.Context(), path, file.Options{}))
		requireLedger(t, path, acknowledged)
	}
	require.Greater(t, len(acknowledged), 300)
}

func requireLedger(t *testing.T, path string, acknowledged map[string]store.Revision) {
	t.Helper()
	s := open(t, path)
	defer s.Close()
	found := map[string]store.Revision{}
	for rec, err := range s.List(t.Context(), store.Query{Prefix: "a/"}) {
		require.NoError(t, err)
		key := rec.Key[len("a/"):]
		other, err := s.Get(t.Context(), "b/"+key)
		require.NoError(t, err, "half of a commit")
		require.Equal(t, rec.Revision, other.Revision)
		require.Equal(t, rec.Value, other.Value)
		found[key] = rec.Revision
	}
	for key, rev := range acknowledged {
		require.Equal(t, rev, found[key], key)
	}
	require.LessOrEqual(t, len(found), len(acknowledged)+writers*4, "records that nobody wrote")
}
