package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
	"github.com/conveyor-go/conveyor/store/storetest"
)

func TestLimitsCheck(t *testing.T) {
	ops := []store.Op{store.Put("key", []byte("value")), store.Delete("abc"), store.Check("def", 1)} // 14 bytes
	for _, c := range []struct {
		name   string
		limits store.Limits
		want   string // part of the error; empty for none
	}{
		{"none", store.Limits{}, ""},
		{"just enough", store.Limits{Value: 5, Ops: 3, Bytes: 14}, ""},
		{"an op too much", store.Limits{Ops: 2}, "commit of 3 ops, more than the limit of 2 (a limit of this store)"},
		{"a byte too much in a value", store.Limits{Value: 4}, `op 1: value of "key" has 5 bytes, more than the limit of 4`},
		{"a byte too much together", store.Limits{Bytes: 13}, "commit of 14 bytes of keys and values, more than the limit of 13"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.limits.Check(ops); c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
		})
	}
}

// limited is a store that states limits.
type limited struct {
	*memory.Store
	limits store.Limits
}

func (l limited) Limits() store.Limits { return l.limits }

func TestLimitsOf(t *testing.T) {
	require.Equal(t, store.Limits{Value: store.MaxValue}, store.LimitsOf(memory.New()))
	require.Equal(t, store.Limits{Value: store.MaxValue}, store.LimitsOf(limited{}))
	require.Equal(t, store.Limits{Value: store.MaxValue}, store.LimitsOf(limited{limits: store.Limits{Value: store.MaxValue + 1}}))
	own := store.Limits{Value: 10, Ops: 2, Bytes: 30, Commit: time.Minute, Unknown: time.Second}
	require.Equal(t, own, store.LimitsOf(limited{limits: own}))
}

func TestTheSealedStoreOfTheExampleKeepsTheContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{Open: func(t testing.TB) store.Store {
		s, err := newSealed(memory.New(), make([]byte, 32))
		if err != nil {
			t.Fatalf("new: %v", err)
		}
		return s
	}})
}
