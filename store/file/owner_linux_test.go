package file_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// late is how long a call may take before a test counts it as hung. Every call is much faster.
const late = 5 * time.Minute

// owner is a process that has a store open.
type owner struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startOwner(t *testing.T, child, path string, files ...*os.File) *owner {
	t.Helper()
	o := &owner{t: t, cmd: childCommand(t, child, path)}
	o.cmd.ExtraFiles = files
	var err error
	o.in, err = o.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := o.cmd.StdoutPipe()
	require.NoError(t, err)
	o.out = bufio.NewReader(out)
	require.NoError(t, o.cmd.Start())
	require.Equal(t, "open", o.hear())
	return o
}

func (o *owner) hear() string {
	o.t.Helper()
	line, err := o.out.ReadString('\n')
	require.NoError(o.t, err)
	return strings.TrimSpace(line)
}

func (o *owner) signal(s os.Signal) {
	o.t.Helper()
	require.NoError(o.t, o.cmd.Process.Signal(s))
}

// killed kills the process and waits until it has ended.
func (o *owner) killed() {
	o.t.Helper()
	o.signal(syscall.SIGKILL)
	require.ErrorContains(o.t, o.cmd.Wait(), "killed")
}

// commits has the owner make a commit, and checks that the commit was acknowledged.
func (o *owner) commits() {
	o.t.Helper()
	_, err := io.WriteString(o.in, "commit\n")
	require.NoError(o.t, err)
	require.Equal(o.t, "committed", o.hear())
}

// closes has the owner close the store and end.
func (o *owner) closes() {
	o.t.Helper()
	require.NoError(o.t, o.in.Close())
	require.NoError(o.t, o.cmd.Wait())
}

func init() {
	children["own"] = own
	children["leave the file to a child"] = func(t *childTest, path string) { bequeath(t, path, true) }
	children["leave nothing to a child"] = func(t *childTest, path string) { bequeath(t, path, false) }
	children["linger"] = func(*childTest, string) { _, _ = io.Copy(io.Discard, os.Stdin) }
	children["race"] = race
	children["take turns"] = takeTurns
}

// own opens the store and commits once for each line of its input. It closes the store when the input ends.
func own(t *childTest, path string) {
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	fmt.Println("open")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		_, err := s.Commit(t.Context(), store.Put(fmt.Sprint(os.Getpid()), []byte(lines.Text())))
		require.NoError(t, err)
		fmt.Println("committed")
	}
	require.NoError(t, s.Close())
}

// requireLocked checks that Open returns ErrLocked for each of these names of a file, with and without waiting. It
// returns how long the slowest refusal took.
func requireLocked(t *testing.T, paths ...string) (slowest time.Duration) {
	t.Helper()
	for _, path := range paths {
		ctx, cancel := context.WithTimeout(t.Context(), late)
		began := time.Now()
		_, err := file.Open(ctx, path, file.Options{})
		slowest = max(slowest, time.Since(began))
		require.ErrorIs(t, err, store.ErrLocked, path)
		require.ErrorContains(t, err, " has it", "the error says who")
		require.ErrorContains(t, err, "Options.Wait")
		require.NoError(t, ctx.Err(), "the refusal took more than %v", late)
		cancel()

		leaving := errors.New("leaving")
		ctx, leave := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { leave(leaving) })
		_, err = file.Open(ctx, path, file.Options{Wait: true})
		require.ErrorIs(t, err, leaving, path)
	}
	return slowest
}

func requireFree(t *testing.T, path string) {
	t.Helper()
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// names returns a path for a store, and a function that returns several names of the same file once the file exists.
func names(t *testing.T) (path string, others func() []string) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	path = filepath.Join(dir, "real", "store.db")
	return path, func() []string {
		soft, hard, way := filepath.Join(dir, "soft.db"), filepath.Join(dir, "hard.db"), filepath.Join(dir, "way")
		require.NoError(t, os.Symlink(path, soft))
		require.NoError(t, os.Link(path, hard))
		require.NoError(t, os.Symlink(filepath.Join(dir, "real"), way))
		here, err := os.Getwd()
		require.NoError(t, err)
		relative, err := filepath.Rel(here, path)
		require.NoError(t, err)
		require.False(t, filepath.IsAbs(relative))
		return []string{
			path, soft, hard, relative, filepath.Join(way, "store.db"), dir + "/real/../real//./store.db",
			fmt.Sprintf("/proc/self/cwd/%s", relative),
		}
	}
}

