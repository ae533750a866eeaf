package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// The range of cases of a child: the first case, and the case before which the child ends.
const rangeVariable = "CONVEYOR_DAMAGE_RANGE"

func init() { children["damage"] = workThrough }

// workThrough runs a range of cases. It prints a line after each case, so that the parent knows which case did not end.
func workThrough(t *childTest, dir string) {
	limitMemory()
	all, err := loadFixtures(filepath.Join(dir, "fixtures"))
	require.NoError(t, err)
	w := &worker{t: t, all: all, path: filepath.Join(dir, fmt.Sprint(os.Getpid(), ".db"))}
	defer os.Remove(w.path)
	for _, f := range all {
		w.parts = append(w.parts, dissect(f))
	}
	var from, to int
	_, err = fmt.Sscan(os.Getenv(rangeVariable), &from, &to)
	require.NoError(t, err)
	for n := from; n < to; n++ {
		w.run(n)
		result := "done"
		if w.fault != nil {
			result = "failed"
		}
		fmt.Println(result, n, w.hash(), w.mode, w.outcome, strconv.Quote(w.String()))
	}
}

// worker runs one case after the other.
type worker struct {
	t     *childTest
	all   []*fixture
	parts []*anatomy
	path  string

	// The fields below belong to the current case.
	*damage
	mode      mode
	kind      string
	outcome   outcome
	fault     error                // the promise that was broken
	committed contents             // what was in the store before the case
	model     contents             // what has to be in it now
	own       map[string][]version // what the case itself has committed
}

// mode is how the store meets a damaged file.
type mode string

const (
	whole     mode = "whole"      // Open, which reads all of it
	large     mode = "large"      // Open of a file so large that it does not read the leaves
	underOpen mode = "under-open" // the damage comes while the store is open
)

var modes = []mode{whole, large, whole, underOpen}

// outcome is how a case ended in which no promise was broken.
type outcome string

const (
	refused  outcome = "refused"  // by Open
	found    outcome = "found"    // by a read or a commit, or by Close
	harmless outcome = "harmless" // and every record was there
	stale    outcome = "stale"    // some records are those of an older commit, or absent, and nothing tells
)

// begin sets up case n. Consecutive numbers go through the files first, then through the modes, then through the kinds
// of damage.
func (w *worker) begin(n int) {
	which := n % len(w.all)
	rest := n / len(w.all)
	w.mode = modes[rest%len(modes)]
	nth, round := rest/len(modes)%(len(kinds)+1), rest/len(modes)/(len(kinds)+1)
	f := w.all[which]
	w.damage = &damage{
		rnd: rand.New(rand.NewPCG(1, uint64(n))), round: round*len(modes) + rest%len(modes), of: f, parts: w.parts[which],
		file: bytes.Clone(f.File), size: max(f.Size, int64(len(f.File))),
	}
	w.other = w.all[w.rnd.IntN(len(w.all))]
	if nth < len(kinds) {
		w.kind = kinds[nth].name
		kinds[nth].do(w.damage)
		if few := kinds[nth].few && w.round >= len(w.parts[which].pages); few || !w.touched() {
			w.more()
		}
	} else {
		w.kind = "several"
		w.several()
	}
	w.outcome, w.fault, w.own = harmless, nil, map[string][]version{}
	w.model = f.Now
	w.crash = w.crash && w.mode != underOpen
	if w.crash {
		w.model = f.Was
	}
	w.committed = w.model
}

func (w *worker) String() string {
	text := fmt.Sprintf("%s; %s: %s", w.of.Name, w.kind, strings.Join(w.what, ", "))
	if w.fault != nil {
		text += ": " + w.fault.Error()
	}
	return text
}

// hash returns a number that differs for different damage.
func (w *worker) hash() uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, w.mode, w.of.Name, w.what)
	return h.Sum64()
}

// broken notes that a promise was broken. Only the first one of a case is kept.
func (w *worker) broken(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf(format, args...)
	}
}

func (w *worker) run(n int) {
	w.begin(n)
	defer func() {
		if p := recover(); p != nil {
			w.broken("panic: %v", p)
		}
	}()
	if w.mode == underOpen {
		w.damageUnderOpen()
	} else {
		w.damageAndOpen()
	}
}

// write writes the file with the given content and size.
func (w *worker) write(content []byte, size int64) {
	require.NoError(w.t, os.WriteFile(w.path, content, 0o600))
	require.NoError(w.t, os.Truncate(w.path, size))
}

