package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/baddisk"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// TestADiskThatFailsAtAnyCallLosesNothingAcknowledged has the disk fail at its first write, at its second write, and so
// on until the workload ends before the failing write. It does the same for syncs and changes of size, and for failures
// that pass and failures that last. See experiment for what must hold then.
func TestADiskThatFailsAtAnyCallLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	sweeps := testenv.Bound(t, "CONVEYOR_DISK_SWEEPS", 1, 1)
	stride := testenv.Some(t, 2, 1)
	points, acknowledged := 0, 0
	for line := range strings.Lines(runChild(t, "sweep", t.TempDir(), fmt.Sprint("CONVEYOR_DISK_SWEEPS=", sweeps), fmt.Sprint(sweepStride, "=", stride))) {
		var n, acks int
		if _, rest, ok := strings.Cut(line, ": failed at "); ok {
			_, err := fmt.Sscanf(rest, "%d calls; %d commits", &n, &acks)
			require.NoError(t, err, line)
			points, acknowledged = points+n, acknowledged+acks
		}
	}
	require.Positive(t, points)
	testenv.Figure(t, "%d failures of the disk, %d commits acknowledged, 0 lost", points, acknowledged)
}

// TestADiskThatFailsWhileAStoreIsMade has the disk fail at each call of an Open that makes a new file.
func TestADiskThatFailsWhileAStoreIsMade(t *testing.T) {
	t.Parallel()
	runChild(t, "sweep of open", t.TempDir())
}

// TestADiskThatFailsWhileAStoreIsOpened has the disk fail at each call of an Open that finds a file.
func TestADiskThatFailsWhileAStoreIsOpened(t *testing.T) {
	t.Parallel()
	runChild(t, "sweep of reopen", t.TempDir())
}

// runChild runs a child process, logs its output, and returns the output.
func runChild(t *testing.T, name, path string, env ...string) (said string) {
	t.Helper()
	cmd := childCommand(t, name, path)
	cmd.Env = append(cmd.Env, env...)
	baddisk.Prepare(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Run(), &out)
	if out.Len() > 0 {
		t.Log(out.String())
	}
	return out.String()
}

func init() {
	children["sweep"] = sweep
	children["sweep of open"] = sweepOpen
	children["sweep of reopen"] = sweepReopen
}

// model is what the disk has of one file, which can differ from what the operating system shows.
type model struct {
	mu      sync.Mutex
	path    string
	judge   func(c baddisk.Call) syscall.Errno // which calls fail; nil for none
	disk    []byte                             // what is on disk for certain
	unsaved []baddisk.Call                     // what may be or not
	rnd     *rand.Rand
}

// answer lets a call happen or fail. A sync that succeeds brings all earlier writes to the disk. After a sync that
// fails, some of these writes never reach the disk, because the operating system does not try again.
func (m *model) answer(c baddisk.Call) syscall.Errno {
	m.mu.Lock()
	defer m.mu.Unlock()
	errno := baddisk.Through
	if m.judge != nil {
		errno = m.judge(c)
	}
	ours := c.Path == m.path
	switch {
	case c.Op == baddisk.Sync && errno == baddisk.Through:
		errno = baddisk.Done
		if ours {
			for _, w := range m.unsaved {
				m.disk = happen(m.disk, w)
			}
			m.unsaved = nil
		}
	case c.Op == baddisk.Sync && ours:
		m.disk, m.unsaved = m.cut(), nil
	case errno == baddisk.Through && ours && c.Op != baddisk.Read:
		m.unsaved = append(m.unsaved, c)
	}
	return errno
}

// cut returns what the disk has after a loss of power at this moment.
func (m *model) cut() []byte {
	image := bytes.Clone(m.disk)
	for _, w := range m.unsaved {
		if m.rnd.IntN(2) == 0 {
			image = happen(image, w)
		}
	}
	return image
}

func happen(image []byte, c baddisk.Call) []byte {
	end := c.Offset + int64(len(c.Data))
	if int64(len(image)) < end {
		image = append(image, make([]byte, end-int64(len(image)))...)
	}
	if c.Op == baddisk.Truncate {
		return image[:end]
	}
	copy(image[c.Offset:], c.Data)
	return image
}

