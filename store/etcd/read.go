package etcd

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// pageBytes is how much a page has, or a little more.
const pageBytes = 1 << 20

func (s *Store) get(ctx context.Context, key string) (rec store.Record, err error) {
	if err := s.awaitSettled(ctx, store.ErrUnknown); err != nil {
		return store.Record{}, err
	}
	found := false
	err = s.read(ctx, func(ctx context.Context) error {
		r, err := s.client.Get(ctx, s.records+key)
		if found = err == nil && len(r.Kvs) > 0; found {
			rec = s.record(r.Kvs[0])
		}
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: %q", store.ErrNotFound, key)
	}
	return rec, err
}

func (s *Store) record(kv *mvccpb.KeyValue) store.Record {
	return store.Record{Key: string(kv.Key[len(s.records):]), Value: kv.Value, Revision: store.Revision(kv.ModRevision)}
}

// page appends the first records of a range in its order, at most limit of them, and reports whether there may be more.
func (s *Store) page(ctx context.Context, page []store.Record, r keyrange.Range, limit int) (_ []store.Record, more bool, err error) {
	if err := s.awaitSettled(ctx, store.ErrUnknown); err != nil {
		return page, false, err
	}
	before, tries := len(page), 0
	err = s.read(ctx, func(ctx context.Context) (err error) {
		page = page[:before]
		if tries++; tries > 1 { // it can have been too much for the connection
			limit = max(limit/2, 1)
		}
		if r.Reverse {
			page, more, err = s.backward(ctx, page, r, limit)
		} else {
			page, more, err = s.forward(ctx, page, r, limit)
		}
		return err
	})
	if err != nil {
		page = page[:before]
	}
	return page, more, err
}

func (s *Store) forward(ctx context.Context, page []store.Record, r keyrange.Range, limit int) (_ []store.Record, more bool, err error) {
	size := 0
	err = s.scan(ctx, s.records+r.From, s.end(r.To), limit, false, func(kv *mvccpb.KeyValue) bool {
		page = append(page, s.record(kv))
		limit--
		size += len(kv.Key) + len(kv.Value)
		more = limit == 0 || size >= pageBytes
		return !more
	})
	return page, more, err
}

// mostBackward is how many records a page has at most whose keys are looked for first, because it is not known how large they are.
const mostBackward = 64

// backward reads the last records of a range.
func (s *Store) backward(ctx context.Context, page []store.Record, r keyrange.Range, limit int) (_ []store.Record, more bool, err error) {
	limit = min(limit, mostBackward)
	keys, more, err := s.lastKeys(ctx, s.records+r.From, s.end(r.To), limit)
	if err != nil || len(keys) == 0 {
		return page, false, err
	}
	var found []store.Record // what was put behind the first key meanwhile is among them
	err = s.scan(ctx, keys[0], s.end(r.To), 0, false, func(kv *mvccpb.KeyValue) bool {
		found = append(found, s.record(kv))
		return true
	})
	if n := len(found) - limit; n > 0 {
		found, more = found[n:], true
	}
	slices.Reverse(found)
	// If all of them were removed meanwhile, there is nothing from which the next page could go on.
	if err == nil && more && len(found) == 0 {
		return s.backward(ctx, page, r, limit)
	}
	return append(page, found...), more, err
}

// end returns the end of a range of keys of etcd. An empty end of the records is where other keys begin.
func (s *Store) end(to string) string {
	if to == "" {
		return s.records[:len(s.records)-1] + string(s.records[len(s.records)-1]+1)
	}
	return s.records + to
}

// scan calls each for the keys of a range in their order, at most limit of them, until it returns false. A limit of zero is none.
func (s *Store) scan(ctx context.Context, from, end string, limit int, keysOnly bool, each func(*mvccpb.KeyValue) bool) error {
	opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(int64(limit))}
	if keysOnly {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	if !s.noStreams.Load() {
		err := s.stream(ctx, from, opts, each)
		if codeOf(err) != codes.Unimplemented {
			return err
		}
		s.noStreams.Store(true)
	}
	r, err := s.client.Get(ctx, from, opts...)
	if err != nil {
		return err
	}
	for _, kv := range r.Kvs {
		if !each(kv) {
			break
		}
	}
	return nil
}

// stream is scan with servers that send a range piece by piece. They read no more than the limit, and count what is left of the range. Without
// a limit they would not count, and would read thousands of records more until they notice that no more are wanted.
func (s *Store) stream(ctx context.Context, from string, opts []clientv3.OpOption, each func(*mvccpb.KeyValue) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	pieces, err := s.client.GetStream(ctx, from, opts...)
	if err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		for range pieces { // until its goroutine ends
		}
	}()
	for piece := range pieces {
		if err := piece.Err(); err != nil {
			return err
		}
		for _, kv := range piece.Kvs {
			if !each(kv) {
				return nil
			}
		}
	}
	return ctx.Err()
}
