package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// patience is how long the suite waits for a change that must come. A store that keeps its promise is never late by
// that much, and only a store that breaks it makes the suite wait. The tests of the suite itself wait less for the latter.
var patience = 30 * time.Second

var watchClaims = []claim{
	{"watch yields every key that a commit changes", func(t testing.TB, h Harness) {
		both := openHandles(t, h, "old")
		rev := commit(t, both[0])
		commit(t, both[0], store.Put("a", nil), store.Put("b", nil), store.Check("old", get(t, both[0], "old").Revision))
		commit(t, both[1], store.Delete("a"), store.Put("c", nil))
		last := commit(t, both[0], store.Put("b", []byte("2")))
		for _, s := range both {
			seen := watchUntil(t, s, "", rev, last)
			wantChanged(t, seen, "a", "b", "c")
		}
	}},

	{"watch begins after its revision", func(t testing.TB, h Harness) {
		s := openWith(t, h, "before", "again")
		rev := commit(t, s, store.Put("again", nil), store.Put("last", nil))
		next := commit(t, s, store.Put("again", nil), store.Put("new", nil))
		wantChanged(t, watchUntil(t, s, "", rev, next), "again", "new")
		wantChanged(t, watchUntil(t, s, "", rev-1, next), "again", "last", "new")
		wantChanged(t, watchUntil(t, s, "", 0, next), "again", "before", "last", "new")
	}},

	{"watch yields what is committed while it goes on", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		rev := commit(t, both[0], store.Put("first", nil)) - 1
		for i := range 5 {
			// The commit is made when the watch has told everything before it.
			key := fmt.Sprint("k", i)
			var last store.Revision
			for c := range watch(t, both[1], "", rev) {
				if last == 0 {
					last = commit(t, both.of(i), store.Put(key, nil))
				}
				if c.Key == key && c.Revision == last {
					break
				}
			}
			rev = last - 1 // so that the next watch has something to tell at its begin
		}
	}},

	{"watch keeps to its prefix", func(t testing.TB, h Harness) {
		s := open(t, h)
		commit(t, s, store.Put("a", nil), store.Put("b", nil), store.Put("b/1", nil), store.Put("c", nil))
		last := commit(t, s, store.Put("b/2", nil), store.Put("bc", nil))
		wantChanged(t, watchUntil(t, s, "b/", 0, last), "b/1", "b/2")
	}},

	{"the changes come in ascending order of their revisions", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		rev := commit(t, both[0])
		last := churn(t, both)
		var before store.Change
		for c := range watch(t, both[0], "", rev) {
			if c.Revision < before.Revision {
				t.Fatalf("the change of %q with revision %d came after one with %d", c.Key, c.Revision, before.Revision)
			}
			if before = c; c.Revision >= last && c.Key == "last" {
				break
			}
		}
	}},

	{"when a change comes all earlier ones have come", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		rev := commit(t, both[0])
		// The watcher has a copy of the records, made of the changes alone. At a revision that it was told without a
		// key, the copy has every record of an earlier revision.
		copied := map[string]store.Revision{}
		defer beside(func() { churn(t, both) })()
		for c := range watch(t, both[1], "", rev) {
			if c.Key != "" {
				copied[c.Key] = c.Revision
			} else {
				for _, rec := range list(t, both[0], store.Query{}) {
					if rec.Revision <= c.Revision && copied[rec.Key] < rec.Revision {
						t.Fatalf("everything up to revision %d was told, but not %s", c.Revision, show(rec))
					}
				}
			}
			if c.Key == "last" {
				break
			}
		}
		for _, rec := range list(t, both[0], store.Query{}) {
			if copied[rec.Key] < rec.Revision {
				t.Fatalf("the last change has come, but not %s", show(rec))
			}
		}
	}},

	{"what a change tells every handle sees", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		defer beside(func() { churn(t, both) })()
		for c := range watch(t, both[0], "", 0) {
			if c.Key == "" {
				continue
			}
			rec, err := both[1].Get(t.Context(), c.Key)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("get: %v", err)
			}
			if err == nil && rec.Revision < c.Revision {
				t.Fatalf("%q has changed at revision %d, and another handle returned %s", c.Key, c.Revision, show(rec))
			}
			if newest := commit(t, both[1]); newest < c.Revision {
				t.Fatalf("a change has revision %d, and the newest revision is %d", c.Revision, newest)
			}
			if c.Key == "last" {
				break
			}
		}
	}},

	{"a watch that is called again goes on without a gap", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		last := churn(t, both)
		var seen []store.Change
		for at, goesOn := store.Revision(0), true; goesOn; {
			n := 0
			for c := range watch(t, both[0], "", at) {
				seen = append(seen, c)
				if at = c.Revision; c.Key != "" {
					at-- // the other keys of this commit may not have come
				}
				goesOn = c.Revision < last || c.Key != "last"
				if n++; n == 5 || !goesOn { // no commit has five keys
					break
				}
			}
		}
		for _, rec := range list(t, both[0], store.Query{}) {
			if !slices.Contains(seen, store.Change{Key: rec.Key, Revision: rec.Revision}) {
				t.Fatalf("%s has changed and was not told", show(rec))
			}
		}
	}},

	{"each range over a watch starts anew", func(t testing.TB, h Harness) {
		s := open(t, h)
		commit(t, s, store.Put("a", nil))
		ctx, _ := patient(t)
		seq := s.(store.Watcher).Watch(ctx, "", 0)
		for range 2 {
			for c, err := range seq {
				if err != nil {
					t.Fatalf("watch: %v", err)
				}
				if c.Key == "a" {
					break
				}
			}
		}
	}},

	{"the body of a watch may call the store", func(t testing.TB, h Harness) {
		s := open(t, h)
		commit(t, s, store.Put("k0", nil))
		n := 0
		for c := range watch(t, s, "k", 0) {
			if c.Key == "" {
				continue
			}
			if n++; n == 5 {
				break
			}
			get(t, s, c.Key)
			listKeys(t, s, store.Query{})
			commit(t, s, store.Put(fmt.Sprint("k", n), nil))
		}
	}},

	{"a watch ends with its context and yields the cause", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a")
		wantWatchEnds(t, ended(t), s, errCause, func() {})
		waits, _ := patient(t)
		ctx, cancel := context.WithCancelCause(waits)
		wantWatchEnds(t, ctx, s, errCause, func() { cancel(errCause) })
	}},

	{"a watch ends when its handle is closed", func(t testing.TB, h Harness) {
		both := openHandles(t, h, "a")
		ctx, _ := patient(t)
		wantWatchEnds(t, ctx, both[0], store.ErrClosed, func() {
			if err := both[0].Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		wantWatchEnds(t, ctx, both[0], store.ErrClosed, func() {})
		wantChanged(t, watchUntil(t, both[1], "", 0, commit(t, both[1], store.Put("b", nil))), "a", "b")
	}},
}

var gapClaims = []claim{
	{"a watch from a revision that is forgotten yields a gap", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		rev := commit(t, both[0], store.Put("a", nil))
		commit(t, both[1], store.Put("b", nil))
		h.Forget(t, both[0])
		n := 0
		ctx, _ := patient(t)
		for c, err := range both[1].(store.Watcher).Watch(ctx, "", rev) {
			n++
			if !errors.Is(err, store.ErrGap) || c != (store.Change{}) {
				t.Fatalf("watch: got %+v and error %v, want the error %v alone", c, err, store.ErrGap)
			}
		}
		if n != 1 {
			t.Fatalf("watch yielded %d times, want the error %v alone", n, store.ErrGap)
		}
	}},

	{"after a gap a list and a watch tell everything", func(t testing.TB, h Harness) {
		both := openHandles(t, h, "a")
		h.Forget(t, both[0])
		rev := commit(t, both[1])
		wantKeys(t, both[1], store.Query{}, "a")
		last := commit(t, both[0], store.Put("b", nil))
		wantChanged(t, watchUntil(t, both[1], "", rev, last), "b")
	}},
}

