package storetest

import (
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

var durabilityClaims = []claim{
	{"records survive a reopen", func(t testing.TB, h Harness) {
		s := openWith(t, h, awkward...)
		rev := commit(t, s, store.Put("a", []byte("changed")), store.Put("new", nil))
		before := list(t, s, store.Query{})
		s = reopen(t, h, s)
		after := list(t, s, store.Query{})
		if len(after) != len(before) {
			t.Fatalf("after the reopen there are %d records, want %d", len(after), len(before))
		}
		for i := range before {
			same(t, after[i], before[i])
		}
		wantRecord(t, s, "a", "changed", rev)
		wantRecord(t, s, "new", "", rev)
	}},

	{"removals survive a reopen", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b", "c")
		commit(t, s, store.Delete("b"))
		s = reopen(t, h, s)
		wantAbsent(t, s, "b")
		wantKeys(t, s, store.Query{}, "a", "c")
	}},

	{"a failed commit leaves nothing to a reopen", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		refused(t, s, store.ErrConflict, store.Put("b", nil), store.Delete("a").If(1<<40))
		wantMalformed(t, s, "an empty key", store.Put("", nil))
		s = reopen(t, h, s)
		wantKeys(t, s, store.Query{}, "a")
	}},

	{"revisions go on growing after a reopen", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		var last store.Revision
		for range 3 {
			commit(t, s, store.Put("b", nil))
			// The store must remember its newest revision even though no record has this revision.
			last = commit(t, s, store.Delete("b"))
			s = reopen(t, h, s)
			between(t, s, last)
		}
	}},

	{"conditions hold over a reopen", func(t testing.TB, h Harness) {
		s := open(t, h)
		rev := commit(t, s, store.Put("a", []byte("1")))
		s = reopen(t, h, s)
		refused(t, s, store.ErrConflict, store.Put("a", nil).IfAbsent())
		refused(t, s, store.ErrConflict, store.Put("a", nil).If(rev+1))
		commit(t, s, store.Put("a", []byte("2")).If(rev))
		refused(t, s, store.ErrConflict, store.Put("a", nil).If(rev))
	}},

	{"what was acknowledged while the store closed is there after a reopen", func(t testing.TB, h Harness) {
		s := openWith(t, h, "there")
		keys := closeDuringCommits(t, s)
		s = reopen(t, h, s)
		for _, key := range keys {
			get(t, s, key)
		}
		if got := len(listKeys(t, s, store.Query{Prefix: "w"})); got != len(keys) {
			t.Fatalf("%d commits returned nil, and %d records are there", len(keys), got)
		}
	}},
}
