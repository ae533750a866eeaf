package storetest

import (
	"fmt"
	"testing"

	"github.com/conveyor-go/conveyor/store"
)

var limitClaims = []claim{
	{"the limits of a store stay the same", func(t testing.TB, h Harness) {
		s := open(t, h)
		first := store.LimitsOf(s)
		commit(t, s, store.Put("a", nil))
		if again := store.LimitsOf(s); again != first {
			t.Fatalf("the limits were %+v, and then %+v", first, again)
		}
		if first.Value < 0 || first.Ops < 0 || first.Bytes < 0 || first.Commit < 0 || first.Unknown < 0 {
			t.Fatalf("the limits %+v have a negative one", first)
		}
	}},

	{"a commit of as many ops as the store states is carried out, and a larger one refused", func(t testing.TB, h Harness) {
		s := open(t, h)
		most := store.LimitsOf(s).Ops
		if most == 0 {
			most = 1000 // the store states no limit
		}
		commit(t, s, puts(most)...)
		if got := len(listKeys(t, s, store.Query{})); got != most {
			t.Fatalf("a commit of %d ops left %d records", most, got)
		}
		if store.LimitsOf(s).Ops > 0 {
			wantMalformed(t, s, fmt.Sprintf("%d ops and more", most), puts(most)...)
			wantMalformed(t, s, "a Check too much", checks(most)...)
		}
	}},

	{"a commit of as many bytes as the store states is carried out, and a larger one refused", func(t testing.TB, h Harness) {
		s := open(t, h)
		limits := store.LimitsOf(s)
		if limits.Bytes == 0 {
			return // the store states no limit
		}
		ops := ofSize(limits, limits.Bytes)
		rev := commit(t, s, ops...)
		for _, op := range ops {
			wantRecord(t, s, op.Key(), string(op.Value()), rev)
		}
		good := store.Put("good", nil) // with which wantMalformed begins
		wantMalformed(t, s, "a byte too much", ofSize(limits, limits.Bytes-good.Size()+1)...)
	}},
}

func puts(n int) (ops []store.Op) {
	for _, key := range numbered("n", n) {
		ops = append(ops, store.Put(key, nil))
	}
	return ops
}

func checks(n int) (ops []store.Op) {
	for _, key := range numbered("absent", n) {
		ops = append(ops, store.Check(key, 0))
	}
	return ops
}

// ofSize returns ops with a number of bytes together, each within the limits.
func ofSize(limits store.Limits, bytes int) (ops []store.Op) {
	for i := 0; bytes > 0; i++ {
		key := fmt.Sprintf("n%05d", i)
		n := min(limits.Value, bytes-len(key))
		if left := bytes - len(key) - n; left > 0 && left <= len(key) {
			n -= len(key) // so that the next op has a key and a value
		}
		ops = append(ops, store.Put(key, make([]byte, n)))
		bytes -= len(key) + n
	}
	return ops
}