// patient returns a context that ends when the suite has no patience left, and the timer that ends it.
func patient(t testing.TB) (context.Context, *time.Timer) {
	ctx, cancel := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(patience, func() { cancel(errors.New("storetest: what must come has not come")) })
	t.Cleanup(func() {
		timer.Stop()
		cancel(nil)
	})
	return ctx, timer
}

// watch yields the changes of a store, and fails the test if the watch ends or nothing comes for long.
func watch(t testing.TB, s store.Store, prefix string, after store.Revision) func(yield func(store.Change) bool) {
	return func(yield func(store.Change) bool) {
		t.Helper()
		ctx, timer := patient(t)
		defer timer.Stop()
		for c, err := range s.(store.Watcher).Watch(ctx, prefix, after) {
			if err != nil {
				t.Fatalf("watch of %q after revision %d: %v", prefix, after, err)
			}
			if c.Revision <= after {
				t.Fatalf("watch after revision %d yielded %+v", after, c)
			}
			if !yield(c) {
				return
			}
			timer.Reset(patience)
		}
		t.Fatalf("watch of %q after revision %d has ended without an error", prefix, after)
	}
}

// watchUntil returns the changes up to and including those of the revision last.
func watchUntil(t testing.TB, s store.Store, prefix string, after, last store.Revision) (seen []store.Change) {
	t.Helper()
	// A change of a later commit tells that all others have come. Its key has the prefix.
	end := prefix + "\xff/end"
	until := commit(t, s, store.Put(end, nil))
	commit(t, s, store.Delete(end))
	for c := range watch(t, s, prefix, after) {
		if c.Revision >= until {
			break
		}
		if c.Key != "" && c.Key != end {
			seen = append(seen, c)
		}
		if c.Revision > last && c.Key != "" && c.Key != end {
			t.Fatalf("watch yielded %+v, and nobody has made such a commit", c)
		}
	}
	return seen
}