func TestAnOwnerInThisProcessIsFoundByEveryNameOfItsFile(t *testing.T) {
	t.Parallel()
	path, others := names(t)
	s := open(t, path)
	t.Logf("refused within %v", requireLocked(t, others()...))
	// The refused calls have closed their descriptors. This must not have released the lock.
	requireLocked(t, path)
	_, err := s.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	requireFree(t, path)
}

func TestAnOwnerInAnotherProcessIsFoundByEveryNameOfItsFile(t *testing.T) {
	t.Parallel()
	path, others := names(t)
	o := startOwner(t, "own", path)
	t.Logf("refused within %v", requireLocked(t, others()...))
	o.commits()
	o.closes()
	requireFree(t, path)
}

func TestAKilledOwnerLeavesNoLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	for range 10 {
		o := startOwner(t, "own", path)
		o.commits()
		requireLocked(t, path)
		o.killed()
		requireFree(t, path)
	}
}

func TestAKilledOwnerLetsTheNextOneIn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	o := startOwner(t, "own", path)
	opened := make(chan error)
	go func() {
		s, err := file.Open(t.Context(), path, file.Options{Wait: true})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	requireLocked(t, path)
	o.killed()
	require.NoError(t, <-opened)
}

func TestAStoppedOwnerKeepsItsStore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	o := startOwner(t, "own", path)
	o.commits()
	o.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	_, err := syscall.Wait4(o.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped())
	slowest := time.Duration(0)
	for range 10 {
		slowest = max(slowest, requireLocked(t, path))
	}
	t.Logf("refused within %v", slowest)
	o.signal(syscall.SIGCONT)
	o.commits()
	requireLocked(t, path)
	o.closes()
	requireFree(t, path)
}

// BenchmarkRefusal measures how long Open takes to return ErrLocked.
func BenchmarkRefusal(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store.db")
	open(b, path)
	for b.Loop() {
		_, err := file.Open(b.Context(), path, file.Options{})
		require.ErrorIs(b, err, store.ErrLocked)
	}
}

// bequeath opens the store and starts a process that lives longer than this one. The process inherits the descriptor of
// the file if with is set.
func bequeath(t *childTest, path string, with bool) {
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	heir := exec.Command(self, path)
	heir.Env = append(os.Environ(), childVariable+"=linger")
	heir.Stdin = os.NewFile(3, "life") // it ends when the test closes this
	if with {
		heir.ExtraFiles = []*os.File{descriptorOf(t, path)}
	}
	require.NoError(t, heir.Start())
	fmt.Println("open")
	if line, _ := bufio.NewReader(os.Stdin).ReadString('\n'); line != "" {
		require.NoError(t, s.Close())
		fmt.Println("closed")
		select {} // to be killed
	}
}

// descriptorOf returns a duplicate of the descriptor with which this process has a file open.
func descriptorOf(t *childTest, path string) *os.File {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, entry := range entries {
		var fd int
		_, err := fmt.Sscan(entry.Name(), &fd)
		require.NoError(t, err)
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && target == path {
			again, err := syscall.Dup(fd) // the same open file, as after a fork
			require.NoError(t, err)
			syscall.CloseOnExec(again)
			return os.NewFile(uintptr(again), path)
		}
	}
	require.Fail(t, "the store has no descriptor")
	return nil
}

// withHeir starts an owner that starts a process of its own, which lives until end is called.
func withHeir(t *testing.T, child, path string) (o *owner, end func()) {
	t.Helper()
	life, rest, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = rest.Close() })
	o = startOwner(t, child, path, life)
	require.NoError(t, life.Close())
	return o, func() { require.NoError(t, rest.Close()) }
}