func (w *worker) check() error { return file.Check(w.t.Context(), w.path, file.Options{}) }

func (w *worker) open() (*file.Store, error) {
	if w.mode == large {
		return file.OpenAsLarge(w.t.Context(), w.path)
	}
	return file.Open(w.t.Context(), w.path, file.Options{})
}

func (w *worker) damageAndOpen() {
	w.write(w.file, w.size)
	checked := w.check()
	s, err := w.open()
	w.damageOnly(checked, "Check")
	w.damageOnly(err, "Open")
	switch {
	case w.certain && checked == nil:
		w.broken("Check finds nothing")
	case w.crash && checked != nil:
		w.broken("refused after a crash: %w", checked)
	case err != nil && checked == nil:
		w.broken("Check finds nothing, and Open %w", err)
	case w.mode == whole && err == nil && checked != nil:
		w.broken("Open finds nothing, and Check %w", checked)
	}
	if err != nil {
		w.outcome = refused
		after, err := os.ReadFile(w.path)
		require.NoError(w.t, err)
		if int64(len(after)) != w.size || !bytes.Equal(after[:len(w.file)], w.file) || len(bytes.Trim(after[len(w.file):], "\x00")) > 0 {
			w.broken("the file was changed")
		}
		return
	}
	w.use(s, checked == nil)
	w.again(checked == nil)
}

// damageUnderOpen damages the file while it is open, as another program or the disk could.
func (w *worker) damageUnderOpen() {
	w.write(w.of.File, max(w.of.Size, int64(len(w.of.File))))
	s, err := w.open()
	require.NoError(w.t, err)
	f, err := os.OpenFile(w.path, os.O_WRONLY, 0)
	require.NoError(w.t, err)
	for at := 0; at < len(w.file); at += 512 {
		end := min(at+512, len(w.file))
		if end > len(w.of.File) || !bytes.Equal(w.file[at:end], w.of.File[at:end]) {
			_, err := f.WriteAt(w.file[at:end], int64(at))
			require.NoError(w.t, err)
		}
	}
	if w.size != max(w.of.Size, int64(len(w.of.File))) {
		require.NoError(w.t, f.Truncate(w.size))
	}
	require.NoError(w.t, f.Close())
	w.use(s, false)
	w.again(false)
}

// use reads all records and makes some commits. If the store is sound, all of this must succeed.
func (w *worker) use(s *file.Store, sound bool) {
	if got := w.list(s, sound, w.crash || sound && w.telling()); sound {
		w.model = got
	}
	for i := range 3 {
		w.commit(s, sound, i)
	}
	w.list(s, sound, sound)
	if err := s.Close(); err != nil {
		w.damageOnly(err, "Close")
		w.mustNotFail(sound, err, "Close")
	}
}

// again opens the file a second time and reads it.
func (w *worker) again(sound bool) {
	checked := w.check()
	w.damageOnly(checked, "Check afterwards")
	w.mustNotFail(sound, checked, "Check afterwards")
	s, err := w.open()
	w.damageOnly(err, "Open afterwards")
	if checked == nil && err != nil {
		w.broken("Check afterwards finds nothing, and Open %w", err)
	}
	if err != nil {
		w.outcome = found
		return
	}
	w.list(s, checked == nil, sound)
	if err := s.Close(); err != nil {
		w.damageOnly(err, "Close afterwards")
		w.mustNotFail(checked == nil, err, "Close afterwards")
	}
}

// list reads all records in both directions and one by one, and returns them. If exact is set, they must be the records
// of the model.
func (w *worker) list(s *file.Store, sound, exact bool) contents {
	got := contents{}
	var keys []string
	ended := true
	for rec, err := range s.List(w.t.Context(), store.Query{}) {
		if err != nil {
			w.damageOnly(err, "List")
			w.mustNotFail(sound, err, "List")
			ended = false
			break
		}
		w.accept(rec, "List")
		got[rec.Key] = version{rec.Revision, string(rec.Value)}
		keys = append(keys, rec.Key)
	}
	if !slices.IsSorted(keys) || len(keys) != len(got) {
		w.broken("List is out of order")
	}
	if !maps.Equal(got, w.model) {
		switch {
		case exact || ended && w.telling():
			w.broken("List of a sound store has %d records that are not those committed", len(got))
		case w.outcome == harmless:
			w.outcome = stale
		}
	}
	w.listBack(s, sound, got, keys)
	w.getEach(s, sound, got)
	return got
}

