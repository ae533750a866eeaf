package file_test

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// version is a revision of a record with its value.
type version struct {
	Revision store.Revision
	Value    string
}

// contents are the records of a store by their keys.
type contents map[string]version

// fixture is a sound file, which the cases damage.
type fixture struct {
	Name     string
	PageSize int
	File     []byte // up to the end of the last page in use
	Size     int64  // with the hole that follows
	Before   []byte // the file one commit before, as long as File; the same as File where there is no telling
	Now, Was contents

	Ever map[string][]version // all that was ever acknowledged, which old pages may bring back
}

// has reports whether a commit with this record was ever acknowledged.
func (f *fixture) has(rec store.Record) bool {
	return slices.Contains(f.Ever[rec.Key], version{rec.Revision, string(rec.Value)})
}

// author commits to a store and records its commits.
type author struct {
	t    testing.TB
	s    store.Store
	now  contents
	was  contents
	ever map[string][]version
}

func (a *author) commit(ops ...store.Op) {
	rev, err := a.s.Commit(a.t.Context(), ops...)
	require.NoError(a.t, err)
	a.was = maps.Clone(a.now)
	for _, op := range ops {
		if op.Removes() {
			delete(a.now, op.Key())
			continue
		}
		v := version{rev, string(op.Value())}
		a.now[op.Key()] = v
		a.ever[op.Key()] = append(a.ever[op.Key()], v)
	}
}

// fixtures returns all files. They are the same bytes in each run, so the number of a case identifies the case.
func fixtures(t testing.TB) []*fixture {
	t.Helper()
	var all []*fixture
	add := func(name string, pageSize int, write func(a *author, rnd *rand.Rand)) *fixture {
		f := newFixture(t, name, pageSize, write)
		all = append(all, f)
		return f
	}
	short := func(i int) string { return fmt.Sprintf("run/%03d", i) }
	long := func(i int) string { return fmt.Sprintf("long/%03d/", i*i%97) + strings.Repeat("-", 170+i%50) }

	all = append(all, goldenFixture(t))
	add("an empty store", 4096, func(*author, *rand.Rand) {})
	add("one record", 4096, manyRecords(1, 20, short))
	add("one leaf", 4096, manyRecords(12, 150, short))
	add("a branch", 4096, manyRecords(60, 600, short))
	add("large pages", 16384, manyRecords(60, 900, short))
	add("small pages", 1024, manyRecords(80, 120, short))
	deep := add("two levels of branches", 1024, manyRecords(90, 60, long))
	add("free pages", 1024, func(a *author, rnd *rand.Rand) {
		manyRecords(90, 700, short)(a, rnd)
		for i := range 85 {
			a.commit(store.Delete(short(i)))
		}
		a.commit(store.Put(short(7), nil))
	})
	add("long values", 4096, manyRecords(12, 20_000, short))
	add("long values on small pages", 1024, manyRecords(24, 5_000, short))
	add("binary keys", 1024, manyRecords(70, 80, func(i int) string {
		key := strings.Repeat(string([]byte{0, 0xff, 0x80 + byte(i), '/', 0x7f}[i%5]), 1+i/5)
		if i%14 == 3 {
			key = strings.Repeat(key[:1], store.MaxKey-i)
		}
		return key
	}))
	return append(all, killedFixture(deep))
}

// newFixture makes a file with write and one more commit.
func newFixture(t testing.TB, name string, pageSize int, write func(a *author, rnd *rand.Rand)) *fixture {
	t.Helper()
	path := filepath.Join(testenv.MemoryDir(t), "store.db")
	s, err := file.OpenRepeatable(path, pageSize)
	require.NoError(t, err)
	a := &author{t: t, s: s, now: contents{}, was: contents{}, ever: map[string][]version{}}
	f := &fixture{Name: name, PageSize: pageSize}
	write(a, rand.New(rand.NewPCG(1, uint64(pageSize))))
	f.File = readFile(t, path)
	f.Size, f.Before, f.Was = int64(len(f.File)), f.File, maps.Clone(a.now)
	if len(a.now) > 0 {
		// One more commit changes, adds and removes a record, so that there is a file from one commit before.
		keys := slices.Sorted(maps.Keys(a.now))
		last := keys[len(keys)-1]
		ops := []store.Op{store.Put(keys[0], []byte("the last commit")), store.Put(last[:len(last)-1]+"~", []byte(last))}
		if len(keys) > 1 {
			ops = append(ops, store.Delete(keys[len(keys)/2]))
		}
		a.commit(ops...)
		f.File = readFile(t, path)
		f.Size, f.Was = int64(len(f.File)), a.was
	}
	require.NoError(t, s.Close())
	f.Now, f.Ever = a.now, a.ever
	return f.trimmed()
}

