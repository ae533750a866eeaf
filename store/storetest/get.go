package storetest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

var getClaims = []claim{
	{"get returns the record as it was written", func(t testing.TB, h Harness) {
		s := open(t, h)
		first := commit(t, s, store.Put("run/1", []byte("queued")), store.Put("run/2", []byte("running")))
		second := commit(t, s, store.Put("run/2", []byte("succeeded")))
		wantRecord(t, s, "run/1", "queued", first)
		wantRecord(t, s, "run/2", "succeeded", second)
	}},

	{"get of a key that no record has is not found", func(t testing.TB, h Harness) {
		s := openWith(t, h, "run/1", "run/10")
		for _, key := range []string{"run/", "run/0", "run/11", "run/100", "s", "\xff"} {
			wantAbsent(t, s, key)
		}
	}},

	{"get with an ended context returns its cause", func(t testing.TB, h Harness) {
		s := openWith(t, h, "run/1")
		if rec, err := s.Get(ended(t), "run/1"); !errors.Is(err, errCause) {
			t.Fatalf("got %s and error %v, want the cause of the context", show(rec), err)
		}
	}},

	{"the caller of get owns the value", func(t testing.TB, h Harness) {
		s := openWith(t, h, "run/1")
		value := get(t, s, "run/1").Value
		clear(value)
		_ = append(value[:0], "scribble"...)
		if got := get(t, s, "run/1").Value; string(got) != "v:run/1" {
			t.Fatalf("after the first caller changed its copy, get returned %q", got)
		}
	}},

	{"keys may hold any bytes", func(t testing.TB, h Harness) {
		keys := []string{"\x00", "\x00\x00", " ", "/", "a\x00b", "a\xff", "é", "\xff", "\xff\xff", "\xff\xfe\xfd"}
		s := openWith(t, h, keys...)
		for _, key := range keys {
			if got := get(t, s, key); got.Key != key || string(got.Value) != "v:"+key {
				t.Fatalf("get %q returned %s", key, show(got))
			}
		}
	}},

	{"values may be empty", func(t testing.TB, h Harness) {
		s := open(t, h)
		rev := commit(t, s, store.Put("a", nil), store.Put("b", []byte{}))
		wantRecord(t, s, "a", "", rev)
		wantRecord(t, s, "b", "", rev)
		wantKeys(t, s, store.Query{}, "a", "b")
		refused(t, s, store.ErrConflict, store.Put("a", nil).IfAbsent())
	}},

	{"the longest key is stored and a longer one refused", func(t testing.TB, h Harness) {
		s := open(t, h)
		longest := strings.Repeat("k", store.MaxKey)
		rev := commit(t, s, store.Put(longest, []byte("v")))
		wantRecord(t, s, longest, "v", rev)
		wantMalformed(t, s, "an over-long key", store.Put(longest+"k", []byte("v")))
		wantKeys(t, s, store.Query{}, longest)
	}},

	{"the largest value is stored and a larger one refused", func(t testing.TB, h Harness) {
		s := open(t, h)
		limits := store.LimitsOf(s)
		n := limits.Value
		if limits.Bytes > 0 {
			n = min(n, limits.Bytes-len("k"))
		}
		largest := bytes.Repeat([]byte("sixteen bytes..."), n/16+1)[:n]
		rev := commit(t, s, store.Put("k", largest))
		wantRecord(t, s, "k", string(largest), rev)
		wantMalformed(t, s, "an over-long value", store.Put("other", append(largest, 0)))
		wantKeys(t, s, store.Query{}, "k")
	}},
}
