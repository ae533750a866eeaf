package file_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/baddisk"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// TestADiskThatFailsWhileAStoreIsMade has it fail at each call of an Open that makes a new file.
func TestADiskThatFailsWhileAStoreIsMade(t *testing.T) {
	t.Parallel()
	runChild(t, "sweep of open", t.TempDir())
}

func init() { children["sweep of open"] = sweepOpen }

// runChild runs a child and passes on what it prints.
func runChild(t *testing.T, name, path string, env ...string) {
	t.Helper()
	cmd := childCommand(t, name, path)
	cmd.Env = append(cmd.Env, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Run(), &out)
	if out.Len() > 0 {
		t.Log(out.String())
	}
}

// model is what a disk has of one file, apart from what the operating system shows.
type model struct {
	mu      sync.Mutex
	path    string
	judge   func(c baddisk.Call) syscall.Errno // which calls fail; nil for none
	disk    []byte                             // what is on disk for certain
	unsaved []baddisk.Call                     // what may be or not
	rnd     *rand.Rand
}

// answer lets a call happen or fail. A sync that succeeds brings to the disk what was written before it; one that fails
// leaves some of it out for good, for the operating system does not try again.
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

// cut returns what the disk has if the power fails now.
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

// watch makes the model that of another file, all of which is on disk.
func (m *model) watch(t *childTest, path string) {
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.path, m.disk, m.unsaved, m.judge = path, content, nil, nil
}

// powerCut writes what would be left to a file of its own.
func (m *model) powerCut(t *childTest, path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	require.NoError(t, os.WriteFile(path, m.cut(), 0o600))
}

func newModel(t *childTest) *model {
	debug.SetGCPercent(1000) // most of the time would go into it
	seed := rand.Uint64()
	m := &model{rnd: rand.New(rand.NewPCG(seed, 0))}
	require.NoError(t, baddisk.Install(m.answer))
	fmt.Fprintln(os.Stderr, "seed", seed)
	return m
}

// sweepOpen makes a store with the disk failing at each call. The Open fails with the error of the system and leaves
// no half of a file; or the next one succeeds, and syncs the directory before it does, because the first may not have.
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

// TestGrowthThatTheDiskRefusesIsItsError has small records beside very large ones, whose pages a change of the small ones
// writes anew, so that a transaction needs much more room than what it writes.
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
