package storetest

import (
	"errors"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

var handleClaims = []claim{
	{"what one handle commits every other one sees", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		var last store.Revision
		for i := range 20 {
			mine, other := both.of(i), both.of(i+1)
			rev := commit(t, mine, store.Put("a", []byte{byte(i)}))
			wantRecord(t, other, "a", string([]byte{byte(i)}), rev)
			if rev <= last {
				t.Fatalf("a commit has revision %d, and one before it through the other handle %d", rev, last)
			}
			if got := commit(t, other); got < rev {
				t.Fatalf("a commit without ops returned revision %d after one of revision %d had returned", got, rev)
			}
			refused(t, other, store.ErrConflict, store.Check("a", last))
			last = rev
		}
		commit(t, both[0], store.Delete("a"))
		wantAbsent(t, both[1], "a")
	}},

	{"closing a handle leaves the others", func(t testing.TB, h Harness) {
		both := openHandles(t, h, "a")
		if err := both[0].Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		refused(t, both[0], store.ErrClosed, store.Put("b", nil))
		rev := commit(t, both[1], store.Put("b", nil))
		again := join(t, h, both[1])
		wantKeys(t, again, store.Query{}, "a", "b")
		wantRecord(t, again, "b", "", rev)
	}},

	{"a shared store is a Watcher", func(t testing.TB, h Harness) {
		for _, s := range openHandles(t, h) {
			if _, ok := s.(store.Watcher); !ok {
				t.Fatalf("a store with a Join is a %T, which is no store.Watcher", s)
			}
		}
	}},

	{"all handles state the same limits", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		if a, b := store.LimitsOf(both[0]), store.LimitsOf(both[1]); a != b {
			t.Fatalf("one handle states %+v and the other %+v", a, b)
		}
	}},

	{"a caller that has seen a revision sees everything before it", func(t testing.TB, h Harness) {
		both := openHandles(t, h, "a", "b")
		// One goroutine writes a and then b, with equal numbers. Whoever has found a number in b must find no smaller one
		// in a, through whichever handle.
		written := make(chan struct{})
		concurrently(3, func(w int) {
			if w == 0 {
				defer close(written)
				for n := range workers * rounds {
					for i, key := range []string{"a", "b"} {
						if _, err := both.of(i).Commit(t.Context(), store.Put(key, []byte{byte(n)})); err != nil {
							t.Errorf("commit: %v", err)
							return
						}
					}
				}
				return
			}
			for {
				b, err := both.of(w).Get(t.Context(), "b")
				a, other := both.of(w+1).Get(t.Context(), "a")
				if err != nil || other != nil {
					t.Errorf("get: %v", errors.Join(err, other))
					return
				}
				if len(b.Value) == 1 && (len(a.Value) != 1 || a.Value[0] < b.Value[0]) {
					t.Errorf("after %s another handle returned %s, which was written before", show(b), show(a))
					return
				}
				select {
				case <-written:
					return
				default:
				}
			}
		})
	}},
}
