package file_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

var update = flag.Bool("update", false, "write the file of the current format, if testdata does not have it yet")

const golden = "testdata/v1.db"

// goldenRecords returns the records of testdata/v1.db. They are enough for a branch page. The file also has pages that
// were freed, empty values, and a value that is longer than a page.
func goldenRecords() []store.Record {
	var recs []store.Record
	for i := range 40 {
		if i%4 != 3 {
			recs = append(recs, store.Record{
				Key: fmt.Sprintf("run/%03d", i), Value: []byte(strings.Repeat(fmt.Sprint(i, " "), 40)), Revision: store.Revision(i + 1),
			})
		}
	}
	return append(recs,
		store.Record{Key: "unfinished/\x00\xff", Revision: 42},
		store.Record{Key: "wide", Value: []byte(strings.Repeat("wide ", 1200)), Revision: 42},
	)
}

func writeGolden(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	for i := range 40 {
		key := fmt.Sprintf("run/%03d", i)
		value := []byte(strings.Repeat(fmt.Sprint(i, " "), 40))
		_, err := s.Commit(t.Context(), store.Put(key, value), store.Put("unfinished/"+key, nil))
		require.NoError(t, err)
	}
	var ops []store.Op
	for i := range 40 {
		ops = append(ops, store.Delete(fmt.Sprintf("unfinished/run/%03d", i)))
		if i%4 == 3 {
			ops = append(ops, store.Delete(fmt.Sprintf("run/%03d", i)))
		}
	}
	_, err := s.Commit(t.Context(), ops...)
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), store.Put("unfinished/\x00\xff", nil), store.Put("wide", []byte(strings.Repeat("wide ", 1200))))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
	require.NoError(t, os.WriteFile(golden, content, 0o644))
}

// readGolden returns the file's bytes. A file that was released is never written again.
func readGolden(t *testing.T) []byte {
	t.Helper()
	if _, err := os.Stat(golden); err != nil && *update {
		writeGolden(t)
	}
	content, err := os.ReadFile(golden)
	require.NoError(t, err)
	return content
}

func TestAFileOfVersion1Opens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	require.NoError(t, os.WriteFile(path, readGolden(t), 0o600))
	require.NoError(t, file.Check(t.Context(), path, file.Options{}))
	s := open(t, path)
	recs, err := records(t, s)
	require.NoError(t, err)
	require.Equal(t, printed(goldenRecords()), printed(recs))
	rev, err := s.Commit(t.Context(), store.Put("new", nil))
	require.NoError(t, err)
	require.EqualValues(t, 43, rev)
}

func TestADamagedRecordIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	_, err := s.Commit(t.Context(), store.Put("before", nil), store.Put("run/7", []byte("the value of run 7")), store.Put("run/8", nil))
	require.NoError(t, err)
	overwrite(t, path, "the value", "The value") // while it is open

	_, err = s.Get(t.Context(), "run/7")
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "run/7")
	recs, err := records(t, s)
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorContains(t, err, "run/7")
	require.Len(t, recs, 1)
	_, err = s.Commit(t.Context(), store.Put("run/7", nil).IfAbsent())
	require.ErrorIs(t, err, store.ErrCorrupt)

	// The other records are still there, and a damaged record that is written again is sound.
	_, err = s.Get(t.Context(), "run/8")
	require.NoError(t, err)
	_, err = s.Commit(t.Context(), store.Put("run/7", []byte("anew")))
	require.NoError(t, err)
	recs, err = records(t, s)
	require.NoError(t, err)
	require.Len(t, recs, 3)
}

func TestAFileThatIsCutOffWhileOpenIsCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	for i := range 100 {
		_, err := s.Commit(t.Context(), store.Put(fmt.Sprint("run/", i), make([]byte, 1000)))
		require.NoError(t, err)
	}
	require.NoError(t, os.Truncate(path, 3*4096))

	_, err := s.Get(t.Context(), "run/50")
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.ErrorContains(t, err, path)
	_, err = records(t, s)
	require.ErrorIs(t, err, store.ErrCorrupt)
	_, err = s.Commit(t.Context(), store.Put("run/50", nil).IfAbsent())
	require.ErrorIs(t, err, store.ErrCorrupt)
	_, err = s.Commit(t.Context(), store.Check("run/50", 0))
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.NoError(t, s.Close())
}