// wantChanged expects changes of these keys, and of no others.
func wantChanged(t testing.TB, seen []store.Change, keys ...string) {
	t.Helper()
	var got []string
	for _, c := range seen {
		if c.Key != "" && !slices.Contains(got, c.Key) {
			got = append(got, c.Key)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, keys) {
		t.Fatalf("the keys %q have changed, want %q", got, keys)
	}
}

// wantWatchEnds expects that a watch ends with an error after end was called. end is called while the watch goes on.
func wantWatchEnds(t testing.TB, ctx context.Context, s store.Store, want error, end func()) {
	t.Helper()
	var ending func()
	for c, err := range s.(store.Watcher).Watch(ctx, "", 0) {
		if err != nil {
			if !errors.Is(err, want) || c != (store.Change{}) {
				t.Fatalf("watch: got %+v and error %v, want the error %v", c, err, want)
			}
			return
		}
		if ending == nil {
			ending = beside(end)
			defer ending()
		}
	}
	t.Fatalf("the watch has ended without an error")
}

// beside runs fn in another goroutine, and returns a function that waits for its end. fn must report a failure with Errorf.
func beside(fn func()) (wait func()) {
	var group sync.WaitGroup
	group.Go(fn)
	return group.Wait
}

// churn makes commits through both handles at once, of keys that meet and of others, and in the end one of the key "last". It
// returns the revision of the latter.
func churn(t testing.TB, both handles) (last store.Revision) {
	concurrently(workers, func(w int) {
		for i := range rounds {
			ops := []store.Op{store.Put(fmt.Sprintf("w%d/%d", w, i), nil), store.Put("shared", []byte{byte(w)})}
			if i%3 == 2 {
				ops = append(ops, store.Delete(fmt.Sprintf("w%d/%d", w, i-1)))
			}
			if _, err := both.of(w).Commit(t.Context(), ops...); err != nil {
				t.Errorf("commit: %v", err)
			}
		}
	})
	last, err := both[0].Commit(t.Context(), store.Put("last", nil))
	if err != nil {
		t.Errorf("commit: %v", err)
	}
	return last
}