// manyRecords returns a function that commits n records with values of at most most bytes, and then replaces and removes
// some of them.
func manyRecords(n, most int, key func(i int) string) func(a *author, rnd *rand.Rand) {
	text := func(rnd *rand.Rand) []byte {
		return []byte(strings.Repeat(fmt.Sprintf("%08x ", rnd.Uint32()), 1+most/9))[:rnd.IntN(most+1)]
	}
	return func(a *author, rnd *rand.Rand) {
		for i := 0; i < n; i += 5 {
			var ops []store.Op
			for j := i; j < min(i+5, n); j++ {
				ops = append(ops, store.Put(key(j), text(rnd)))
			}
			a.commit(ops...)
		}
		for i := range n / 8 {
			a.commit(store.Delete(key(i*7%n)), store.Put(key(i*7%n+1), text(rnd)))
		}
	}
}

// killedFixture returns a fixture as a process leaves it that is killed during the last commit: with pages to which no
// meta page points yet.
func killedFixture(f *fixture) *fixture {
	killed := *f
	killed.Name, killed.Now, killed.Was = "as a killed process leaves it", f.Was, f.Was
	killed.File, killed.Before = bytes.Clone(f.File), f.Before
	rnd := rand.New(rand.NewPCG(1, 1))
	for at := 0; at < len(killed.File); at += 512 {
		if at < 2*killed.PageSize || rnd.IntN(2) == 0 {
			copy(killed.File[at:at+512], killed.Before[at:])
		}
	}
	return &killed
}

// goldenFixture is the file of the first release.
func goldenFixture(t testing.TB) *fixture {
	content, err := os.ReadFile(golden)
	require.NoError(t, err)
	f := &fixture{Name: "version 1", PageSize: 4096, File: content, Before: content, Size: int64(len(content))}
	f.Now, f.Ever = contents{}, map[string][]version{}
	for _, rec := range goldenRecords() {
		f.Now[rec.Key] = version{rec.Revision, string(rec.Value)}
	}
	// These records were there before: each was put once, in the order of its key, together with a record without a
	// value.
	for i := range 40 {
		v := version{store.Revision(i + 1), strings.Repeat(fmt.Sprint(i, " "), 40)}
		f.Ever[fmt.Sprintf("run/%03d", i)] = []version{v}
		f.Ever[fmt.Sprintf("unfinished/run/%03d", i)] = []version{{v.Revision, ""}}
	}
	for key, v := range f.Now {
		if !slices.Contains(f.Ever[key], v) {
			f.Ever[key] = append(f.Ever[key], v)
		}
	}
	f.Was = f.Now
	return f.trimmed()
}

// trimmed cuts off the hole after the last page in use, and makes Before as long as File.
func (f *fixture) trimmed() *fixture {
	end := 0
	for page := range 2 {
		at := page*f.PageSize + 16
		end = max(end, int(binary.NativeEndian.Uint64(f.File[at+40:]))*f.PageSize)
	}
	f.File = f.File[:end]
	before := make([]byte, end)
	copy(before, f.Before)
	f.Before = before
	return f
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}

func saveFixtures(t testing.TB, path string, all []*fixture) {
	var b bytes.Buffer
	require.NoError(t, gob.NewEncoder(&b).Encode(all))
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
}