func (m *model) failing(judge func(c baddisk.Call) syscall.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.judge = judge
}

func (m *model) within(fn func() bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fn()
}

// watch makes the model that of another file. All of this file is on disk.
func (m *model) watch(t *childTest, path string) {
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.path, m.disk, m.unsaved, m.judge = path, content, nil, nil
}

// powerCut writes what the disk has after a loss of power to a new file.
func (m *model) powerCut(t *childTest, path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	require.NoError(t, os.WriteFile(path, m.cut(), 0o600))
}

func newModel(t *childTest) *model {
	debug.SetGCPercent(1000) // otherwise most of the time would be spent on it
	seed := rand.Uint64()
	m := &model{rnd: rand.New(rand.NewPCG(seed, 0))}
	require.NoError(t, baddisk.Install(m.answer))
	fmt.Fprintln(os.Stderr, "seed", seed)
	return m
}

// fault is how a disk fails: the nth call of a kind, and with lasting all calls of that kind from there on.
type fault struct {
	op      baddisk.Op // 0 for any
	errno   syscall.Errno
	lasting bool
}

func (f fault) String() string {
	what := "once"
	if f.lasting {
		what = "for good"
	}
	return fmt.Sprintf("%s: %v %s", f.op, f.errno, what)
}

var faults = []fault{
	{baddisk.Write, syscall.EIO, false},
	{baddisk.Write, syscall.ENOSPC, true},
	{baddisk.Sync, syscall.EIO, false},
	{baddisk.Sync, syscall.ENOSPC, false},
	{baddisk.Sync, syscall.EIO, true},
	{baddisk.Truncate, syscall.EFBIG, false},
	{baddisk.Truncate, syscall.EIO, true},
	{0, syscall.EROFS, true},
	{0, syscall.EIO, false},
}

// sweepStride is the name of the environment variable that says which calls fail in a child: every one, or every second one.
const sweepStride = "CONVEYOR_DISK_STRIDE"

func sweep(t *childTest, dir string) {
	stride, err := strconv.Atoi(os.Getenv(sweepStride))
	require.NoError(t, err)
	sweeps, err := strconv.Atoi(os.Getenv("CONVEYOR_DISK_SWEEPS"))
	require.NoError(t, err)
	m := newModel(t)
	empty := filepath.Join(dir, "empty.db")
	s, err := file.Open(t.Context(), empty, file.Options{})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	for _, f := range faults {
		points, acknowledged, unknown := 0, 0, 0
		for range sweeps {
			for n := 1; ; n += stride {
				x := experiment{t: t, model: m, dir: dir, fault: f, n: n}
				reached := x.run(empty)
				acknowledged, unknown = acknowledged+len(x.acknowledged), unknown+x.unknown
				if !reached {
					break
				}
				require.Less(t, n, 10_000, "the workload does not come to an end")
				points++
			}
		}
		require.GreaterOrEqual(t, points, sweeps) // few for the changes of size, and how many depends on the groups
		fmt.Printf("%s: failed at %d calls; %d commits acknowledged, %d unknown\n", f, points, acknowledged, unknown)
	}
}

const (
	committers = 4
	commits    = 5
)

// experiment is a workload on a disk that fails once. The following must hold:
//
//   - Every call returns nil or the error of the operating system. No call that begins after a failed sync is
//     acknowledged.
//   - Once the disk works again, the store works if no sync has failed. Otherwise it says that it must be reopened.
//   - After a loss of power, and after another Open, every acknowledged commit is there. Every commit of unknown
//     outcome is there as a whole or not at all. Every other commit is absent.
//   - No revision is given twice.
//   - What the store shows after an Open is still there after a loss of power right after the Open.
type experiment struct {
	t     *childTest
	model *model
	dir   string
	fault fault
	n     int

	calls  int         // guarded by the model's lock
	synced atomic.Bool // a sync has failed

	mu           sync.Mutex // guards what follows, while the workload runs
	acknowledged map[string]store.Revision
	absent       []string // refused with an error that says so
	unknown      int
}

