package histories_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/conveyor-go/conveyor/store"
)

var (
	errDied    = errors.New("the process is dead")
	errRefused = errors.New("the disk is having a bad day")
)

// plant is a fault that is there to be found.
type plant string

const (
	soundly       plant = ""
	staleReads    plant = "a read is answered from an older snapshot"
	lostWrites    plant = "a commit is acknowledged and dropped"
	blindWrites   plant = "the conditions of a commit are not looked at"
	droppedEvent  plant = "a watcher is not given an event"
	swappedEvents plant = "a watcher is given two events the wrong way round"
	silence       plant = "an event is given to no watcher"
	repeatedEvent plant = "a watcher is given an event twice"
)

// shaky is the store of one life of the process. It takes its time, fails now and then, and dies at some commit: from
// then on it answers nothing but errors, and nothing reaches the records.
type shaky struct {
	store.Store
	w    *world
	bury func() // called once, when it has died, with mu held

	mu     sync.RWMutex // held for reading while the records are written, so that nothing is written after a death
	dead   bool
	calm   bool // nothing goes wrong any more. Invariant: what was calm while it lived does not die
	left   int  // commits until it dies
	after  bool // that commit happens
	former map[string]store.Record
	newest map[string]store.Record
}

func (s *shaky) isDead() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.dead
}

func (s *shaky) isCalm() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.calm
}

// appease has nothing go wrong any more. When it returns, the store is dead already, or does not die, though the commit at
// which it would have died may be under way.
func (s *shaky) appease() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calm = true
}

// die has the store die now, and reports whether it does.
func (s *shaky) die() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.calm {
		return false
	}
	s.dead = true
	s.bury()
	return true
}

// countdown says whether this is the commit at which the store dies.
func (s *shaky) countdown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left--
	return s.left == 0
}

func (s *shaky) Get(ctx context.Context, key string) (store.Record, error) {
	s.w.dawdle()
	if s.isDead() {
		return store.Record{}, errDied
	}
	if s.w.odds(s.w.failingReads) && !s.isCalm() {
		s.w.tally.count("fault: a read fails")
		return store.Record{}, errRefused
	}
	r, err := s.Store.Get(ctx, key)
	if s.w.plant == staleReads && err == nil && strings.HasPrefix(key, "res/") {
		r = s.stale(r)
	}
	s.w.dawdle()
	return r, err
}

// stale gives back what was there before, now and then.
func (s *shaky) stale(r store.Record) store.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		s.newest, s.former = map[string]store.Record{}, map[string]store.Record{}
	}
	if last := s.newest[r.Key]; last.Revision < r.Revision {
		s.former[r.Key], s.newest[r.Key] = last, r
	}
	if old := s.former[r.Key]; old.Revision > 0 && s.w.odds(50) {
		old.Value = slices.Clone(old.Value)
		return old
	}
	r.Value = slices.Clone(r.Value)
	return r
}

// shakyShared is a shaky store that is shared.
type shakyShared struct{ *shaky }

// Watch implements [store.Watcher].
func (s shakyShared) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range s.Store.(store.Watcher).Watch(ctx, prefix, after) {
			if s.isDead() {
				yield(store.Change{}, errDied)
				return
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func (s *shaky) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		s.w.dawdle()
		if s.isDead() {
			yield(store.Record{}, errDied)
			return
		}
		for r, err := range s.Store.List(ctx, q) {
			if !yield(r, err) {
				return
			}
			s.w.dawdle()
			if s.isDead() {
				yield(store.Record{}, errDied)
				return
			}
		}
	}
}

func (s *shaky) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	s.w.dawdle()
	last := s.countdown()
	if last && !s.after && s.die() {
		s.w.tally.count("process: died before a commit")
	}
	calm := s.isCalm()
	if !calm && s.w.odds(s.w.failingCommits) {
		s.w.tally.count("fault: a commit is refused")
		return 0, errRefused
	}
	doubtful := !calm && s.w.odds(s.w.doubtfulCommits)
	if doubtful && s.w.odds(500) {
		s.w.tally.count("fault: a commit is unknown, and has not happened")
		return 0, fmt.Errorf("%w: no", store.ErrUnknown)
	}
	rev, err := s.write(ctx, ops)
	if last && s.after && s.die() {
		s.w.tally.count("process: died after a commit")
	}
	s.w.dawdle()
	switch {
	case s.isDead():
		return 0, errDied
	case doubtful && err == nil:
		s.w.tally.count("fault: a commit is unknown, and has happened")
		return 0, fmt.Errorf("%w: yes", store.ErrUnknown)
	}
	return rev, err
}

func (s *shaky) write(ctx context.Context, ops []store.Op) (store.Revision, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.dead {
		return 0, errDied
	}
	if change := slices.ContainsFunc(ops, func(op store.Op) bool { return strings.HasPrefix(op.Key(), "res/") }); change {
		switch {
		case s.w.plant == lostWrites && s.w.odds(20):
			return s.Store.Commit(ctx)
		case s.w.plant == blindWrites:
			ops = slices.Clone(ops)
			for i, op := range ops {
				if strings.HasPrefix(op.Key(), "res/") && !op.Removes() && op.Writes() {
					ops[i] = store.Put(op.Key(), op.Value())
				}
			}
		}
	}
	return s.Store.Commit(ctx, ops...)
}
