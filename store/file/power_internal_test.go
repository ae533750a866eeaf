package file

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
)

// TestWhatWasAcknowledgedSurvivesALossOfPower simulates many losses of power, each at a random write to a file to which
// several callers commit. After a loss of power, everything that was synced is on the disk. Of each write since the
// last sync, the disk has all, nothing, or some sectors. The store that is opened afterwards must have every
// acknowledged commit. It must have each commit wholly or not at all, and no commit without the commits before it.
//
// A sector is written wholly or not at all. Disks promise this, and both file systems and bbolt's meta pages rely on
// it.
func TestWhatWasAcknowledgedSurvivesALossOfPower(t *testing.T) {
	losses := testenv.Bound(t, "CONVEYOR_POWER_LOSSES", testenv.Some(t, 600, 3000), 150)
	const seed = 1
	t.Logf("seed %d", seed) // of the losses; the writes of the callers differ from run to run
	random := rand.New(rand.NewPCG(seed, 0))
	tape, commits := recordWrites(t)
	points := make([]int, losses)
	for i := range points {
		points[i] = random.IntN(len(tape.writes) + 1)
	}
	slices.Sort(points)

	dir := testenv.MemoryDir(t)
	disk := slices.Clone(tape.before)
	synced, kept, lost := 0, 0, 0
	for i, point := range points {
		for ; synced < tape.lastSync(point); synced++ {
			disk = tape.writes[synced].onto(disk)
		}
		image := slices.Clone(disk)
		for _, w := range tape.writes[synced:point] {
			image = w.partly(random).onto(image)
		}
		path := filepath.Join(dir, fmt.Sprint(i))
		require.NoError(t, os.WriteFile(path, image, 0o600))
		newest := requirePrefix(t, path, commits)
		heard := point
		if synced < point && tape.isMeta(point-1) {
			heard-- // no commit is acknowledged before its last write is synced
		}
		for _, c := range commits {
			switch {
			case c.rev <= newest:
				kept++
			case c.answered <= heard:
				require.Fail(t, "an acknowledged commit is lost", "revision %d at write %d of %d", c.rev, point, len(tape.writes))
			default:
				lost++
			}
		}
		require.NoError(t, os.Remove(path))
	}
	require.NotZero(t, kept)
	require.NotZero(t, lost)
	testenv.Figure(t, "%d losses of power at %d writes by %d commits, 0 lost", losses, len(tape.writes), len(commits))
}

// written is a commit with its writes.
type written struct {
	rev      store.Revision
	answered int // the number of writes when it was acknowledged
	put      map[string]string
	removed  string
}

// write is one write to the file, with the size that the file had.
type write struct {
	at    int64
	data  []byte
	size  int64
	parts []bool // the sectors that the disk has; nil for all
}

const sectorSize = 512

func (w write) onto(image []byte) []byte {
	if grow := w.size - int64(len(image)); grow > 0 {
		image = append(image, make([]byte, grow)...)
	}
	for i := 0; i < len(w.data); i += sectorSize {
		if w.parts == nil || w.parts[i/sectorSize] {
			copy(image[w.at+int64(i):], w.data[i:min(i+sectorSize, len(w.data))])
		}
	}
	return image
}

// partly returns what a disk may have of a write that was not synced.
func (w write) partly(random *rand.Rand) write {
	w.parts = make([]bool, (len(w.data)+sectorSize-1)/sectorSize)
	kind := random.IntN(3)
	for i := range w.parts {
		w.parts[i] = kind == 1 || kind == 2 && random.IntN(2) == 0
	}
	return w
}

// tape is what bbolt has written to a file.
type tape struct {
	before []byte // the file's content before that

	mu     sync.Mutex // guards writes
	writes []write
}

func (p *tape) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.writes)
}

// lastSync returns how many of the first n writes are certain to be synced. bbolt syncs before and after it writes a
// meta page.
func (p *tape) lastSync(n int) int {
	for i := n - 1; i >= 0; i-- {
		if p.isMeta(i) {
			return min(i+1, n-1) // the last of the n writes may not have been synced yet
		}
	}
	return 0
}

func (p *tape) isMeta(i int) bool { return p.writes[i].at < int64(2*os.Getpagesize()) }

// recordWrites has several callers commit to a new store, and records everything that is written to its file.
func recordWrites(t *testing.T) (*tape, []written) {
	t.Helper()
	s := openInternal(t)
	require.False(t, s.db.NoSync)
	before, err := os.ReadFile(s.path)
	require.NoError(t, err)
	p := &tape{before: before}
	// bbolt has no hook for this. If bbolt renames the field, FieldByName finds nothing and the next call panics.
	field := reflect.ValueOf(s.db).Elem().FieldByName("ops").FieldByName("writeAt")
	writeAt := (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
	original := *writeAt
	*writeAt = func(data []byte, at int64) (int, error) {
		info, err := s.file.Stat()
		if err != nil {
			return 0, err
		}
		p.mu.Lock()
		p.writes = append(p.writes, write{at: at, data: slices.Clone(data), size: info.Size()})
		p.mu.Unlock()
		return original(data, at)
	}

	const callers, each = 4, 100
	all := commitConcurrently(t, s, p, callers, each)
	require.NoError(t, s.Close())
	require.Greater(t, len(p.writes), callers*each)
	return p, all
}

// commitConcurrently has several callers make commits, and returns the commits in the order of their revisions.
func commitConcurrently(t *testing.T, s *Store, p *tape, callers, each int) []written {
	t.Helper()
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		all   []written
	)
	for c := range callers {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 1))
			for n := range each {
				w := written{removed: fmt.Sprintf("a/%d/%04d", c, n-10)}
				w.put = map[string]string{
					fmt.Sprintf("a/%d/%04d", c, n): strings.Repeat(fmt.Sprint(n, " "), random.IntN(200)*random.IntN(20)),
					fmt.Sprintf("head/%d", c):      fmt.Sprint(n),
				}
				ops := []store.Op{store.Delete(w.removed)}
				for key, value := range w.put {
					ops = append(ops, store.Put(key, []byte(value)))
				}
				var err error
				w.rev, err = s.Commit(context.Background(), ops...)
				assert.NoError(t, err)
				w.answered = p.len()
				mu.Lock()
				all = append(all, w)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	slices.SortFunc(all, func(a, b written) int { return cmp.Compare(a.rev, b.rev) })
	return all
}

// requirePrefix opens a file, which must be sound and must have a prefix of the commits. It returns the revision of the
// last commit of the prefix.
func requirePrefix(t *testing.T, path string, commits []written) (newest store.Revision) {
	t.Helper()
	require.NoError(t, Check(t.Context(), path, Options{}))
	s, err := Open(t.Context(), path, Options{})
	require.NoError(t, err)
	newest, err = s.Commit(t.Context())
	require.NoError(t, err)
	found := map[string]string{}
	for rec, err := range s.List(t.Context(), store.Query{}) {
		require.NoError(t, err)
		found[rec.Key] = string(rec.Value)
	}
	want := map[string]string{}
	for _, c := range commits {
		if c.rev <= newest {
			for key, value := range c.put {
				want[key] = value
			}
			delete(want, c.removed)
		}
	}
	require.Equal(t, want, found)
	rev, err := s.Commit(t.Context(), store.Put("after", nil))
	require.NoError(t, err)
	require.Equal(t, newest+1, rev)
	require.NoError(t, s.Close())
	return newest
}