// TestAFileThatWasDestroyedWhileOpenCanBeReplaced closes a store whose meta pages are destroyed, so that bbolt must not
// be called any more, and then opens a copy of the file.
func TestAFileThatWasDestroyedWhileOpenCanBeReplaced(t *testing.T) {
	content := readGolden(t)
	path := filepath.Join(t.TempDir(), "store.db")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	s := open(t, path)
	require.NoError(t, os.Truncate(path, 16))
	_, err := s.Get(t.Context(), "wide")
	require.ErrorIs(t, err, store.ErrCorrupt)
	_, err = s.Commit(t.Context(), store.Put("wide", nil))
	require.ErrorIs(t, err, store.ErrCorrupt)
	require.NoError(t, s.Close())

	require.ErrorIs(t, file.Check(t.Context(), path, file.Options{}), store.ErrCorrupt, "still locked")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	recs, err := records(t, open(t, path))
	require.NoError(t, err)
	require.Equal(t, printed(goldenRecords()), printed(recs))
}

// TestABitThatBboltWouldStumbleOverIsFound flips bits that do no harm until bbolt writes the page. Then bbolt would
// free pages that are in use, or would not find the place of the page in the branch above.
func TestABitThatBboltWouldStumbleOverIsFound(t *testing.T) {
	for _, c := range []struct {
		name string
		at   int
		bit  byte
	}{
		{"in the key of a branch", 16453, 0x10},
		{"in the number of a page within an element", 20552, 0x10},
		{"in the size of the head of a bucket", 20524, 0x40},
	} {
		t.Run(c.name, func(t *testing.T) {
			content := readGolden(t)
			content[c.at] ^= c.bit
			path := filepath.Join(t.TempDir(), "store.db")
			require.NoError(t, os.WriteFile(path, content, 0o600))
			require.ErrorIs(t, file.Check(t.Context(), path, file.Options{}), store.ErrCorrupt)
		})
	}
}

// TestAPageThatChangesWhileOpenIsFound changes one page of an open store, where no inspection can find the change.
func TestAPageThatChangesWhileOpenIsFound(t *testing.T) {
	f := goldenFixture(t)
	parts := dissect(f)
	branch := parts.branches[0] * f.PageSize
	leaf := int(native.Uint64(f.File[branch+16+8:])) * f.PageSize // with the first keys
	meta := int(max(native.Uint64(f.File[16+48:]), native.Uint64(f.File[f.PageSize+16+48:]))) % 2 * f.PageSize
	free := int(native.Uint64(f.File[meta+16+32:])) * f.PageSize
	last := int(native.Uint16(f.File[leaf+10:])) - 1
	missing := goldenRecords()[last-1].Key
	for _, c := range []struct {
		name   string
		change func(file []byte)
		reads  string // an error of Get and of List, if there is one
	}{
		{"a branch that is its own child", func(file []byte) { native.PutUint64(file[branch+16+8:], uint64(branch/f.PageSize)) }, "page"},
		{"a leaf that has lost its last element", func(file []byte) { native.PutUint16(file[leaf+10:], uint16(last)) }, "do not fit"},
		{"a key that is another one", func(file []byte) {
			key := bytes.Index(file[leaf:leaf+f.PageSize], []byte(missing))
			file[leaf+key+len(missing)-1] ^= 0x01
		}, missing},
		{"the last commit gone", func(file []byte) { clear(file[meta : meta+80]) }, "its last commit is gone"},
		{"a list of free pages that has no end", func(file []byte) { native.PutUint32(file[free+12:], 1<<31) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			require.NoError(t, os.WriteFile(path, f.File, 0o600))
			s := open(t, path)
			changed := bytes.Clone(f.File)
			c.change(changed)
			require.NoError(t, os.WriteFile(path, changed, 0o600))

			if c.reads != "" {
				_, err := s.Get(t.Context(), missing)
				require.ErrorIs(t, err, store.ErrCorrupt)
				require.ErrorContains(t, err, path)
				require.ErrorContains(t, err, c.reads)
				_, err = records(t, s)
				require.ErrorIs(t, err, store.ErrCorrupt)
				require.ErrorContains(t, err, path)
			}
			_, err := s.Commit(t.Context(), store.Put(missing, nil).IfAbsent(), store.Delete("run/037"))
			require.ErrorIs(t, err, store.ErrCorrupt)
			require.ErrorContains(t, err, path)
			require.NoError(t, s.Close())
		})
	}
}

func records(t *testing.T, s store.Store) (recs []store.Record, err error) {
	t.Helper()
	for rec, err := range s.List(t.Context(), store.Query{}) {
		if err != nil {
			return recs, err
		}
		recs = append(recs, rec)
	}
	return recs, nil
}

// printed returns records as a text that does not distinguish a nil value from an empty one.
func printed(recs []store.Record) string {
	var b strings.Builder
	for _, rec := range recs {
		fmt.Fprintf(&b, "%q %d %q\n", rec.Key, rec.Revision, rec.Value)
	}
	return b.String()
}

// overwrite replaces each from in a file by to.
func overwrite(t *testing.T, path, from, to string) {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(content), from)
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(string(content), from, to)), 0o600))
}
