package etcd_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
)

// counting counts the keys that are read.
type counting struct {
	clientv3.KV
	keys atomic.Int64
}

func (c *counting) GetStream(ctx context.Context, key string, opts ...clientv3.OpOption) (clientv3.GetStreamChan, error) {
	pieces, err := c.KV.GetStream(ctx, key, opts...)
	if err != nil {
		return nil, err
	}
	counted := make(chan clientv3.RangeStreamResponse)
	go func() {
		defer close(counted)
		for piece := range pieces {
			if piece.RangeResponse != nil {
				c.keys.Add(int64(len(piece.Kvs)))
			}
			counted <- piece
		}
	}()
	return counted, nil
}

func TestBetweenIsBetween(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringOfN(rapid.SampledFrom([]rune("\x00ab\u007f")), 0, 20, -1)
		low, high := key.Draw(t, "low"), key.Draw(t, "high")
		if middle, ok := etcd.Between(low, high); ok {
			require.Less(t, low, middle)
			require.Less(t, middle, high)
		}
	})
	middle, ok := etcd.Between("a", "c")
	require.True(t, ok)
	require.Equal(t, "b\x00\x00\x00\x00\x00\x00\x00", middle)
}

// TestReverseListsLookAtFewKeys lists backwards what has many more keys than a page, close together and far apart.
func TestReverseListsLookAtFewKeys(t *testing.T) {
	server := needServer(t)
	client := newClient(t, server.Endpoints()...)
	looked := &counting{KV: client.KV}
	client.KV = looked
	s, err := etcd.OpenClient(t.Context(), client, newPrefix())
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	var all []string
	var ops []store.Op
	put := func(key string) {
		all = append(all, key)
		if ops = append(ops, store.Put(key, []byte(key))); len(ops) == 100 {
			_, err := s.Commit(t.Context(), ops...)
			require.NoError(t, err)
			ops = nil
		}
	}
	for i := range 2500 {
		put(fmt.Sprintf("run/00vhncz%010d", i*i))
	}
	for i := range 200 {
		put("z" + string(rune('a'+i%7)) + fmt.Sprintf("%x", i*7919))
	}
	slices.Sort(all)
	for _, prefix := range []string{"", "run/", "run/00vhncz000", "z", "zc", "none"} {
		var want []string
		for _, key := range all {
			if len(key) >= len(prefix) && key[:len(prefix)] == prefix {
				want = append(want, key)
			}
		}
		slices.Reverse(want)
		for _, limit := range []int{0, 1, 100} {
			before := looked.keys.Load()
			var got []string
			for rec, err := range s.List(t.Context(), store.Query{Prefix: prefix, Reverse: true, Limit: limit}) {
				require.NoError(t, err)
				require.Equal(t, rec.Key, string(rec.Value))
				got = append(got, rec.Key)
			}
			if limit > 0 {
				require.Equal(t, want[:min(limit, len(want))], got)
			} else {
				require.Equal(t, want, got)
			}
			if limit == 1 {
				require.Less(t, looked.keys.Load()-before, int64(100), "keys that were read for the last one under %q", prefix)
			}
		}
	}
}
