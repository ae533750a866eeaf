package storetest

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"testing"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// recorder is a testing.TB that collects failures instead of failing.
type recorder struct {
	testing.TB
	cleanups []func()

	mu         sync.Mutex // guards complaints; the claims about concurrency complain from several goroutines
	complaints []string
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.complaints = append(r.complaints, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// harness returns a Harness whose stores are made faulty by wrap. Their records stay in memory after a close.
func harness(wrap func(store.Store) store.Store) Harness {
	wrapped := func(disk store.Store) store.Store { return &handle{Store: wrap(&session{Store: disk}), disk: disk} }
	return Harness{
		Open:   func(testing.TB) store.Store { return wrapped(memory.New()) },
		Reopen: func(_ testing.TB, old store.Store) store.Store { return wrapped(old.(*handle).disk) },
	}
}

// handle is a wrapped store together with the store that has its records.
type handle struct {
	store.Store
	disk store.Store
}

// session is a store on another store. Closing a session does not close the other store.
type session struct {
	store.Store
	mu     sync.RWMutex
	closed bool
}

func (s *session) begin() (end func(), err error) {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, store.ErrClosed
	}
	return s.mu.RUnlock, nil
}

func (s *session) Get(ctx context.Context, key string) (store.Record, error) {
	end, err := s.begin()
	if err != nil {
		return store.Record{}, err
	}
	defer end()
	return s.Store.Get(ctx, key)
}

func (s *session) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		for rec, err := range s.Store.List(ctx, q) {
			end, closed := s.begin()
			if closed != nil {
				yield(store.Record{}, closed)
				return
			}
			end()
			if !yield(rec, err) {
				return
			}
		}
		if _, closed := s.begin(); closed != nil {
			yield(store.Record{}, closed)
		} else {
			s.mu.RUnlock()
		}
	}
}

func (s *session) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	end, err := s.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	return s.Store.Commit(ctx, ops...)
}

func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// faulty passes each call on to a store, unless it has a function that replaces the call.
type faulty struct {
	store.Store
	get    func(ctx context.Context, key string) (store.Record, error)
	list   func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error]
	commit func(ctx context.Context, ops ...store.Op) (store.Revision, error)
	close  func() error
}

func (f *faulty) Get(ctx context.Context, key string) (store.Record, error) {
	if f.get == nil {
		return f.Store.Get(ctx, key)
	}
	return f.get(ctx, key)
}

func (f *faulty) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	if f.list == nil {
		return f.Store.List(ctx, q)
	}
	return f.list(ctx, q)
}

func (f *faulty) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if f.commit == nil {
		return f.Store.Commit(ctx, ops...)
	}
	return f.commit(ctx, ops...)
}

func (f *faulty) Close() error {
	if f.close == nil {
		return f.Store.Close()
	}
	return f.close()
}

// The functions below make a faulty store from one function.

type (
	getFunc    = func(ctx context.Context, key string) (store.Record, error)
	listFunc   = func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error]
	commitFunc = func(ctx context.Context, ops ...store.Op) (store.Revision, error)
)

func onGet(change func(s store.Store) getFunc) func(store.Store) store.Store {
	return func(s store.Store) store.Store { return &faulty{Store: s, get: change(s)} }
}

func onList(change func(s store.Store) listFunc) func(store.Store) store.Store {
	return func(s store.Store) store.Store { return &faulty{Store: s, list: change(s)} }
}

func onCommit(change func(s store.Store) commitFunc) func(store.Store) store.Store {
	return func(s store.Store) store.Store { return &faulty{Store: s, commit: change(s)} }
}

// onQuery changes the query of each List.
func onQuery(change func(q store.Query) store.Query) func(store.Store) store.Store {
	return onList(func(s store.Store) listFunc {
		return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] { return s.List(ctx, change(q)) }
	})
}

// onOps changes the ops of each Commit.
func onOps(change func(ops []store.Op) []store.Op) func(store.Store) store.Store {
	return onCommit(func(s store.Store) commitFunc {
		return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			return s.Commit(ctx, change(ops)...)
		}
	})
}

// unconditional returns the op without its condition. For a Check it returns a Check of another key that always holds.
func unconditional(op store.Op) store.Op {
	switch {
	case op.Removes():
		return store.Delete(op.Key())
	case op.Writes():
		return store.Put(op.Key(), op.Value())
	default:
		return store.Check("\x00stranger/"+op.Key(), 0)
	}
}

func each(change func(op store.Op) store.Op) func(ops []store.Op) []store.Op {
	return func(ops []store.Op) []store.Op {
		changed := make([]store.Op, len(ops))
		for i, op := range ops {
			changed[i] = change(op)
		}
		return changed
	}
}

// collect returns all records of a sequence, or those before its error.
func collect(seq iter.Seq2[store.Record, error]) (recs []store.Record, err error) {
	for rec, err := range seq {
		if err != nil {
			return recs, err
		}
		recs = append(recs, rec)
	}
	return recs, nil
}

func replay(recs []store.Record, err error, yield func(store.Record, error) bool) {
	for _, rec := range recs {
		if !yield(rec, nil) {
			return
		}
	}
	if err != nil {
		yield(store.Record{}, err)
	}
}

// onRecords changes the records that each List yields.
func onRecords(change func(q store.Query, recs []store.Record) []store.Record) func(store.Store) store.Store {
	return onList(func(s store.Store) listFunc {
		return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
			return func(yield func(store.Record, error) bool) {
				recs, err := collect(s.List(ctx, q))
				replay(change(q, recs), err, yield)
			}
		}
	})
}
