package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

// errCause is the cause with which the contexts of the suite end. It shows if a store returns context.Canceled instead
// of the cause.
var errCause = errors.New("storetest: the caller has left")

var sentinels = []error{
	store.ErrNotFound, store.ErrConflict, store.ErrClosed, store.ErrLocked, store.ErrCorrupt, store.ErrUnknown,
	store.ErrUnavailable, store.ErrGap,
}

func open(t testing.TB, h Harness) store.Store {
	t.Helper()
	s := h.Open(t)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// openWith opens a store that has a record for each key. The value of a record is "v:" followed by the key.
func openWith(t testing.TB, h Harness, keys ...string) store.Store {
	t.Helper()
	s := open(t, h)
	fill(t, s, keys...)
	return s
}

// fill commits records for the keys, fifty in a commit unless the store accepts less, in reverse order.
func fill(t testing.TB, s store.Store, keys ...string) {
	t.Helper()
	shuffled := slices.Clone(keys)
	slices.Reverse(shuffled)
	chunks := 50
	if most := store.LimitsOf(s).Ops; most > 0 {
		chunks = min(chunks, most)
	}
	for chunk := range slices.Chunk(shuffled, chunks) {
		ops := make([]store.Op, len(chunk))
		for i, key := range chunk {
			ops[i] = store.Put(key, valueOf(key))
		}
		commit(t, s, ops...)
	}
}

func valueOf(key string) []byte { return []byte("v:" + key) }

// numbered returns n keys in ascending order.
func numbered(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return keys
}

func reopen(t testing.TB, h Harness, s store.Store) store.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close before a reopen: %v", err)
	}
	again := h.Reopen(t, s)
	t.Cleanup(func() { _ = again.Close() })
	return again
}

// handles are two handles of one store if it is shared, and otherwise the store twice.
type handles [2]store.Store

// openHandles opens a store for concurrent callers.
func openHandles(t testing.TB, h Harness, keys ...string) handles {
	t.Helper()
	s := openWith(t, h, keys...)
	if h.Join == nil {
		return handles{s, s}
	}
	return handles{s, join(t, h, s)}
}

// of returns the handle of a caller with a number.
func (h handles) of(worker int) store.Store { return h[worker%len(h)] }

func join(t testing.TB, h Harness, s store.Store) store.Store {
	t.Helper()
	other := h.Join(t, s)
	t.Cleanup(func() { _ = other.Close() })
	return other
}

func ended(t testing.TB) context.Context {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	return ctx
}

func commit(t testing.TB, s store.Store, ops ...store.Op) store.Revision {
	t.Helper()
	rev, err := s.Commit(t.Context(), ops...)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return rev
}

// between commits ops that write nothing, and expects a revision that is not smaller than newest, and smaller than that of a commit
// afterwards. It returns the latter.
func between(t testing.TB, s store.Store, newest store.Revision, ops ...store.Op) (next store.Revision) {
	t.Helper()
	got := commit(t, s, ops...)
	next = commit(t, s, store.Put("next", nil))
	if got < newest || got >= next {
		t.Fatalf("a commit that writes nothing returned revision %d, want one from %d on and below %d, which the next commit has", got, newest, next)
	}
	return next
}

// refused commits ops and expects an error that wraps want.
func refused(t testing.TB, s store.Store, want error, ops ...store.Op) {
	t.Helper()
	if _, err := s.Commit(t.Context(), ops...); !errors.Is(err, want) {
		t.Fatalf("commit: got error %v, want %v", err, want)
	}
}

func get(t testing.TB, s store.Store, key string) store.Record {
	t.Helper()
	rec, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	return rec
}

func wantRecord(t testing.TB, s store.Store, key, value string, rev store.Revision) {
	t.Helper()
	same(t, get(t, s, key), store.Record{Key: key, Value: []byte(value), Revision: rev})
}

func wantAbsent(t testing.TB, s store.Store, key string) {
	t.Helper()
	if rec, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get %q: got %s and error %v, want %v", key, show(rec), err, store.ErrNotFound)
	}
	for rec, err := range s.List(t.Context(), store.Query{Prefix: key}) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if rec.Key == key {
			t.Fatalf("list has %s, which get does not find", show(rec))
		}
	}
}

func same(t testing.TB, got, want store.Record) {
	t.Helper()
	if got.Key != want.Key || string(got.Value) != string(want.Value) || got.Revision != want.Revision {
		t.Fatalf("got %s, want %s", show(got), show(want))
	}
}

func show(rec store.Record) string {
	value := string(rec.Value)
	if len(value) > 40 {
		value = fmt.Sprintf("%s... (%d bytes)", value[:40], len(value))
	}
	return fmt.Sprintf("{%q %q revision %d}", rec.Key, value, rec.Revision)
}

// list returns all records that q selects.
func list(t testing.TB, s store.Store, q store.Query) []store.Record {
	t.Helper()
	var recs []store.Record
	for rec, err := range s.List(t.Context(), q) {
		if err != nil {
			t.Fatalf("list %+v: %v", q, err)
		}
		recs = append(recs, rec)
	}
	return recs
}

func listKeys(t testing.TB, s store.Store, q store.Query) []string {
	t.Helper()
	var keys []string
	for _, rec := range list(t, s, q) {
		keys = append(keys, rec.Key)
	}
	return keys
}

func wantKeys(t testing.TB, s store.Store, q store.Query, want ...string) {
	t.Helper()
	if got := listKeys(t, s, q); !slices.Equal(got, want) {
		t.Fatalf("list of prefix %q, after %q, limit %d, reverse %t:\n got %q\nwant %q",
			q.Prefix, q.After, q.Limit, q.Reverse, got, want)
	}
}

// wantOnlyError expects that a list yields the error want, with a zero record, and nothing else.
func wantOnlyError(t testing.TB, ctx context.Context, s store.Store, want error) {
	t.Helper()
	n := 0
	for rec, err := range s.List(ctx, store.Query{}) {
		n++
		wantLast(t, rec, err, want)
	}
	if n != 1 {
		t.Fatalf("list yielded %d times, want the error %v alone", n, want)
	}
}

func wantLast(t testing.TB, rec store.Record, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("list: got %s and error %v, want the error %v", show(rec), err, want)
	}
	if rec.Key != "" || rec.Value != nil || rec.Revision != 0 {
		t.Fatalf("list: got %s with the error, want a zero record", show(rec))
	}
}