// If an owner dies while a process that it has started still has the file open, that process has the lock: nothing
// distinguishes it from a living owner. A process inherits the file only if it is passed on explicitly, as with
// ExtraFiles.
func TestAChildThatInheritsTheFileKeepsTheLockOfAKilledOwner(t *testing.T) {
	t.Parallel()
	path := realPath(t)
	o, end := withHeir(t, "leave the file to a child", path)
	o.killed()
	requireLocked(t, path)
	end()
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	s, err := file.Open(ctx, path, file.Options{Wait: true})
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

func TestAChildThatInheritsTheFileDoesNotOutlastClose(t *testing.T) {
	t.Parallel()
	path := realPath(t)
	o, end := withHeir(t, "leave the file to a child", path)
	requireLocked(t, path)
	_, err := io.WriteString(o.in, "close\n")
	require.NoError(t, err)
	require.Equal(t, "closed", o.hear())
	requireFree(t, path)
	o.killed()
	end()
}

func TestAChildInheritsNothingOfItself(t *testing.T) {
	t.Parallel()
	path := realPath(t)
	o, end := withHeir(t, "leave nothing to a child", path)
	requireLocked(t, path)
	o.killed()
	requireFree(t, path) // while the heir lives
	end()
}

// realPath returns a path for a store without symbolic links, as the kernel reports it.
func realPath(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return filepath.Join(dir, "store.db")
}

const racers = 16

// herd is a group of processes that all wait for the same two pipes.
type herd struct {
	t     *testing.T
	all   []*owner
	pipes [2]*os.File // a byte for each process
}

func startHerd(t *testing.T, child, dir string) *herd {
	t.Helper()
	h := &herd{t: t}
	var ends []*os.File
	for i := range h.pipes {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer r.Close()
		h.pipes[i], ends = w, append(ends, r)
	}
	t.Cleanup(h.end)
	for range racers {
		o := &owner{t: t, cmd: childCommand(t, child, dir)}
		o.cmd.ExtraFiles = ends
		out, err := o.cmd.StdoutPipe()
		require.NoError(t, err)
		o.out = bufio.NewReader(out)
		require.NoError(t, o.cmd.Start())
		h.all = append(h.all, o)
	}
	return h
}

// lets releases all processes of the herd that wait for a byte from the pipe.
func (h *herd) lets(pipe int) {
	h.t.Helper()
	_, err := h.pipes[pipe].Write(make([]byte, racers))
	require.NoError(h.t, err)
}

// end closes the pipes, which ends the processes, and waits for them.
func (h *herd) end() {
	_, _ = h.pipes[0].Close(), h.pipes[1].Close()
	for _, o := range h.all {
		_ = o.cmd.Wait()
	}
	h.all = nil
}

// race opens one store after the other. It opens a store when it reads a byte, prints the outcome, and closes the store
// when it reads the next byte.
func race(t *childTest, dir string) {
	starts, ends := os.NewFile(3, "starts"), os.NewFile(4, "ends")
	for round := 0; ; round++ {
		if _, err := starts.Read(make([]byte, 1)); err != nil {
			return
		}
		began := time.Now()
		s, err := file.Open(t.Context(), filepath.Join(dir, fmt.Sprint(round)), file.Options{})
		took := time.Since(began)
		switch {
		case err == nil:
			_, err = s.Commit(t.Context(), store.Put("owner", []byte(fmt.Sprint(os.Getpid()))))
			require.NoError(t, err)
			fmt.Println("won", took.Microseconds())
		case errors.Is(err, store.ErrLocked):
			fmt.Println("locked", took.Microseconds())
		default:
			fmt.Println(strings.ReplaceAll(err.Error(), " ", "_"), 0)
		}
		if _, err := ends.Read(make([]byte, 1)); err != nil {
			return
		}
		if s != nil {
			require.NoError(t, s.Close())
		}
		fmt.Println("closed")
	}
}

// TestOneOfManyRacingProcessesOwnsTheStore has sixteen processes open the same file at once, in many rounds. In every
// other round there is no file yet, so that each process tries to make the file.
func TestOneOfManyRacingProcessesOwnsTheStore(t *testing.T) {
	t.Parallel()
	rounds := testenv.Bound(t, "CONVEYOR_OWNER_ROUNDS", testenv.Some(t, 20, 100), 10)
	dir := t.TempDir()
	group := startHerd(t, "race", dir)
	slowest := time.Duration(0)
	for round := range rounds {
		path := filepath.Join(dir, fmt.Sprint(round))
		if round%2 == 0 {
			requireFree(t, path) // makes it
		}
		group.lets(0)
		var winner *owner
		for _, o := range group.all {
			var what string
			var took int64
			_, err := fmt.Sscan(o.hear(), &what, &took)
			require.NoError(t, err)
			switch what {
			case "won":
				require.Nil(t, winner, "round %d: two owners", round)
				winner = o
			case "locked":
				slowest = max(slowest, time.Duration(took)*time.Microsecond)
			default:
				require.Fail(t, what, "round %d", round)
			}
		}
		require.NotNil(t, winner, "round %d: no owner", round)
		requireLocked(t, path)
		group.lets(1)
		for _, o := range group.all {
			require.Equal(t, "closed", o.hear()) // before the next bytes come, so that nobody takes two
		}
		s := open(t, path)
		rec, err := s.Get(t.Context(), "owner")
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(winner.cmd.Process.Pid), string(rec.Value))
		require.NoError(t, s.Close())
		leftovers, err := filepath.Glob(path + ".new-*")
		require.NoError(t, err)
		require.Empty(t, leftovers)
	}
	testenv.Figure(t, "%d rounds of %d processes, one owner in each; the slowest refusal took %v", rounds, racers, slowest)
}