func (x *experiment) run(empty string) (reached bool) {
	t, path := x.t, filepath.Join(x.dir, "store.db")
	content, err := os.ReadFile(empty)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	x.model.watch(t, path)
	x.model.failing(x.judge)
	x.acknowledged = map[string]store.Revision{}
	var group sync.WaitGroup
	for c := range committers {
		group.Go(func() {
			for i := range commits {
				x.commit(s, fmt.Sprintf("%d/%d", c, i), make([]byte, 100+i*i*i*400*(1-c%2)))
			}
		})
	}
	group.Wait()
	x.model.failing(nil)
	if x.calls < x.n {
		require.Len(t, x.acknowledged, committers*commits)
		require.NoError(t, s.Close())
		return false
	}

	if x.synced.Load() {
		_, err = s.Commit(t.Context(), store.Put("after", nil))
		require.ErrorIs(t, err, store.ErrClosed, x)
		require.ErrorIs(t, err, x.fault.errno, x)
		require.ErrorContains(t, err, "must be reopened", x)
		_, err = s.Get(t.Context(), "a/0/0")
		require.ErrorIs(t, err, store.ErrClosed, x)
	} else {
		x.commit(s, "after", nil)
		require.Contains(t, x.acknowledged, "after", x)
	}
	cut := filepath.Join(x.dir, "cut.db")
	x.model.powerCut(t, cut)
	x.verify(cut)
	require.NoError(t, s.Close())
	found := x.verify(path)
	x.model.powerCut(t, cut)
	require.Equal(t, found, x.verify(cut), "%s: what Open has shown is gone after a cut of the power", x)
	return true
}

func (x *experiment) String() string { return fmt.Sprintf("%s, call %d", x.fault, x.n) }

func (x *experiment) judge(c baddisk.Call) syscall.Errno {
	if x.fault.op != 0 && x.fault.op != c.Op {
		return baddisk.Through
	}
	x.calls++
	if x.calls < x.n || x.calls > x.n && !x.fault.lasting {
		return baddisk.Through
	}
	if c.Op == baddisk.Sync {
		x.synced.Store(true)
	}
	return x.fault.errno
}

func (x *experiment) commit(s *file.Store, key string, value []byte) {
	late := x.synced.Load()
	rev, err := s.Commit(x.t.Context(), store.Put("a/"+key, value).IfAbsent(), store.Put("b/"+key, value))
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case err == nil:
		require.False(x.t, late, "%s: acknowledged after a failed sync", x)
		x.acknowledged[key] = rev
	case errors.Is(err, store.ErrUnknown):
		x.unknown++
	default:
		x.absent = append(x.absent, key)
	}
	if err != nil {
		require.ErrorIs(x.t, err, x.fault.errno, x.String())
		require.NotErrorIs(x.t, err, store.ErrCorrupt, x.String())
	}
}

// verify opens a file and compares its records with the acknowledged commits. It returns the records that it has found,
// and then makes one more commit.
func (x *experiment) verify(path string) (revisions map[string]store.Revision) {
	t := x.t
	require.NoError(t, file.Check(t.Context(), path, file.Options{}), x)
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err, x)
	defer s.Close()
	found, newest := map[string]store.Record{}, store.Revision(0)
	byRevision := map[store.Revision]string{}
	for rec, err := range s.List(t.Context(), store.Query{}) {
		require.NoError(t, err, x)
		found[rec.Key] = rec
		newest = max(newest, rec.Revision)
		if other := byRevision[rec.Revision]; other != "" {
			require.Equal(t, other, rec.Key[2:], "%s: one revision for two commits", x)
		}
		byRevision[rec.Revision] = rec.Key[2:]
	}
	revisions = map[string]store.Revision{}
	for key, rec := range found {
		revisions[key] = rec.Revision
		other := map[byte]string{'a': "b", 'b': "a"}[key[0]] + key[1:]
		require.Equal(t, rec.Revision, found[other].Revision, "%s: half of commit %s", x, key)
		require.True(t, bytes.Equal(rec.Value, found[other].Value), "%s: half of commit %s", x, key)
	}
	for key, rev := range x.acknowledged {
		require.Equal(t, rev, found["a/"+key].Revision, "%s: acknowledged commit %s is lost", x, key)
		newest = max(newest, rev)
	}
	for _, key := range x.absent {
		require.Zero(t, revisions["a/"+key], "%s: commit %s was said not to have happened", x, key)
	}
	require.LessOrEqual(t, len(found), 2*(len(x.acknowledged)+x.unknown), x)
	if path != x.model.path { // of the other one the image is still to be taken
		rev, err := s.Commit(t.Context(), store.Put("a/last", nil), store.Put("b/last", nil))
		require.NoError(t, err, x)
		require.Greater(t, rev, newest, x)
	}
	return revisions
}

