package storetest

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

var lossClaims = []claim{
	{"what a commit reports is what happened although answers get lost", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		heal := h.Lose(t, both[0])
		var errs [workers][rounds]error
		concurrently(workers, func(w int) {
			for i := range rounds {
				key := fmt.Sprintf("w%d/%02d", w, i)
				_, errs[w][i] = both.of(w).Commit(t.Context(), store.Put(key+"/a", nil).IfAbsent(), store.Put(key+"/b", nil))
			}
		})
		heal()
		settle(both[0])
		for w := range workers {
			for i, err := range errs[w] {
				got := len(listKeys(t, both[1], store.Query{Prefix: fmt.Sprintf("w%d/%02d/", w, i)}))
				switch {
				case errors.Is(err, store.ErrUnknown):
					if got == 1 {
						t.Fatalf("a commit of two records that ended with %v has left one", err)
					}
				case err == nil && got != 2:
					t.Fatalf("a commit of two records returned nil, and %d of them are there", got)
				case err != nil && got != 0:
					t.Fatalf("a commit of two records returned the error %v, and %d of them are there", err, got)
				}
			}
		}
	}},

	{"a commit whose answer was lost happens once at most", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		commit(t, both[0], store.Put("count", []byte("0")))
		heal := h.Lose(t, both[0])
		var acknowledged, unknown [workers]int
		concurrently(workers, func(w int) {
			s := both.of(w)
			for acknowledged[w]+unknown[w] < rounds {
				rec, err := s.Get(t.Context(), "count")
				if errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrUnavailable) {
					continue
				}
				n, _ := strconv.Atoi(string(rec.Value))
				runtime.Gosched() // a commit of another comes between
				_, err = s.Commit(t.Context(), store.Put("count", []byte(strconv.Itoa(n+1))).If(rec.Revision))
				switch {
				case err == nil:
					acknowledged[w]++
				case errors.Is(err, store.ErrUnknown):
					unknown[w]++
				case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrUnavailable):
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
		heal()
		settle(both[0])
		got, _ := strconv.Atoi(string(get(t, both[1], "count").Value))
		least, most := 0, 0
		for w := range workers {
			least += acknowledged[w]
			most += acknowledged[w] + unknown[w]
		}
		if got < least || got > most {
			t.Fatalf("the count is %d, after %d increments that were acknowledged and %d whose outcome is unknown", got, least, most-least)
		}
	}},

	{"a watch misses nothing although answers get lost", func(t testing.TB, h Harness) {
		both := openHandles(t, h)
		rev := commit(t, both[0])
		heal := h.Lose(t, both[0])
		concurrently(workers, func(w int) {
			for i := range rounds {
				_, _ = both.of(w).Commit(t.Context(), store.Put(fmt.Sprintf("w%d/%d", w, i), nil))
			}
		})
		heal()
		settle(both[0])
		last := commit(t, both[1], store.Put("last", nil))
		wantChanged(t, watchUntil(t, both[0], "", rev, last), listKeys(t, both[1], store.Query{})...)
	}},
}

// settle waits until no commit whose outcome is unknown can happen any more.
func settle(s store.Store) { time.Sleep(store.LimitsOf(s).Unknown) }
