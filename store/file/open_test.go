package file_test

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

func TestOpenMakesTheFileAndItsDirectoriesForTheUserAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "store.db")
	s := open(t, path)
	require.NoError(t, s.Close())

	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "something is left beside the file")
	if !modesCount {
		return
	}
	for path, want := range map[string]fs.FileMode{
		path: 0o600, filepath.Join(dir, "a", "b"): fs.ModeDir | 0o700, filepath.Join(dir, "a"): fs.ModeDir | 0o700,
	} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, want, info.Mode(), path)
	}
}

func TestASecondOwnerIsLockedOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	_, err := file.Open(t.Context(), path, file.Options{})
	require.ErrorIs(t, err, store.ErrLocked)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "; Options.Wait waits for it")
	if runtime.GOOS == "linux" {
		require.ErrorContains(t, err, "this process has it open already: one store has one owner, and one engine")
	}
	require.ErrorIs(t, file.Check(t.Context(), path, file.Options{}), store.ErrLocked)

	_, err = s.Commit(t.Context(), store.Put("key", nil))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	open(t, path)
}

func TestOpenWithWaitWaitsForTheOwnerToClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	first := open(t, path)
	opened := make(chan error)
	go func() {
		second, err := file.Open(t.Context(), path, file.Options{Wait: true})
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	require.NoError(t, first.Close())
	require.NoError(t, <-opened)
}

func TestOpenWithWaitEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	open(t, path)
	gone := errors.New("gone")
	ctx, leave := context.WithCancelCause(t.Context())
	opened := make(chan error)
	go func() {
		_, err := file.Open(ctx, path, file.Options{Wait: true})
		opened <- err
	}()
	leave(gone)
	err := <-opened
	require.ErrorIs(t, err, gone)

	_, err = file.Open(ctx, path, file.Options{})
	require.ErrorIs(t, err, gone)
}

func TestOpenOfManyAtOnceMakesOneStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "store.db")
	errs := make(chan error)
	for range 8 {
		go func() {
			s, err := file.Open(t.Context(), path, file.Options{Wait: true})
			if err == nil {
				_, err = s.Commit(t.Context(), store.Put("key", nil))
				err = errors.Join(err, s.Close())
			}
			errs <- err
		}()
	}
	for range 8 {
		require.NoError(t, <-errs)
	}
	rev, err := open(t, path).Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 8, rev)
}

func TestOpenRefusesWhatIsNotAStoreAndLeavesItAlone(t *testing.T) {
	sound := written(t)
	for _, c := range []struct {
		name  string
		make  func(t *testing.T, path string)
		cause string
	}{
		{"an empty file", content(""), "empty"},
		{"a few bytes", content("hello"), "invalid"},
		{"a text", content(string(make([]byte, 10_000)) + "hello"), "invalid"},
		{"a long text", content(strings.Repeat("Of the making of many books there is no end. ", 500)), "invalid database"},
		{"a database of SQLite", content("SQLite format 3\x00\x10\x00\x01\x01" + string(make([]byte, 1<<16))), "invalid database"},
		{"a compressed file", content("\x1f\x8b\x08\x00" + noise(1<<16)), "invalid database"},
		{"a program", program, "invalid database"},
		{"noise", content(noise(1 << 16)), "invalid database"},
		{"zeros", content(string(make([]byte, 1<<20))), "invalid"},
		{"a bbolt file of another program", bolt(nil, "widgets"), "another program"},
		{"a bbolt file without buckets", bolt(nil), "another program"},
		{"a bbolt file without a list of free pages", bolt(&bbolt.Options{NoFreelistSync: true}, "widgets"), "meta page"},
		{"a file with a record of ours and other buckets", bolt(nil, "conveyor", "widgets"), "format"},
		{"a bbolt file of an older version", older, "version mismatch"},
		{"a newer format", newer, "another version of Conveyor: format 2"},
		{"a record of a newer format", newerRecord, `record "a/key": value has the format version 2, not 1`},
		{"the first pages of a file", content(sound[:5*4096]), "pages of 4096 bytes are in use"},
		{"a file with its start missing", content(sound[4096:]), "meta page"},
		{"a file with a page of zeros", content(sound[:5*4096] + string(make([]byte, 4096)) + sound[6*4096:]), "page"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			c.make(t, path)
			before, err := os.ReadFile(path)
			require.NoError(t, err)
			info, err := os.Stat(path)
			require.NoError(t, err)

			for range 2 {
				_, err = file.Open(t.Context(), path, file.Options{})
				require.ErrorIs(t, err, store.ErrCorrupt)
				require.ErrorContains(t, err, path)
				require.ErrorContains(t, err, c.cause)
				require.Equal(t, err.Error(), file.Check(t.Context(), path, file.Options{}).Error())
			}
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(before), string(after))
			now, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, info.ModTime(), now.ModTime())
		})
	}
}

