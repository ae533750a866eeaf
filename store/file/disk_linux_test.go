package file_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// inMounts runs a child in a mount namespace of its own, with an empty directory on which the child can mount a file
// system.
func inMounts(t *testing.T, name string) {
	t.Helper()
	testenv.NeedRoot(t)
	t.Parallel()
	cmd := childCommand(t, name, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestAFullFileSystemFailsCommitsUntilThereIsRoom(t *testing.T) {
	inMounts(t, "fill with one caller")
}

func TestAFullFileSystemFailsManyCallersAtOnceUntilThereIsRoom(t *testing.T) {
	inMounts(t, "fill with many callers")
}

func TestALargeValueThatDoesNotFitFailsAlone(t *testing.T) { inMounts(t, "fill with a large value") }

func TestOpenOnAFullFileSystemLeavesNothingBehind(t *testing.T) { inMounts(t, "open where it is full") }

func TestOpenOnAReadOnlyFileSystemSaysSo(t *testing.T) {
	inMounts(t, "open where nothing can be written")
}

func init() {
	children["fill with one caller"] = func(t *childTest, dir string) { fill(t, dir, 1, 20<<10) }
	children["fill with many callers"] = func(t *childTest, dir string) { fill(t, dir, 16, 5<<10) }
	children["fill with a large value"] = fillWithALargeValue
	children["open where it is full"] = openWhereItIsFull
	children["open where nothing can be written"] = openReadOnly
}

// mountSmall mounts a file system of a megabyte and fills a part of it. The returned function frees this part again.
func mountSmall(t *childTest, dir string, taken int) (giveBack func()) {
	require.NoError(t, syscall.Mount("none", dir, "tmpfs", 0, "size=1m"))
	ballast := filepath.Join(dir, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, taken), 0o600))
	return func() { require.NoError(t, os.Remove(ballast)) }
}

// requireFull checks the error of a commit that failed because the disk was full.
func requireFull(t *childTest, err error) {
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NotErrorIs(t, err, store.ErrUnknown)
	require.NotErrorIs(t, err, store.ErrClosed)
	require.NotErrorIs(t, err, store.ErrCorrupt)
}

// fill commits until the disk is full. It does so three times, each time on a larger disk.
func fill(t *childTest, dir string, callers, size int) {
	giveBack := mountSmall(t, dir, 600<<10)
	path := filepath.Join(dir, "store.db")
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	var mu sync.Mutex
	acknowledged := map[string]store.Revision{}
	newest := store.Revision(0)
	for round := range 3 {
		switch round {
		case 1:
			giveBack()
		case 2:
			require.NoError(t, syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "size=2m"))
		}
		before := len(acknowledged)
		var group sync.WaitGroup
		for c := range callers {
			group.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("%d/%d/%d", c, round, i)
					rev, err := s.Commit(t.Context(), store.Put("a/"+key, make([]byte, size)).IfAbsent(), store.Put("b/"+key, nil))
					if err != nil {
						requireFull(t, err)
						return
					}
					mu.Lock()
					acknowledged[key] = rev
					newest = max(newest, rev)
					mu.Unlock()
				}
			})
		}
		group.Wait()
		require.Greater(t, len(acknowledged), before, "round %d: there was room, and nothing went on", round)
		requireAll(t, s, acknowledged)
	}
	require.NoError(t, s.Close())
	require.NoError(t, file.Check(t.Context(), path, file.Options{}))

	// The store opens while the disk is full, and commits again as soon as the disk has room.
	s, err = file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	requireAll(t, s, acknowledged)
	require.NoError(t, syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m"))
	rev, err := s.Commit(t.Context(), store.Put("last", make([]byte, size)))
	require.NoError(t, err)
	require.Greater(t, rev, newest)
	require.NoError(t, s.Close())
}