func loadFixtures(path string) (all []*fixture, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	err = gob.NewDecoder(bytes.NewReader(content)).Decode(&all)
	return all, err
}

func TestTheFilesToDamageAreSoundAndTheSameEachTime(t *testing.T) {
	t.Parallel()
	all := fixtures(t)
	path := filepath.Join(testenv.MemoryDir(t), "store.db")
	for i, again := range fixtures(t) {
		f := all[i]
		require.Equal(t, f.Name, again.Name)
		require.True(t, bytes.Equal(f.File, again.File) && bytes.Equal(f.Before, again.Before), "%s: not the same again", f.Name)
		for _, state := range []struct {
			file []byte
			want contents
		}{{f.File, f.Now}, {f.Before, f.Was}} {
			require.NoError(t, os.WriteFile(path, state.file, 0o600))
			require.NoError(t, os.Truncate(path, max(f.Size, int64(len(f.File)))), f.Name)
			require.NoError(t, file.Check(t.Context(), path, file.Options{}), f.Name)
			s := open(t, path)
			recs, err := records(t, s)
			require.NoError(t, err)
			got := contents{}
			for _, rec := range recs {
				got[rec.Key] = version{rec.Revision, string(rec.Value)}
				require.True(t, f.has(rec), rec.Key)
			}
			require.Equal(t, state.want, got, f.Name)
			require.NoError(t, s.Close())
		}
	}
}

// TestASoundFileIsNeverRefused grows and shrinks stores at random, with keys and values of all sizes, and inspects the
// file again and again. The inspection must accept every file that bbolt writes, however bbolt splits and merges its
// pages.
func TestASoundFileIsNeverRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.MemoryDir(t), "store.db")
	for seed := range testenv.Bound(t, "CONVEYOR_SOUND", testenv.Some(t, 10, 60), 6) {
		rnd := rand.New(rand.NewPCG(3, uint64(seed)))
		s, err := file.OpenRepeatable(path, []int{512, 1024, 4096, 16384}[seed%4])
		require.NoError(t, err)
		most, keyLength, valueLength := 1+rnd.IntN(300), 1+rnd.IntN(300), 1<<rnd.IntN(13)
		want, keys := contents{}, []string(nil)
		for range 40 {
			var ops []store.Op
			if len(keys) > 0 && (rnd.IntN(3) == 0 || len(keys) > most) { // remove keys that are side by side, so that pages merge
				from := rnd.IntN(len(keys))
				for _, key := range keys[from:min(len(keys), from+1+rnd.IntN(80))] {
					ops = append(ops, store.Delete(key))
				}
			} else {
				for range 1 + rnd.IntN(40) {
					key := fmt.Sprintf("%06x", rnd.IntN(1<<24)) + strings.Repeat("k", rnd.IntN(keyLength))
					if !slices.ContainsFunc(ops, func(op store.Op) bool { return op.Key() == key }) {
						ops = append(ops, store.Put(key, bytes.Repeat([]byte{byte(rnd.Uint32())}, rnd.IntN(valueLength))))
					}
				}
			}
			rev, err := s.Commit(t.Context(), ops...)
			require.NoError(t, err, "seed %d", seed)
			for _, op := range ops {
				delete(want, op.Key())
				if !op.Removes() {
					want[op.Key()] = version{rev, string(op.Value())}
				}
			}
			keys = slices.Sorted(maps.Keys(want))
			if rnd.IntN(4) == 0 {
				require.NoError(t, s.Close())
				require.NoError(t, file.Check(t.Context(), path, file.Options{}), "seed %d", seed)
				s, err = file.Open(t.Context(), path, file.Options{})
				require.NoError(t, err)
			}
			n := 0
			for rec, err := range s.List(t.Context(), store.Query{Reverse: rnd.IntN(2) == 0}) {
				require.NoError(t, err, "seed %d", seed)
				require.Equal(t, want[rec.Key], version{rec.Revision, string(rec.Value)})
				n++
			}
			require.Len(t, want, n)
		}
		require.NoError(t, s.Close())
		require.NoError(t, os.Remove(path))
	}
}