// listBack reads all records in reverse. If the store is sound, they must be those that a list has got.
func (w *worker) listBack(s *file.Store, sound bool, got contents, keys []string) {
	var back []string
	for rec, err := range s.List(w.t.Context(), store.Query{Reverse: true}) {
		if err != nil {
			w.damageOnly(err, "List in reverse")
			w.mustNotFail(sound, err, "List in reverse")
			break
		}
		w.accept(rec, "List in reverse")
		back = append(back, rec.Key)
		if sound && got[rec.Key] != (version{rec.Revision, string(rec.Value)}) {
			w.broken("List in reverse has another %q", rec.Key)
		}
	}
	slices.Reverse(back)
	if sound && !slices.Equal(keys, back) {
		w.broken("List in reverse has other keys")
	}
}

// getEach reads the records of the model one by one. If the store is sound, they must be those that a list has got.
func (w *worker) getEach(s *file.Store, sound bool, got contents) {
	for key := range w.model {
		rec, err := s.Get(w.t.Context(), key)
		switch {
		case err == nil:
			w.accept(rec, "Get")
			if sound && got[key] != (version{rec.Revision, string(rec.Value)}) {
				w.broken("Get has another %q", key)
			}
		case errors.Is(err, store.ErrNotFound):
			if _, ok := got[key]; ok && sound || w.telling() && !w.wide && len(w.own) == 0 {
				w.broken("Get does not find %q", key)
			}
			if w.outcome == harmless {
				w.outcome = stale
			}
		default:
			w.damageOnly(err, "Get")
			w.mustNotFail(sound, err, "Get")
			if strings.Contains(err.Error(), "record ") && !strings.Contains(err.Error(), strconv.Quote(key)) {
				w.broken("Get does not name %q: %w", key, err)
			}
		}
	}
}

// telling reports whether the damage is of a kind that the store must detect wherever it matters.
func (w *worker) telling() bool { return !w.damage.stale && !w.foreign }

// commit makes a commit that changes a record, adds one and removes one.
func (w *worker) commit(s *file.Store, sound bool, nth int) {
	ops := []store.Op{store.Put(fmt.Sprintf("new/%d", nth), []byte(w.kind)).IfAbsent()}
	if len(w.model) > 1 {
		keys := slices.Sorted(maps.Keys(w.model))
		i := w.rnd.IntN(len(keys))
		ops = append(ops, store.Put(keys[i], bytes.Repeat([]byte("new "), w.rnd.IntN(300))).If(w.model[keys[i]].Revision))
		if j := w.rnd.IntN(len(keys)); j != i {
			ops = append(ops, store.Delete(keys[j]))
		}
	}
	rev, err := s.Commit(w.t.Context(), ops...)
	if err != nil {
		if !errors.Is(err, store.ErrConflict) {
			w.damageOnly(err, "Commit")
		}
		w.mustNotFail(sound, err, "Commit")
		if !errors.Is(err, store.ErrUnknown) {
			return
		}
	}
	if err == nil {
		w.model = maps.Clone(w.model)
	}
	for _, op := range ops {
		v := version{rev, string(op.Value())}
		switch {
		case op.Removes():
			delete(w.model, op.Key())
		case err == nil:
			w.model[op.Key()] = v
			w.own[op.Key()] = append(w.own[op.Key()], v)
		}
	}
}

// accept checks a record that a read has returned: it must have been committed.
func (w *worker) accept(rec store.Record, by string) {
	v := version{rec.Revision, string(rec.Value)}
	switch {
	case w.committed[rec.Key] == v, slices.Contains(w.own[rec.Key], v):
	case w.damage.stale && w.of.has(rec):
	case w.foreign && w.other.has(rec):
	default:
		w.broken("%s returns %q with a value that was never committed, revision %d: %.40q", by, rec.Key, rec.Revision, rec.Value)
	}
}

// damageOnly checks that an error wraps ErrCorrupt and names the file.
func (w *worker) damageOnly(err error, of string) {
	switch {
	case err == nil:
	case !errors.Is(err, store.ErrCorrupt):
		w.broken("%s returns an error that is not of damage: %w", of, err)
	case !strings.Contains(err.Error(), w.path):
		w.broken("%s does not name the file: %w", of, err)
	}
	if err != nil && w.outcome == harmless {
		w.outcome = found
	}
}

func (w *worker) mustNotFail(sound bool, err error, of string) {
	if err != nil && sound {
		w.broken("%s fails on a sound store: %w", of, err)
	}
}