func TestOpenRefusesADirectory(t *testing.T) {
	_, err := file.Open(t.Context(), t.TempDir(), file.Options{})
	require.ErrorIs(t, err, store.ErrCorrupt)
}

func TestCheckLooksAtItsContextFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := file.Open(t.Context(), path, file.Options{})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	require.ErrorIs(t, file.Check(ctx, path, file.Options{}), why)
	require.NoError(t, file.Check(t.Context(), path, file.Options{}))
}

func TestCheckOfNoFileMakesNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	require.ErrorIs(t, file.Check(t.Context(), path, file.Options{}), fs.ErrNotExist)
	require.NoFileExists(t, path)
}

// written returns the bytes of a closed store with some records.
func written(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	for i := range 20 {
		_, err := s.Commit(t.Context(), store.Put(key(i), make([]byte, 300)), store.Delete(key(i-3)))
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

func key(i int) string { return string(rune('a'+i%26)) + "/key" }

func content(bytes string) func(t *testing.T, path string) {
	return func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, []byte(bytes), 0o600)) }
}

// bolt makes a file with bbolt, without the store.
func bolt(opts *bbolt.Options, buckets ...string) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		db, err := bbolt.Open(path, 0o600, opts)
		require.NoError(t, err)
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				if _, err := tx.CreateBucket([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		}))
		require.NoError(t, db.Close())
	}
}

func noise(size int) string {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return string(b)
}

// program copies this one.
func program(t *testing.T, path string) {
	self, err := os.Executable()
	require.NoError(t, err)
	bytes, err := os.ReadFile(self)
	require.NoError(t, err)
	content(string(bytes[:1<<18]))(t, path)
}

// older makes a file whose meta pages have an older format version of bbolt.
func older(t *testing.T, path string) {
	bytes := []byte(written(t))
	for page := range 2 {
		meta := bytes[page*4096+16:]
		binary.NativeEndian.PutUint32(meta[4:], 1)
		sum := fnv.New64a()
		sum.Write(meta[:56])
		binary.NativeEndian.PutUint64(meta[56:], sum.Sum64())
	}
	content(string(bytes))(t, path)
}

// newerRecord makes a file in which one value has the version 2 of its format.
func newerRecord(t *testing.T, path string) {
	require.NoError(t, open(t, path).Close())
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("records")).Put([]byte("a/key"), append([]byte{2}, make([]byte, 20)...))
	}))
	require.NoError(t, db.Close())
}

// newer makes a file as a later version would make it, with a bucket that this version does not know.
func newer(t *testing.T, path string) {
	require.NoError(t, open(t, path).Close())
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucket([]byte("index")); err != nil {
			return err
		}
		return tx.Bucket([]byte("conveyor")).Put([]byte("format"), formatTwo())
	}))
	require.NoError(t, db.Close())
}

// formatTwo is the record of the format as a file of version 2 would have it: the format of the value, its checksum,
// its revision, and the version.
func formatTwo() []byte {
	rest := "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x02\x00\x00\x00"
	sum := crc32.Checksum([]byte("format"+rest), crc32.MakeTable(crc32.Castagnoli))
	return append(binary.LittleEndian.AppendUint32([]byte{1}, sum), rest...)
}