// takeTurns opens the store with Wait when it reads a byte. While it has the store, there is a marker file, which must
// not exist before. It adds one to a counter. Every seventh process kills itself while it has the store open.
func takeTurns(t *childTest, dir string) {
	if _, err := os.NewFile(3, "starts").Read(make([]byte, 1)); err != nil {
		return
	}
	path, marker := filepath.Join(dir, "store.db"), filepath.Join(dir, "marker")
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	s, err := file.Open(ctx, path, file.Options{Wait: true})
	require.NoError(t, err)
	mark, err := os.OpenFile(marker, os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err, "two owners at once")
	rec, err := s.Get(ctx, "counter")
	require.True(t, err == nil || errors.Is(err, store.ErrNotFound))
	n := len(rec.Value)
	_, err = s.Commit(ctx, store.Put("counter", make([]byte, n+1)).If(rec.Revision))
	require.NoError(t, err)
	require.NoError(t, mark.Close())
	fmt.Println(n + 1)
	require.NoError(t, os.Remove(marker))
	if n%7 == 6 {
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
	}
	require.NoError(t, s.Close())
}

// TestManyWaitingProcessesGetTheStoreOneAfterTheOther has sixteen processes wait for a store at once. Some of them die
// while they have the store open.
func TestManyWaitingProcessesGetTheStoreOneAfterTheOther(t *testing.T) {
	t.Parallel()
	rounds := max(1, testenv.Bound(t, "CONVEYOR_OWNER_ROUNDS", testenv.Some(t, 20, 100), 10)/10)
	dir := t.TempDir()
	turns := 0
	for range rounds {
		group := startHerd(t, "take turns", dir)
		group.lets(0)
		seen := map[string]bool{}
		for _, o := range group.all {
			said := o.hear()
			require.False(t, seen[said], "two owners counted to %s", said)
			seen[said] = true
			turns++
		}
		group.end()
	}
	s := open(t, filepath.Join(dir, "store.db"))
	rec, err := s.Get(t.Context(), "counter")
	require.NoError(t, err)
	require.Len(t, rec.Value, turns)
	t.Logf("%d turns", turns)
}

func TestAWaitingOpenGetsTheFileThatHasTakenThePlaceOfTheOwners(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	first := open(t, path)
	opened := make(chan *file.Store)
	go func() {
		s, err := file.Open(t.Context(), path, file.Options{Wait: true})
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	requireLocked(t, path)
	replacement := filepath.Join(t.TempDir(), "store.db")
	other := open(t, replacement)
	_, err := other.Commit(t.Context(), store.Put("other", nil))
	require.NoError(t, err)
	require.NoError(t, other.Close())
	require.NoError(t, os.Rename(replacement, path))

	second := <-opened
	require.NotNil(t, second)
	defer second.Close()
	_, err = second.Get(t.Context(), "other")
	require.NoError(t, err)
	_, err = second.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	_, err = first.Commit(t.Context(), store.Put("key", nil))
	require.ErrorIs(t, err, store.ErrClosed, "two owners of one path")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestAStoreThatIsDestroyedWhileOpenGivesUpItsLock destroys the meta pages, without which bbolt can neither begin a
// transaction nor close the file.
func TestAStoreThatIsDestroyedWhileOpenGivesUpItsLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, make([]byte, len(content)), 0o600))
	_, err = s.Get(t.Context(), "key")
	require.ErrorIs(t, err, store.ErrCorrupt)
	requireLocked(t, path)
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(path, content, 0o600))
	requireFree(t, path)
}

func TestAFileThatIsRenamedUnderItsOwnerStaysItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, renamed := filepath.Join(dir, "store.db"), filepath.Join(dir, "renamed.db")
	first := open(t, path)
	require.NoError(t, os.Rename(path, renamed))
	requireLocked(t, renamed)
	_, err := first.Commit(t.Context(), store.Put("first", nil))
	require.NoError(t, err)

	second := open(t, path) // another store, of which the first knows nothing
	_, err = second.Get(t.Context(), "first")
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = second.Commit(t.Context(), store.Put("second", nil))
	require.NoError(t, err)
	require.NoError(t, first.Close())
	_, err = open(t, renamed).Get(t.Context(), "first")
	require.NoError(t, err)
}