// requireAll checks that a store has the acknowledged commits, and nothing else.
func requireAll(t *childTest, s store.Store, acknowledged map[string]store.Revision) {
	n := 0
	for rec, err := range s.List(t.Context(), store.Query{}) {
		require.NoError(t, err)
		require.Equal(t, acknowledged[rec.Key[2:]], rec.Revision, rec.Key)
		n++
	}
	require.Equal(t, 2*len(acknowledged), n)
}

func fillWithALargeValue(t *childTest, dir string) {
	giveBack := mountSmall(t, dir, 300<<10)
	s, err := file.Open(t.Context(), filepath.Join(dir, "store.db"), file.Options{})
	require.NoError(t, err)
	for range 3 {
		_, err = s.Commit(t.Context(), store.Put("large", make([]byte, store.MaxValue)))
		requireFull(t, err)
		_, err = s.Commit(t.Context(), store.Put("small", make([]byte, 100)))
		require.NoError(t, err)
	}
	_, err = s.Commit(t.Context(), store.Put("middle", make([]byte, 800<<10)))
	requireFull(t, err)
	_, err = s.Get(t.Context(), "middle")
	require.ErrorIs(t, err, store.ErrNotFound)
	giveBack()
	_, err = s.Commit(t.Context(), store.Put("middle", make([]byte, 800<<10)))
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

func openWhereItIsFull(t *childTest, dir string) {
	for taken := 1 << 20; taken >= 900<<10; taken -= 4 << 10 {
		giveBack := mountSmall(t, dir, taken)
		path := filepath.Join(dir, "a", "store.db")
		s, err := file.Open(t.Context(), path, file.Options{})
		if err == nil {
			require.NoError(t, s.Close())
		} else {
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NotErrorIs(t, err, store.ErrCorrupt)
			entries, err := os.ReadDir(filepath.Dir(path))
			require.True(t, err == nil || errors.Is(err, fs.ErrNotExist))
			require.Empty(t, entries)
		}
		giveBack()
		s, err = file.Open(t.Context(), path, file.Options{})
		require.NoError(t, err)
		_, err = s.Commit(t.Context(), store.Put("key", nil))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		require.NoError(t, syscall.Unmount(dir, 0))
	}
}

func openReadOnly(t *childTest, dir string) {
	require.NoError(t, syscall.Mount("none", dir, "tmpfs", 0, "size=1m"))
	path := filepath.Join(dir, "store.db")
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	rev, err := s.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	remount := func(flags uintptr) error {
		return syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=1m")
	}
	// The kernel refuses to make a file system read-only while a file on it is open for writing. The sweep tests a file
	// system that becomes read-only because of an error.
	require.ErrorIs(t, remount(syscall.MS_RDONLY), syscall.EBUSY)
	require.NoError(t, s.Close())

	require.NoError(t, remount(syscall.MS_RDONLY))
	for _, path := range []string{path, filepath.Join(dir, "new.db"), filepath.Join(dir, "new", "new.db")} {
		_, err = file.Open(t.Context(), path, file.Options{})
		require.ErrorIs(t, err, syscall.EROFS)
		require.ErrorContains(t, err, path)
		require.NotErrorIs(t, err, store.ErrCorrupt)
	}
	require.NoError(t, file.Check(t.Context(), path, file.Options{}))

	require.NoError(t, remount(0))
	s, err = file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	rec, err := s.Get(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, rev, rec.Revision)
	require.NoError(t, s.Close())
}

// TestAPageThatCannotBeReadIsAnError removes the pages of an open file from the disk, one at a time, and leaves no room
// for an empty page. The kernel then sends SIGBUS for each access to the page, as it does when a disk cannot read a
// page.
func TestAPageThatCannotBeReadIsAnError(t *testing.T) { inMounts(t, "read where nothing can be read") }

func init() { children["read where nothing can be read"] = readUnreadable }

func readUnreadable(t *childTest, dir string) {
	const page, punchHole = 4096, 3 // the latter with the size kept
	giveBack := mountSmall(t, dir, 4<<10)
	path := filepath.Join(dir, "store.db")
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("key/%03d", i))
		_, err = s.Commit(t.Context(), store.Put(keys[i], []byte(keys[i]+string(make([]byte, 700)))))
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	giveBack()
	info, err := os.Stat(path)
	require.NoError(t, err)
	var gets, lists, commits int
	for at := int64(0); at < info.Size(); at += page {
		s, err := file.Open(t.Context(), path, file.Options{})
		require.NoError(t, err, "page %d", at/page)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		before := make([]byte, page)
		_, err = f.ReadAt(before, at)
		require.NoError(t, err)
		require.NoError(t, syscall.Fallocate(int(f.Fd()), punchHole, at, page))
		ballast, err := os.Create(filepath.Join(dir, "ballast"))
		require.NoError(t, err)
		for err == nil {
			_, err = ballast.Write(make([]byte, page))
		}
		require.ErrorIs(t, err, syscall.ENOSPC)

		for _, key := range keys {
			rec, err := s.Get(t.Context(), key)
			if err != nil {
				gets++
				require.ErrorIs(t, err, store.ErrCorrupt, "page %d", at/page)
				continue
			}
			require.Equal(t, key, string(rec.Value[:len(key)]))
		}
		n := 0
		for rec, err := range s.List(t.Context(), store.Query{}) {
			if err != nil {
				lists++
				require.ErrorIs(t, err, store.ErrCorrupt, "page %d", at/page)
				break
			}
			require.Equal(t, keys[n], rec.Key)
			n++
		}
		require.NoError(t, ballast.Close())
		_, err = s.Commit(t.Context(), store.Put(keys[50], nil).If(0))
		require.Error(t, err)
		if !errors.Is(err, store.ErrConflict) {
			commits++
			require.ErrorIs(t, err, store.ErrCorrupt, "page %d", at/page)
		}
		require.NoError(t, s.Close())
		giveBack()
		_, err = f.WriteAt(before, at)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	require.Greater(t, gets, 100)
	require.Greater(t, lists, 20)
	require.Positive(t, commits)
	require.NoError(t, file.Check(t.Context(), path, file.Options{}))
}

// TestAStoreWhoseFileIsGoneAcknowledgesNothingMore deletes or replaces the file of a store while callers commit.
func TestAStoreWhoseFileIsGoneAcknowledgesNothingMore(t *testing.T) {
	for _, c := range []struct {
		name string
		take func(t *testing.T, path string)
	}{
		{"deleted", func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }},
		{"deleted with its directory", func(t *testing.T, path string) { require.NoError(t, os.RemoveAll(filepath.Dir(path))) }},
		{"replaced by another store", func(t *testing.T, path string) {
			require.NoError(t, open(t, path+".other").Close())
			require.NoError(t, os.Rename(path+".other", path))
		}},
		{"replaced by a text", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".other", []byte("text"), 0o600))
			require.NoError(t, os.Rename(path+".other", path))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "dir", "store.db")
			s := open(t, path)
			taken := make(chan struct{})
			var group sync.WaitGroup
			for caller := range 4 {
				group.Go(func() {
					for i := 0; ; i++ {
						late := false
						select {
						case <-taken:
							late = true
						default:
						}
						_, err := s.Commit(t.Context(), store.Put(fmt.Sprint(caller, i), nil))
						if err != nil {
							if !errors.Is(err, store.ErrClosed) || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrUnknown) {
								t.Error(err)
							}
							return
						}
						if late {
							t.Error("acknowledged, and nowhere to be found")
							return
						}
					}
				})
			}
			c.take(t, path)
			close(taken)
			group.Wait()
			_, err := s.Get(t.Context(), "0 0")
			require.ErrorIs(t, err, store.ErrClosed)
			require.ErrorContains(t, err, path+" must be reopened")
			require.NoError(t, s.Close())
		})
	}
}

func TestAStoreWhoseFileHasAnotherNameGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	require.NoError(t, os.Link(path, path+".link"))
	require.NoError(t, os.Remove(path))
	_, err := s.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = open(t, path+".link").Get(t.Context(), "key")
	require.NoError(t, err)
}
