package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

// These are enough goroutines and rounds for calls to meet, and few enough for a durable store to be quick.
const (
	workers = 8
	rounds  = 12
)

// concurrently runs fn on n goroutines, numbered from 0, and waits for them. fn must report a failure with Errorf and
// not with Fatalf, because only the goroutine of a test may end the test.
func concurrently(n int, fn func(worker int)) {
	var (
		group sync.WaitGroup
		start = make(chan struct{})
	)
	for worker := range n {
		group.Go(func() {
			<-start
			fn(worker)
		})
	}
	close(start)
	group.Wait()
}

var concurrencyClaims = []claim{
	{"concurrent commits behave as if one came after the other", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		s := both[0]
		commit(t, s, store.Put("count", []byte("0")))
		concurrently(workers, func(w int) {
			s := both.of(w)
			for done := 0; done < rounds; {
				rec, err := s.Get(t.Context(), "count")
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				n, _ := strconv.Atoi(string(rec.Value))
				runtime.Gosched() // a commit of another comes between
				_, err = s.Commit(t.Context(), store.Put("count", []byte(strconv.Itoa(n+1))).If(rec.Revision))
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
		if got := string(get(t, s, "count").Value); got != strconv.Itoa(workers*rounds) {
			t.Fatalf("%d increments left the count at %s", workers*rounds, got)
		}
	}},

	{"of concurrent puts if absent one succeeds", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		s := both[0]
		for round := range rounds {
			key := fmt.Sprint("key", round)
			errs := make([]error, workers)
			concurrently(workers, func(w int) {
				_, errs[w] = both.of(w).Commit(t.Context(), store.Put(key, []byte{byte(w)}).IfAbsent())
			})
			winners := 0
			for w, err := range errs {
				switch {
				case err == nil:
					winners++
					if got := get(t, s, key).Value; len(got) != 1 || int(got[0]) != w {
						t.Fatalf("commit %d succeeded, but the record is %v", w, got)
					}
				case !errors.Is(err, store.ErrConflict):
					t.Fatalf("commit: got error %v, want %v", err, store.ErrConflict)
				}
			}
			if winners != 1 {
				t.Fatalf("%d commits of one key succeeded, want 1", winners)
			}
		}
	}},

	{"a conflict among concurrent commits fails its own caller alone", func(t testing.TB, h Harness) {
		both := openHandles(t, h, "there")
		s := both[0]
		concurrently(workers, func(w int) {
			s := both.of(w / 2) // each handle has callers of both kinds
			for i := range rounds {
				key := fmt.Sprintf("w%d/%d", w, i)
				// The commits of odd workers conflict. Their writes must leave no trace, and must take no other write
				// with them.
				if w%2 == 1 {
					_, err := s.Commit(t.Context(), store.Put(key, nil), store.Check("there", 0))
					if !errors.Is(err, store.ErrConflict) {
						t.Errorf("commit: got error %v, want %v", err, store.ErrConflict)
					}
				} else if _, err := s.Commit(t.Context(), store.Put(key, nil).IfAbsent()); err != nil {
					t.Errorf("commit: %v", err)
				}
			}
		})
		for w := range workers {
			want := rounds * (1 - w%2)
			if got := len(listKeys(t, s, store.Query{Prefix: fmt.Sprintf("w%d/", w)})); got != want {
				t.Fatalf("caller %d left %d records, want %d", w, got, want)
			}
		}
	}},

	{"concurrent commits have distinct revisions, which their records have", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		s := both[0]
		revisions := make([][]store.Revision, workers)
		concurrently(workers, func(w int) {
			s := both.of(w)
			for i := range rounds {
				rev, err := s.Commit(t.Context(), store.Put(fmt.Sprintf("w%d/%d", w, i), nil), store.Put("last", []byte{byte(w)}))
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				revisions[w] = append(revisions[w], rev)
			}
		})
		seen := map[store.Revision]bool{}
		var newest store.Record
		for w := range revisions {
			for i, rev := range revisions[w] {
				if seen[rev] || rev <= 0 || i > 0 && rev <= revisions[w][i-1] {
					t.Fatalf("caller %d got the revisions %v, of which %d is not new", w, revisions[w], rev)
				}
				seen[rev] = true
				wantRecord(t, s, fmt.Sprintf("w%d/%d", w, i), "", rev)
				if rev > newest.Revision {
					newest = store.Record{Key: "last", Value: []byte{byte(w)}, Revision: rev}
				}
			}
		}
		same(t, get(t, s, "last"), newest)
	}},

	{"readers never see half a commit", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		s := both[0]
		// Each commit writes one number to all three keys, and the numbers grow. A reader that has read a number from
		// one key must therefore find no smaller number in another key afterwards.
		keys := []string{"a", "m", "z"}
		put := func(n int) error {
			var ops []store.Op
			for _, key := range keys {
				ops = append(ops, store.Put(key, []byte(strconv.Itoa(n))))
			}
			_, err := s.Commit(t.Context(), ops...)
			return err
		}
		if err := put(0); err != nil {
			t.Fatalf("commit: %v", err)
		}
		written := make(chan struct{})
		concurrently(3, func(w int) {
			if w == 0 {
				defer close(written)
				for n := 1; n <= workers*rounds; n++ {
					if err := put(n); err != nil {
						t.Errorf("commit: %v", err)
						return
					}
				}
				return
			}
			for last, i := 0, w; ; i += w {
				rec, err := both.of(w).Get(t.Context(), keys[i%len(keys)])
				n, _ := strconv.Atoi(string(rec.Value))
				if err != nil || n < last {
					t.Errorf("read %d from %s after %d from another key, error %v", n, rec.Key, last, err)
					return
				}
				last = n
				select {
				case <-written:
					return
				default:
				}
			}
		})
	}},

	{"get sees every commit that returned before it", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		concurrently(workers, func(w int) {
			s := both.of(w / 2)
			for i := range rounds {
				key := fmt.Sprint("w", w)
				rev, err := both.of(w).Commit(t.Context(), store.Put(key, []byte{byte(i)}))
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				rec, err := s.Get(t.Context(), key)
				if err != nil || rec.Revision != rev || string(rec.Value) != string([]byte{byte(i)}) {
					t.Errorf("after revision %d was committed, get returned %s and error %v", rev, show(rec), err)
				}
				for rec, err := range s.List(t.Context(), store.Query{Prefix: key}) {
					if err != nil || rec.Revision != rev {
						t.Errorf("after revision %d was committed, list yielded %s and error %v", rev, show(rec), err)
					}
				}
			}
		})
	}},

	{"a list during commits has each key once, in order, with a value that was written", func(t testing.TB, h Harness) {
		const standing = 300
		both := openHandles(t, h, numbered("k", standing)...)
		s := both[0]
		written := make(chan struct{})
		concurrently(3, func(w int) {
			if w == 0 {
				defer close(written)
				for i := range workers * rounds {
					key := fmt.Sprintf("k%05d", i*37%standing)
					_, err := s.Commit(t.Context(), store.Put(key, valueOf(key)), store.Put(key+"/new", valueOf(key+"/new")),
						store.Delete(fmt.Sprintf("k%05d/new", (i-3)*37%standing)))
					if err != nil {
						t.Errorf("commit: %v", err)
						return
					}
				}
				return
			}
			for {
				if problem := inspect(t.Context(), both.of(w), w == 2, standing); problem != "" {
					t.Errorf("%s", problem)
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

	{"what a commit with a departing caller reports is what happened", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		concurrently(workers, func(w int) {
			s := both.of(w)
			for i := range rounds {
				ctx, cancel := context.WithCancelCause(t.Context())
				var leaving sync.WaitGroup
				leaving.Go(func() { cancel(errCause) })
				key := fmt.Sprintf("w%d/%02d", w, i)
				_, err := s.Commit(ctx, store.Put(key, nil), store.Put(key+"/too", nil))
				leaving.Wait()
				want := 2
				if errors.Is(err, errCause) {
					want = 0
				} else if err != nil {
					t.Errorf("commit: %v", err)
				}
				got := 0
				for range s.List(t.Context(), store.Query{Prefix: key}) {
					got++
				}
				if got != want {
					t.Errorf("commit of two records returned the error %v, and %d of them are there", err, got)
				}
			}
		})
	}},
}

// inspect ranges over the store once and returns what is wrong with what it has seen, or an empty string.
func inspect(ctx context.Context, s store.Store, reverse bool, standing int) string {
	last, seen := "", 0
	for rec, err := range s.List(ctx, store.Query{Prefix: "k", Reverse: reverse}) {
		switch {
		case err != nil:
			return fmt.Sprintf("list: %v", err)
		case last != "" && (rec.Key > last) == reverse || rec.Key == last:
			return fmt.Sprintf("list yielded %q after %q", rec.Key, last)
		case string(rec.Value) != "v:"+rec.Key:
			return fmt.Sprintf("list yielded %s, which nobody wrote", show(rec))
		}
		last = rec.Key
		if len(rec.Key) == len("k00000") {
			seen++
		}
	}
	if seen != standing {
		return fmt.Sprintf("list yielded %d of the %d keys that were there throughout", seen, standing)
	}
	return ""
}