// sweepOpen makes a store while the disk fails, at each call in turn. Either Open returns the error of the system and
// leaves no partial file, or the next Open succeeds. The next Open syncs the directory first, because the failed one
// may not have done so.
func sweepOpen(t *childTest, dir string) {
	m := newModel(t)
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		for n := 1; ; n++ {
			home := filepath.Join(dir, fmt.Sprint(errno), fmt.Sprint(n))
			path := filepath.Join(home, "a", "store.db")
			calls := 0
			synced := map[string]bool{}
			m.failing(func(c baddisk.Call) syscall.Errno {
				if c.Op == baddisk.Read {
					return baddisk.Through
				}
				if calls++; calls == n {
					delete(synced, c.Path)
					return errno
				}
				if c.Op == baddisk.Sync {
					synced[c.Path] = true
				}
				return baddisk.Through
			})
			s, err := file.Open(t.Context(), path, file.Options{})
			if m.within(func() bool { return calls < n }) {
				require.NoError(t, err)
				require.NoError(t, s.Close())
				require.Greater(t, n, 8)
				fmt.Printf("%v: failed at %d calls\n", errno, n-1)
				break
			}
			require.ErrorIs(t, err, errno, "call %d", n)
			require.NotErrorIs(t, err, store.ErrCorrupt, "call %d", n)
			require.ErrorContains(t, err, path, "call %d", n)
			leftovers, err := filepath.Glob(path + ".new-*")
			require.NoError(t, err)
			require.Empty(t, leftovers, "call %d", n)

			s, err = file.Open(t.Context(), path, file.Options{})
			m.failing(nil)
			require.NoError(t, err, "call %d", n)
			for at := filepath.Dir(path); at != filepath.Dir(dir); at = filepath.Dir(at) {
				require.True(t, synced[at], "call %d: %s was not synced", n, at)
			}
			_, err = s.Commit(t.Context(), store.Put("key", nil))
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
	}
}

// sweepReopen opens a store whose newest meta page is only in memory, while the disk fails at each call in turn, once
// or from there on.
func sweepReopen(t *childTest, dir string) {
	m := newModel(t)
	for _, f := range []fault{
		{0, syscall.EIO, false}, {0, syscall.EIO, true}, {baddisk.Write, syscall.EROFS, true}, {baddisk.Read, syscall.EIO, true},
	} {
		n, refused := 1, 0
		for ; ; n++ {
			reached, err := reopen(t, m, dir, f, n)
			if !reached {
				break
			}
			if err != nil {
				refused++
				unreadable := f.op != baddisk.Write && errors.Is(err, store.ErrCorrupt)
				require.True(t, errors.Is(err, f.errno) || unreadable, "%s, call %d: %v", f, n, err)
			}
		}
		require.Positive(t, refused)
		fmt.Printf("%s: failed at %d calls, refused %d times\n", f, n-1, refused)
	}
}

func reopen(t *childTest, m *model, dir string, f fault, n int) (reached bool, failure error) {
	path, cut := filepath.Join(dir, "store.db"), filepath.Join(dir, "cut.db")
	err := os.Remove(path)
	require.True(t, err == nil || errors.Is(err, fs.ErrNotExist))
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	m.watch(t, path)
	syncs, calls := 0, 0 // guarded by the model's lock
	m.failing(func(c baddisk.Call) syscall.Errno {
		if c.Op == baddisk.Sync {
			if syncs++; syncs == 2 {
				return syscall.EIO
			}
		}
		return baddisk.Through
	})
	_, err = s.Commit(t.Context(), store.Put("key", nil))
	require.ErrorIs(t, err, store.ErrUnknown)
	require.NoError(t, s.Close())

	m.failing(func(c baddisk.Call) syscall.Errno {
		if f.op != 0 && f.op != c.Op {
			return baddisk.Through
		}
		if calls++; calls == n || calls > n && f.lasting {
			return f.errno
		}
		return baddisk.Through
	})
	s, failure = file.Open(t.Context(), path, file.Options{})
	m.failing(nil)
	if failure != nil {
		s, err = file.Open(t.Context(), path, file.Options{})
		require.NoError(t, err, "%s, call %d: a failed Open has left damage", f, n)
	}
	_, err = s.Get(t.Context(), "key")
	require.NoError(t, err)
	m.powerCut(t, cut)
	require.NoError(t, s.Close())
	s, err = file.Open(t.Context(), cut, file.Options{})
	require.NoError(t, err)
	_, err = s.Get(t.Context(), "key")
	require.NoError(t, err, "%s, call %d: what Open has shown is gone after a cut of the power", f, n)
	require.NoError(t, s.Close())
	return calls >= n, failure
}

