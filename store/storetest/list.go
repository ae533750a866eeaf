package storetest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

// awkward has keys that lie around the ends of the ranges of each other as prefixes, in ascending order.
var awkward = []string{
	"\x00", "a", "a/", "a/\x00", "a/1", "a/10", "a/2", "a/\xff", "a/\xff\x00", "a/\xff\xff", "a0", "a\xff", "a\xff\xff",
	"b", "b/", "\xfe\xff", "\xff", "\xff\x00", "\xff\xff", "\xff\xffa",
}

// many is a number of records that a store is not likely to fetch at once.
const many = 700

var listClaims = []claim{
	{"the zero query lists everything in ascending order", func(t testing.TB, h Harness) {
		s := openWith(t, h, awkward...)
		wantKeys(t, s, store.Query{}, awkward...)
	}},

	{"the list of an empty store is empty", func(t testing.TB, h Harness) {
		s := open(t, h)
		for _, q := range []store.Query{{}, {Reverse: true}, {Prefix: "a"}, {After: "a"}, {After: "a", Reverse: true}} {
			wantKeys(t, s, q)
		}
	}},

	{"prefix limits the list to the keys that begin with it", func(t testing.TB, h Harness) {
		s := openWith(t, h, awkward...)
		for _, prefix := range append([]string{"c", "a/3", "\xff\xff\xff"}, awkward...) {
			wantKeys(t, s, store.Query{Prefix: prefix}, selected(awkward, store.Query{Prefix: prefix})...)
		}
	}},

	{"after leaves out the key itself, which need not exist", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b", "c", "d")
		wantKeys(t, s, store.Query{After: "b"}, "c", "d")
		wantKeys(t, s, store.Query{After: "bb"}, "c", "d")
		wantKeys(t, s, store.Query{After: "d"})
		wantKeys(t, s, store.Query{After: "0"}, "a", "b", "c", "d")
	}},

	{"after means smaller keys when the list is reversed", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b", "c", "d")
		wantKeys(t, s, store.Query{After: "c", Reverse: true}, "b", "a")
		wantKeys(t, s, store.Query{After: "bb", Reverse: true}, "b", "a")
		wantKeys(t, s, store.Query{After: "a", Reverse: true})
		wantKeys(t, s, store.Query{After: "z", Reverse: true}, "d", "c", "b", "a")
	}},

	{"limit is the largest number of records", func(t testing.TB, h Harness) {
		keys := numbered("k", many)
		s := openWith(t, h, keys...)
		for _, n := range []int{1, 2, many - 1, many} {
			wantKeys(t, s, store.Query{Limit: n}, keys[:n]...)
		}
		for _, n := range []int{0, -1, many + 1} {
			wantKeys(t, s, store.Query{Limit: n}, keys...)
		}
	}},

	{"reverse lists in descending order", func(t testing.TB, h Harness) {
		s := openWith(t, h, awkward...)
		wantKeys(t, s, store.Query{Reverse: true}, selected(awkward, store.Query{Reverse: true})...)
	}},

	{"prefix, after, limit and reverse combine", func(t testing.TB, h Harness) {
		s := openWith(t, h, awkward...)
		points := append([]string{"", "a/3", "a/\xff\xfe", "c", "\xff\xff\xff"}, awkward...)
		for _, prefix := range points {
			for _, after := range points {
				for _, limit := range []int{0, 1, 3} {
					for _, reverse := range []bool{false, true} {
						q := store.Query{Prefix: prefix, After: after, Limit: limit, Reverse: reverse}
						wantKeys(t, s, q, selected(awkward, q)...)
					}
				}
			}
		}
	}},

	{"a long list is complete in both directions", func(t testing.TB, h Harness) {
		keys := numbered("b/", many)
		s := openWith(t, h, append([]string{"a/1", "b", "b0", "c/1"}, keys...)...)
		wantKeys(t, s, store.Query{Prefix: "b/"}, keys...)
		slices.Reverse(keys)
		wantKeys(t, s, store.Query{Prefix: "b/", Reverse: true}, keys...)
	}},

	{"list yields the records as they were written", func(t testing.TB, h Harness) {
		s := open(t, h)
		first := commit(t, s, store.Put("a", []byte("1")), store.Put("b", []byte("2")))
		second := commit(t, s, store.Put("b", []byte("3")), store.Put("c", nil))
		want := []store.Record{
			{Key: "a", Value: []byte("1"), Revision: first},
			{Key: "b", Value: []byte("3"), Revision: second},
			{Key: "c", Revision: second},
		}
		got := list(t, s, store.Query{})
		if len(got) != len(want) {
			t.Fatalf("list has %d records, want %d", len(got), len(want))
		}
		for i := range want {
			same(t, got[i], want[i])
		}
	}},

	{"a sequence starts anew each time it is ranged over", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b", "c")
		seq := s.List(t.Context(), store.Query{Limit: 3})
		for range 2 {
			var keys []string
			for rec, err := range seq {
				if err != nil {
					t.Fatalf("list: %v", err)
				}
				keys = append(keys, rec.Key)
			}
			if !slices.Equal(keys, []string{"a", "b", "c"}) {
				t.Fatalf("got %q, want all three keys each time", keys)
			}
		}
	}},

	{"list sees the commits made before the range began", func(t testing.TB, h Harness) {
		s := openWith(t, h, "b")
		seq := s.List(t.Context(), store.Query{})
		fill(t, s, "a", "c")
		commit(t, s, store.Delete("b"))
		var keys []string
		for rec := range seq {
			keys = append(keys, rec.Key)
		}
		if !slices.Equal(keys, []string{"a", "c"}) {
			t.Fatalf("got %q, want what was there when the range began", keys)
		}
	}},

	{"a range may be left early", func(t testing.TB, h Harness) {
		s := openWith(t, h, numbered("k", many)...)
		for range s.List(t.Context(), store.Query{}) {
			break
		}
		commit(t, s, store.Put("after", nil))
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}},

	{"the body of a range may call the store", func(t testing.TB, h Harness) {
		keys := numbered("k", many)
		s := openWith(t, h, keys...)
		var seen []string
		for rec, err := range s.List(t.Context(), store.Query{Prefix: "k"}) {
			if err != nil {
				t.Fatalf("list: %v", err)
			}
			seen = append(seen, rec.Key)
			same(t, get(t, s, rec.Key), rec)
			if len(seen)%50 != 1 {
				continue
			}
			// These are enough bytes to make a store grow during the range.
			commit(t, s, store.Put("other/"+rec.Key, make([]byte, 100<<10)), store.Delete(rec.Key))
			wantAbsent(t, s, rec.Key)
		}
		if !slices.Equal(seen, keys) {
			t.Fatalf("saw %d keys, want each of the %d once and in order", len(seen), len(keys))
		}
	}},

	{"list with an ended context yields its cause", func(t testing.TB, h Harness) {
		s := openWith(t, h, "a", "b")
		wantOnlyError(t, ended(t), s, errCause)
	}},

	{"a context that ends on the way ends the range with its cause", func(t testing.TB, h Harness) {
		s := openWith(t, h, numbered("k", many)...)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		n := 0
		for rec, err := range s.List(ctx, store.Query{}) {
			if n++; n <= 20 {
				if err != nil {
					t.Fatalf("list: %v", err)
				}
				if n == 20 {
					cancel(errCause)
				}
				continue
			}
			wantLast(t, rec, err, errCause)
		}
		if n != 21 {
			t.Fatalf("the range went round %d times, want 20 records and the error", n)
		}
	}},

	{"the caller of list owns the values", func(t testing.TB, h Harness) {
		s := openWith(t, h, numbered("k", 50)...)
		for range 2 {
			for rec, err := range s.List(t.Context(), store.Query{}) {
				if err != nil {
					t.Fatalf("list: %v", err)
				}
				if string(rec.Value) != "v:"+rec.Key {
					t.Fatalf("after a caller changed its copies, list returned %s", show(rec))
				}
				clear(rec.Value)
				_ = append(rec.Value, "scribble past the end"...)
			}
		}
	}},
}

// selected returns those of the sorted keys that a query selects. It is written as simply as possible.
func selected(sorted []string, q store.Query) []string {
	var keys []string
	for _, key := range sorted {
		after := q.After == "" || q.Reverse && key < q.After || !q.Reverse && key > q.After
		if strings.HasPrefix(key, q.Prefix) && after {
			keys = append(keys, key)
		}
	}
	if q.Reverse {
		slices.Reverse(keys)
	}
	if q.Limit > 0 && q.Limit < len(keys) {
		keys = keys[:q.Limit]
	}
	return keys
}
