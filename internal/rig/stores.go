package rig

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/invariant"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/shortlived"
	"github.com/conveyor-go/conveyor/store"
)

// Tap stands between an engine and its store. It keeps what was committed, counts what is read, and can refuse commits, or
// go dead as if the process had ended.
type Tap struct {
	store.Store

	mu      sync.Mutex
	commits [][]string                // keys of each successful commit that wrote something
	refuse  func(keys []string) error // asked before each commit; may be nil
	dead    bool
	reads   map[string]int // by the key of a Get or the prefix of a List
}

// Limits implements [store.Limited] with the limits of the store behind.
func (s *Tap) Limits() store.Limits { return store.LimitsOf(s.Store) }

// sharedTap is a Tap of a shared store.
type sharedTap struct{ *Tap }

// Watch implements [store.Watcher].
func (s sharedTap) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return s.Store.(store.Watcher).Watch(ctx, prefix, after)
}

// Get implements [store.Store].
func (s *Tap) Get(ctx context.Context, key string) (store.Record, error) {
	if s.read(key) {
		return store.Record{}, store.ErrClosed
	}
	return s.Store.Get(ctx, key)
}

// List implements [store.Store].
func (s *Tap) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if s.read(q.Prefix) {
			yield(store.Record{}, store.ErrClosed)
			return
		}
		s.Store.List(ctx, q)(yield)
	}
}

// Commit implements [store.Store].
func (s *Tap) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	var keys []string
	for _, op := range ops {
		if op.Writes() {
			keys = append(keys, op.Key())
		}
	}
	s.mu.Lock()
	dead, refuse := s.dead, s.refuse
	s.mu.Unlock()
	if dead {
		return 0, store.ErrClosed
	}
	if refuse != nil {
		if err := refuse(keys); err != nil {
			return 0, err
		}
	}
	rev, err := s.Store.Commit(ctx, ops...)
	if err == nil && len(keys) > 0 {
		s.mu.Lock()
		s.commits = append(s.commits, keys)
		s.mu.Unlock()
	}
	return rev, err
}

// read counts a read and reports whether the store is dead.
func (s *Tap) read(what string) (dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reads == nil {
		s.reads = map[string]int{}
	}
	s.reads[what]++
	return s.dead
}

// TakeReads returns how often each key was read, and each prefix listed, since the last call of TakeReads.
func (s *Tap) TakeReads() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	reads := s.reads
	s.reads = nil
	return reads
}

// CutOff has all later calls return [store.ErrClosed].
func (s *Tap) CutOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

// Refusing sets the function that is asked before each commit and can refuse it; nil for none.
func (s *Tap) Refusing(fn func(keys []string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = fn
}

// Commits counts the commits that wrote something.
func (s *Tap) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.commits)
}

// CommitsOf counts the commits that wrote something of a run.
func (s *Tap) CommitsOf(run string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, keys := range s.commits {
		for _, key := range keys {
			if strings.Contains(key, run) {
				n++
				break
			}
		}
	}
	return n
}

// Probe is a store that does something at each Get, before or after it, to come between two reads of somebody else.
type Probe struct {
	store.Store

	mu            sync.Mutex // guards what follows; not held while they are called
	before, after func(key string)
}

// Get implements [store.Store].
func (p *Probe) Get(ctx context.Context, key string) (store.Record, error) {
	p.mu.Lock()
	before := p.before
	p.mu.Unlock()
	if before != nil {
		before(key)
	}
	r, err := p.Store.Get(ctx, key)
	p.mu.Lock()
	after := p.after
	p.mu.Unlock()
	if after != nil {
		after(key)
	}
	return r, err
}

// Before sets what is done before a Get; nil for nothing.
func (p *Probe) Before(before func(key string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = before
}

// After sets what is done after a Get; nil for nothing.
func (p *Probe) After(after func(key string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = after
}

// Once calls fn for the first key with a prefix.
func Once(prefix string, fn func()) func(key string) {
	var done sync.Once
	return func(key string) {
		if strings.HasPrefix(key, prefix) {
			done.Do(fn)
		}
	}
}

// Dump returns all that a store holds, by key.
func Dump(t *testing.T, st store.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for r, err := range st.List(context.Background(), store.Query{}) {
		require.NoError(t, err)
		all[r.Key] = fmt.Sprintf("%d %s", r.Revision, r.Value)
	}
	return all
}

// RequireAtRest fails if the records say that something is under way or waits.
func RequireAtRest(t require.TestingT, disk store.Store) {
	kept := map[string]store.Record{}
	for _, prefix := range []string{record.ActivePrefix, record.ResourcePrefix} {
		for r, err := range shortlived.On(disk).List(context.Background(), store.Query{Prefix: prefix}) {
			require.NoError(t, err)
			kept[r.Key] = r
		}
	}
	require.Empty(t, invariant.Unrest(kept))
}

// ErrDied is what a store answers whose process has died.
var ErrDied = errors.New("the process is dead")

// HeapInUse returns the number of bytes that are reachable.
func HeapInUse() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held on to
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
