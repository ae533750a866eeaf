package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

func TestCheckOps(t *testing.T) {
	many := func(n int) []store.Op {
		ops := make([]store.Op, n)
		for i := range ops {
			ops[i] = store.Put(fmt.Sprint(i), nil)
		}
		return ops
	}
	for _, c := range []struct {
		name string
		ops  []store.Op
		want string // part of the error; empty for none
	}{
		{"none", nil, ""},
		{"many different keys", many(1000), ""},
		{"the zero op", []store.Op{store.Put("a", nil), {}}, "op 2 is the zero Op"},
		{"empty key", []store.Op{store.Delete("")}, "empty key"},
		{"longest key", []store.Op{store.Delete(strings.Repeat("k", store.MaxKey))}, ""},
		{"over-long key", []store.Op{store.Delete(strings.Repeat("k", store.MaxKey+1))}, "key of 1025 bytes, more than the limit of 1024 (a fixed limit)"},
		{"largest value", []store.Op{store.Put("a", make([]byte, store.MaxValue))}, ""},
		{"over-large value", []store.Op{store.Put("a", make([]byte, store.MaxValue+1))}, "value of \"a\" has 8388609 bytes, more than the limit of 8388608 (a fixed limit)"},
		{"one key twice", []store.Op{store.Put("a", nil), store.Put("b", nil), store.Check("a", 1)}, "op 3: second op for key \"a\""},
		{"one key twice among sixteen", append(many(15), store.Delete("14")), "op 16: second op for key \"14\""},
		{"one key twice among seventeen", append(many(16), store.Delete("0")), "op 17: second op for key \"0\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := store.CheckOps(c.ops); c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestOpHolds(t *testing.T) {
	for _, c := range []struct {
		name             string
		op               store.Op
		absent, at5, at6 bool
	}{
		{"put", store.Put("k", nil), true, true, true},
		{"put if 5", store.Put("k", nil).If(5), false, true, false},
		{"put if absent", store.Put("k", nil).IfAbsent(), true, false, false},
		{"delete", store.Delete("k"), true, true, true},
		{"delete if 5", store.Delete("k").If(5), false, true, false},
		{"check 5", store.Check("k", 5), false, true, false},
		{"check 0", store.Check("k", 0), true, false, false},
		{"the last condition counts", store.Put("k", nil).IfAbsent().If(5), false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, []bool{c.absent, c.at5, c.at6}, []bool{c.op.Holds(0), c.op.Holds(5), c.op.Holds(6)})
		})
	}
}

func TestIfReturnsACopy(t *testing.T) {
	op := store.Put("k", []byte("v"))
	_ = op.If(5)
	_ = op.IfAbsent()
	require.True(t, op.Holds(0))
	require.True(t, op.Holds(7))
}

func TestConditionIsWhatMakesAnOpAnew(t *testing.T) {
	for _, c := range []struct {
		name string
		op   store.Op
		rev  store.Revision
		ok   bool
	}{
		{"put", store.Put("k", nil), 0, false},
		{"put if 5", store.Put("k", nil).If(5), 5, true},
		{"put if absent", store.Put("k", nil).IfAbsent(), 0, true},
		{"put if 0", store.Put("k", nil).If(0), 0, true},
		{"delete", store.Delete("k"), 0, false},
		{"delete if 5", store.Delete("k").If(5), 5, true},
		{"check 5", store.Check("k", 5), 5, true},
		{"check 0", store.Check("k", 0), 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rev, ok := c.op.Condition()
			require.Equal(t, c.rev, rev)
			require.Equal(t, c.ok, ok)
			require.Equal(t, ok, c.op.Conditional())
			anew := store.Check("k", 0)
			switch {
			case c.op.Removes():
				anew = store.Delete("k")
			case c.op.Writes():
				anew = store.Put("k", c.op.Value())
			}
			if ok {
				anew = anew.If(rev)
			}
			require.Equal(t, c.op, anew)
		})
	}
}
