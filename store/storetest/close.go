package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

var closeClaims = []claim{
	{"closing twice returns nil", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		for range 2 {
			if err := s.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
		}
	}},

	{"get after close returns closed", func(t testing.TB, h Harness) {
		s := closed(t, h, "a")
		for _, key := range []string{"a", "absent"} {
			if rec, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrClosed) {
				t.Fatalf("get %q: got %s and error %v, want %v", key, show(rec), err, store.ErrClosed)
			}
		}
	}},

	{"list after close yields closed", func(t testing.TB, h Harness) {
		s := closed(t, h, "a", "b")
		wantOnlyError(t, t.Context(), s, store.ErrClosed)
	}},

	{"commit after close returns closed", func(t testing.TB, h Harness) {
		s := closed(t, h, "a")
		refused(t, s, store.ErrClosed, store.Put("b", nil))
		refused(t, s, store.ErrClosed, store.Check("b", 0))
		refused(t, s, store.ErrClosed)
	}},

	{"a range under way when the store is closed yields closed", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b", "c")
		n := 0
		for rec, err := range s.List(t.Context(), store.Query{}) {
			if n++; n > 1 {
				wantLast(t, rec, err, store.ErrClosed)
				continue
			}
			if err := s.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
		}
		if n != 2 {
			t.Fatalf("the range went round %d times, want one record and the error", n)
		}
	}},

	{"close during calls lets them finish or refuses them", func(t testing.TB, h Harness) {
		s := openWith(t, h, "there")
		closeDuringCommits(t, s)
		refused(t, s, store.ErrClosed, store.Put("late", nil))
	}},
}

func closed(t testing.TB, h Harness, keys ...string) store.Store {
	t.Helper()
	s := openWith(t, h, keys...)
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return s
}

// closeDuringCommits closes a store while other goroutines use it. It returns the keys whose commits returned nil. The
// store must have the key "there".
func closeDuringCommits(t testing.TB, s store.Store) []string {
	t.Helper()
	var (
		done  [workers][]string
		count atomic.Int64
		begun = make(chan struct{})
		begin = sync.OnceFunc(func() { close(begun) })
	)
	concurrently(workers+2, func(w int) {
		switch w {
		case workers: // closes once some commits have returned and others are under way
			<-begun
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		case workers + 1:
			getUntilClosed(t, s, "there")
		default:
			defer begin()
			done[w] = commitUntilClosed(t, s, fmt.Sprint("w", w), func() {
				if count.Add(1) == workers*2 {
					begin()
				}
			})
		}
	})
	return slices.Concat(done[:]...)
}

// getUntilClosed gets a record again and again until the store returns ErrClosed.
func getUntilClosed(t testing.TB, s store.Store, key string) {
	for {
		if _, err := s.Get(t.Context(), key); errors.Is(err, store.ErrClosed) {
			return
		} else if err != nil {
			t.Errorf("get: %v", err)
			return
		}
	}
}

// commitUntilClosed commits one key after the other until the store returns ErrClosed. It calls committed after each
// commit, and returns the keys whose commits returned nil.
func commitUntilClosed(t testing.TB, s store.Store, prefix string, committed func()) (keys []string) {
	for i := 0; ; i++ {
		key := fmt.Sprintf("%s/%d", prefix, i)
		_, err := s.Commit(t.Context(), store.Put(key, nil))
		if errors.Is(err, store.ErrClosed) {
			return keys
		}
		if err != nil {
			t.Errorf("commit: %v", err)
			return keys
		}
		keys = append(keys, key)
		committed()
	}
}