// TestGrowthThatTheDiskRefusesIsItsError has small records next to very large ones. A change of the small records
// writes the pages of both anew, so a transaction needs much more room than the records that it writes.
func TestGrowthThatTheDiskRefusesIsItsError(t *testing.T) {
	t.Parallel()
	runChild(t, "refuse to grow", filepath.Join(t.TempDir(), "store.db"))
}

func init() {
	children["refuse to grow"] = func(t *childTest, path string) {
		m := newModel(t)
		s, err := file.Open(t.Context(), path, file.Options{})
		require.NoError(t, err)
		for i := range 16 {
			_, err := s.Commit(t.Context(), store.Put(fmt.Sprintf("%02d/large", i), make([]byte, 256<<10)), store.Put(fmt.Sprintf("%02d/small", i), nil))
			require.NoError(t, err)
		}
		refused := 0
		for round := range 4 {
			m.failing(func(c baddisk.Call) syscall.Errno {
				if c.Op == baddisk.Truncate {
					return syscall.EFBIG
				}
				return baddisk.Through
			})
			var ops []store.Op
			for i := range 16 {
				ops = append(ops, store.Put(fmt.Sprintf("%02d/small", (i+round)%16), nil))
				_, err := s.Commit(t.Context(), ops...)
				if err != nil {
					refused++
					require.ErrorIs(t, err, syscall.EFBIG)
					require.NotErrorIs(t, err, store.ErrClosed)
					require.NotErrorIs(t, err, store.ErrUnknown)
					break
				}
			}
			m.failing(nil)
			_, err := s.Commit(t.Context(), ops...)
			require.NoError(t, err)
		}
		require.Positive(t, refused)
		require.NoError(t, s.Close())
		require.NoError(t, file.Check(t.Context(), path, file.Options{}))
	}
}

// TestAFileThatIsReplacedOnTheWayToItsLockIsNotMistaken replaces the file during Open, at each read in turn.
func TestAFileThatIsReplacedOnTheWayToItsLockIsNotMistaken(t *testing.T) {
	t.Parallel()
	runChild(t, "replace on the way", t.TempDir())
}

func init() {
	children["replace on the way"] = func(t *childTest, dir string) {
		m := newModel(t)
		path, other := filepath.Join(dir, "store.db"), filepath.Join(dir, "other.db")
		reads, total := 0, 0 // guarded by the model's lock
		for n := 0; n <= total; n++ {
			for _, path := range []string{path, other} {
				s, err := file.Open(t.Context(), path, file.Options{})
				require.NoError(t, err)
				require.NoError(t, s.Close())
			}
			reads = 0
			m.failing(func(c baddisk.Call) syscall.Errno {
				if c.Op == baddisk.Read {
					if reads++; reads == n {
						if err := os.Rename(other, path); err != nil {
							panic(err)
						}
					}
				}
				return baddisk.Through
			})
			s, err := file.Open(t.Context(), path, file.Options{})
			m.failing(nil)
			require.NoError(t, err, "read %d", n)
			_, err = s.Commit(t.Context(), store.Put("key", nil))
			switch n {
			case 0: // nothing was replaced
				total = reads
				require.NoError(t, err)
			case total: // that of the meta page, by which the file was there, and locked
				require.ErrorIs(t, err, fs.ErrNotExist)
			default:
				require.NoError(t, err, "read %d: the file without a name was opened", n)
			}
			require.NoError(t, s.Close())
		}
		require.Greater(t, total, 4)
	}
}
