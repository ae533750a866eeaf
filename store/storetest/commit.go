package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

var commitClaims = []claim{
	{"commit applies all of its ops", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b", "c")
		kept := get(t, s, "c").Revision
		rev := commit(t, s,
			store.Put("a", []byte("new")), store.Delete("b"), store.Check("c", kept), store.Put("d", []byte("d")).IfAbsent())
		wantRecord(t, s, "a", "new", rev)
		wantAbsent(t, s, "b")
		wantRecord(t, s, "c", "v:c", kept)
		wantRecord(t, s, "d", "d", rev)
	}},

	{"a commit that fails applies none of its ops", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b", "c")
		before := list(t, s, store.Query{})
		for _, failing := range []store.Op{
			store.Check("c", 0), store.Put("c", nil).IfAbsent(), store.Delete("c").If(before[2].Revision + 100),
		} {
			refused(t, s, store.ErrConflict, store.Put("a", []byte("new")), store.Delete("b"), store.Put("d", nil), failing)
			refused(t, s, store.ErrConflict, failing, store.Put("a", []byte("new")), store.Delete("b"), store.Put("d", nil))
		}
		after := list(t, s, store.Query{})
		if len(after) != len(before) {
			t.Fatalf("the store has %d records, want the %d from before", len(after), len(before))
		}
		for i := range before {
			same(t, after[i], before[i])
		}
	}},

	{"a put with a revision holds at that revision alone", func(t testing.TB, h Harness) {
		s := open(t, h)
		first := commit(t, s, store.Put("a", []byte("1")))
		refused(t, s, store.ErrConflict, store.Put("a", []byte("x")).If(first+1))
		refused(t, s, store.ErrConflict, store.Put("absent", []byte("x")).If(first))
		wantRecord(t, s, "a", "1", first)
		wantAbsent(t, s, "absent")
		second := commit(t, s, store.Put("a", []byte("2")).If(first))
		refused(t, s, store.ErrConflict, store.Put("a", []byte("x")).If(first))
		wantRecord(t, s, "a", "2", second)
	}},

	{"a put if absent holds when no record has the key", func(t testing.TB, h Harness) {
		s := open(t, h)
		rev := commit(t, s, store.Put("a", []byte("1")).IfAbsent())
		refused(t, s, store.ErrConflict, store.Put("a", []byte("x")).IfAbsent())
		wantRecord(t, s, "a", "1", rev)
		commit(t, s, store.Delete("a"))
		rev = commit(t, s, store.Put("a", []byte("2")).IfAbsent())
		wantRecord(t, s, "a", "2", rev)
	}},

	{"revision zero stands for absent", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		refused(t, s, store.ErrConflict, store.Put("a", nil).If(0))
		refused(t, s, store.ErrConflict, store.Check("a", 0))
		commit(t, s, store.Put("b", nil).If(0), store.Check("c", 0))
	}},

	{"a put without a condition replaces what is there", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		rev := commit(t, s, store.Put("a", []byte("2")))
		wantRecord(t, s, "a", "2", rev)
		wantKeys(t, s, store.Query{}, "a")
	}},

	{"delete removes the record", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b")
		commit(t, s, store.Delete("a"))
		wantAbsent(t, s, "a")
		wantKeys(t, s, store.Query{}, "b")
	}},

	{"delete of what is not there is no fault", func(t testing.TB, h Harness) {
		s := openWith(t, h, "b")
		commit(t, s, store.Delete("a"))
		commit(t, s, store.Delete("a"), store.Put("c", nil))
		wantKeys(t, s, store.Query{}, "b", "c")
	}},

	{"delete obeys its condition", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		rev := get(t, s, "a").Revision
		refused(t, s, store.ErrConflict, store.Delete("a").If(rev+1))
		refused(t, s, store.ErrConflict, store.Delete("absent").If(rev))
		refused(t, s, store.ErrConflict, store.Delete("a").IfAbsent())
		wantKeys(t, s, store.Query{}, "a")
		commit(t, s, store.Delete("a").If(rev))
		wantAbsent(t, s, "a")
	}},

	{"check makes the commit depend on a record", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		rev := get(t, s, "a").Revision
		refused(t, s, store.ErrConflict, store.Check("a", rev+1), store.Put("b", nil))
		refused(t, s, store.ErrConflict, store.Check("a", 0), store.Put("b", nil))
		refused(t, s, store.ErrConflict, store.Put("b", nil), store.Check("absent", rev))
		wantAbsent(t, s, "b")
		commit(t, s, store.Check("a", rev), store.Check("absent", 0), store.Put("b", nil))
	}},

	{"check writes nothing", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		rev := get(t, s, "a").Revision
		commit(t, s, store.Check("a", rev), store.Check("absent", 0), store.Put("b", nil))
		wantRecord(t, s, "a", "v:a", rev)
		wantKeys(t, s, store.Query{}, "a", "b")
	}},

	{"checks alone write nothing and return a revision between what was and what comes", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		rev := get(t, s, "a").Revision
		newest := commit(t, s, store.Put("b", nil))
		for range 2 {
			newest = between(t, s, newest, store.Check("a", rev), store.Check("absent", 0))
		}
		refused(t, s, store.ErrConflict, store.Check("a", newest))
		wantRecord(t, s, "a", "v:a", rev)
	}},

	{"a commit without ops returns a revision between what was and what comes", func(t testing.TB, h Harness) {
		s := open(t, h)
		newest := between(t, s, 0)
		between(t, s, newest)
	}},

	{"each commit has a greater revision than all before it", func(t testing.TB, h Harness) {
		s := open(t, h)
		var last store.Revision
		for i := range 20 {
			key := fmt.Sprint("k", i%3)
			op := store.Put(key, []byte{byte(i)})
			if i%5 == 4 {
				op = store.Delete(key)
			}
			rev := commit(t, s, op)
			if rev <= last {
				t.Fatalf("commit %d has revision %d, want more than %d", i+1, rev, last)
			}
			last = rev
		}
	}},

	{"the records of a commit have its revision and the others keep theirs", func(t testing.TB, h Harness) {
		s := open(t, h)
		first := commit(t, s, store.Put("a", nil), store.Put("b", nil), store.Put("c", nil))
		second := commit(t, s, store.Put("b", nil))
		wantRecord(t, s, "a", "", first)
		wantRecord(t, s, "b", "", second)
		wantRecord(t, s, "c", "", first)
	}},

	{"a malformed op is refused with none of the sentinels", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		var crowd []store.Op
		for _, key := range numbered("n", 40) {
			crowd = append(crowd, store.Put(key, nil))
		}
		wantMalformed(t, s, "the zero op", store.Op{})
		wantMalformed(t, s, "an empty key", store.Put("", nil))
		wantMalformed(t, s, "an empty key in a delete", store.Delete(""))
		wantMalformed(t, s, "an empty key in a check", store.Check("", 0))
		wantMalformed(t, s, "an over-long key in a delete", store.Delete(strings.Repeat("k", store.MaxKey+1)))
		wantMalformed(t, s, "two puts for one key", store.Put("b", nil), store.Put("c", nil), store.Put("b", nil))
		wantMalformed(t, s, "a check and a put for one key", store.Check("b", 0), store.Put("b", nil))
		wantMalformed(t, s, "two ops for one key among many", append(crowd, store.Delete("n00000"))...)
		wantMalformed(t, s, "a conflict and an empty key", store.Check("a", 0), store.Put("", nil))
		wantKeys(t, s, store.Query{}, "a")
	}},

	{"commit keeps no reference to the values", func(t testing.TB, h Harness) {
		s := open(t, h)
		value := []byte("before")
		rev := commit(t, s, store.Put("a", value))
		copy(value, "AFTER!")
		wantRecord(t, s, "a", "before", rev)
	}},

	{"commit does not change the values", func(t testing.TB, h Harness) {
		s := open(t, h)
		value := append(make([]byte, 0, 64), "value"...)
		commit(t, s, store.Put("a", value))
		if tail := string(value[:16]); tail != "value"+strings.Repeat("\x00", 11) {
			t.Fatalf("the bytes that were committed, and those behind them, are now %q", tail)
		}
	}},

	{"commit with an ended context writes nothing and returns its cause", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		if _, err := s.Commit(ended(t), store.Put("b", nil), store.Delete("a")); !errors.Is(err, errCause) {
			t.Fatalf("got error %v, want the cause of the context", err)
		}
		wantKeys(t, s, store.Query{}, "a")
	}},
}

// wantMalformed commits a good op followed by ops, of which one is malformed. It expects an error that wraps none of
// the sentinels, and that nothing was written.
func wantMalformed(t testing.TB, s store.Store, what string, ops ...store.Op) {
	t.Helper()
	_, err := s.Commit(t.Context(), append([]store.Op{store.Put("good", nil)}, ops...)...)
	if err == nil {
		t.Fatalf("%s: commit returned nil", what)
	}
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			t.Fatalf("%s: got %v, want an error of its own", what, err)
		}
	}
	wantAbsent(t, s, "good")
}
