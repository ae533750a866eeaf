package etcd

import (
	"context"
	"encoding/binary"
	"math"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lastKeys returns the last keys of a range in their order, at most limit of them, and whether there are more.
//
// Etcd can return the last keys only by sorting all of them. So lastKeys looks at a few keys, halves what lies above them until there are
// keys in the upper half, looks at these, and so on. Each time a server looks at few keys, however many there are.
func (s *Store) lastKeys(ctx context.Context, from, end string, limit int) (keys []string, more bool, err error) {
	few := 2 * limit
	keys, err = s.firstKeys(ctx, from, end, few)
	if s.noStreams.Load() { // it has looked at all keys anyway
		return s.sortedKeys(ctx, from, end, limit)
	}
	for high := end; err == nil && len(keys) == few; {
		var above []string
		if above, err = s.firstKeys(ctx, after(keys[few-1]), end, few); err != nil {
			break
		}
		if len(above) < few {
			keys = append(keys, above...)
			break
		}
		for keys, more = above, true; ; {
			middle, ok := between(keys[few-1], high)
			if !ok {
				break
			}
			if above, err = s.firstKeys(ctx, middle, end, few); err != nil {
				break
			}
			if len(above) > 0 {
				keys = above
				break
			}
			high = middle // a key that is put there now may be missed
		}
	}
	if err != nil {
		return nil, false, err
	}
	if n := len(keys) - limit; n > 0 {
		keys, more = keys[n:], true
	}
	return keys, more, nil
}

// firstKeys returns the first keys of a range, at most limit of them.
func (s *Store) firstKeys(ctx context.Context, from, end string, limit int) (keys []string, err error) {
	err = s.scan(ctx, from, end, limit, true, func(kv *mvccpb.KeyValue) bool {
		keys = append(keys, string(kv.Key))
		return len(keys) < limit
	})
	return keys, err
}

// sortedKeys is lastKeys with servers that look at all keys in any case.
func (s *Store) sortedKeys(ctx context.Context, from, end string, limit int) (keys []string, more bool, err error) {
	r, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(int64(limit)),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return nil, false, err
	}
	for i := len(r.Kvs) - 1; i >= 0; i-- {
		keys = append(keys, string(r.Kvs[i].Key))
	}
	return keys, r.More, nil
}

// after returns the smallest key that is greater than another one.
func after(key string) string { return key + "\x00" }

// between returns a key about halfway between two others, and false if it finds none.
func between(low, high string) (middle string, ok bool) {
	common := 0
	for common < len(low) && common < len(high) && low[common] == high[common] {
		common++
	}
	prefix, low, high := low[:common], low[common:], high[common:]
	a, b := number(low), number(high)
	switch {
	case a >= b:
		return "", false
	case b-a > 1:
		return prefix + bytesOf(a+(b-a)/2), true
	}
	// Only the bytes after these can be in between.
	rest := number(low[min(8, len(low)):])
	if rest == math.MaxUint64 {
		return "", false
	}
	return prefix + bytesOf(a) + bytesOf(rest+(math.MaxUint64-rest)/2+1), true
}

// number returns the first eight bytes of a key as a number. Those that are missing count as zero.
func number(key string) uint64 {
	var bytes [8]byte
	copy(bytes[:], key)
	return binary.BigEndian.Uint64(bytes[:])
}

func bytesOf(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }
