// Package memory is the reference store: it keeps records in the memory of the process and nowhere else.
//
// The other stores are compared with this store, and the tests of a program run on it. Nothing survives Close or the
// end of the process. A [Store] belongs to one owner. A [Shared] store has several handles, as a server has clients, so that a
// test can run several engines in one process.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// Store implements [store.Store] in memory. Make one with [New].
type Store struct {
	closed atomic.Bool // written with records.mu held; can be read without mu where nothing else is read
	*records
}

// records are what one store has, or all handles of a shared one.
type records struct {
	mu     sync.RWMutex // guards the fields below; held for one commit or one page of a list, never while a caller's code runs
	newest store.Revision

	// byKey and inOrder have the same records: byKey finds a key in constant time, inOrder keeps the order of the keys.
	// Invariant: the bytes of a value never change. A commit replaces the slice, so a reader that has the slice can
	// copy it after it has released the lock.
	byKey   map[string]*store.Record
	inOrder tree

	changes *changes // nil unless the store is shared
}

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store { return &Store{records: newRecords()} }

func newRecords() *records { return &records{byKey: make(map[string]*store.Record)} }

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	rec, err := s.find(ctx, key)
	if err != nil {
		return store.Record{}, err
	}
	rec.Value = bytes.Clone(rec.Value)
	return rec, nil
}

func (s *Store) find(ctx context.Context, key string) (store.Record, error) {
	if ctx.Err() != nil {
		return store.Record{}, context.Cause(ctx)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed.Load() {
		return store.Record{}, store.ErrClosed
	}
	rec := s.byKey[key]
	if rec == nil {
		return store.Record{}, fmt.Errorf("%w: %.*q", store.ErrNotFound, store.MaxKey, key)
	}
	return *rec, nil
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	alive := func() error { return s.alive(ctx) }
	return keyrange.Pages(q, alive, s.page, bytes.Clone)
}

func (s *Store) alive(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.closed.Load() {
		return store.ErrClosed
	}
	return nil
}

func (s *records) page(page []store.Record, r keyrange.Range, limit int) (_ []store.Record, more bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	page = s.inOrder.appendRange(page, r, limit)
	return page, len(page) == limit, nil
}

// Commit implements [store.Store].
func (s *Store) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return 0, store.ErrClosed
	}

	var buf [16]*store.Record // large enough for most commits
	found, err := s.findAllLocked(buf[:0], ops)
	if err != nil {
		return 0, err
	}
	if slices.ContainsFunc(ops, store.Op.Writes) {
		s.newest++
		s.applyLocked(ops, found)
		if s.changes != nil {
			s.changes.addLocked(s.newest, ops)
		}
	}
	return s.newest, nil
}

// Close implements [store.Store]. It drops the records.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed.Store(true)
	s.byKey, s.inOrder = nil, tree{}
	return nil
}

// findAllLocked appends to found the record of each op, or nil if there is none. It returns an error if the condition
// of an op does not hold.
func (s *records) findAllLocked(found []*store.Record, ops []store.Op) ([]*store.Record, error) {
	for _, op := range ops {
		rec, rev := s.byKey[op.Key()], store.Revision(0)
		if rec != nil {
			rev = rec.Revision
		}
		if !op.Holds(rev) {
			return nil, fmt.Errorf("%w: %q has revision %d", store.ErrConflict, op.Key(), rev)
		}
		found = append(found, rec)
	}
	return found, nil
}

// applyLocked carries out ops, whose records are in found.
func (s *records) applyLocked(ops []store.Op, found []*store.Record) {
	values := newArena(ops)
	for i, op := range ops { // no two ops have the same key, so the records found are still the current ones
		switch {
		case op.Removes() && found[i] != nil:
			delete(s.byKey, op.Key())
			s.inOrder.remove(op.Key())
		case op.Writes() && !op.Removes():
			s.putLocked(found[i], op.Key(), values.clone(op.Value()))
		}
	}
}

// putLocked writes a value into rec, the record of the key, or into a new record if rec is nil.
func (s *records) putLocked(rec *store.Record, key string, value []byte) {
	if rec == nil {
		rec = &store.Record{Key: key}
		s.byKey[key] = rec
		s.inOrder.insert(rec)
	}
	rec.Value, rec.Revision = value, s.newest
}

// arena is one piece of memory for the small values of one commit. A large value gets memory of its own, because the
// arena is kept as long as one value in it is kept.
type arena []byte

const smallValue = 1 << 10

func newArena(ops []store.Op) arena {
	size := 0
	for _, op := range ops {
		if n := len(op.Value()); n <= smallValue {
			size += n
		}
	}
	return make(arena, 0, size)
}

func (a *arena) clone(value []byte) []byte {
	if len(value) > smallValue {
		return bytes.Clone(value)
	}
	from := len(*a)
	*a = append(*a, value...)
	return (*a)[from:len(*a):len(*a)]
}
