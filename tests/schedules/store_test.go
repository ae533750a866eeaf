package schedules_test

import (
	"context"
	"iter"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// slowStore is the store as one life of the engine has it. Each call takes some time before and after, which follows
// from the seed, the key and how often the key was asked for; and when the life is over nothing reaches the records.
type slowStore struct {
	store.Store
	x    *explorer
	life *lifetime
}

func (s *slowStore) Get(ctx context.Context, key string) (store.Record, error) {
	after, err := s.enter(key)
	defer s.leave(after)
	if err != nil {
		return store.Record{}, err
	}
	return s.Store.Get(ctx, key)
}

func (s *slowStore) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		after, err := s.enter(q.Prefix)
		var found []store.Record
		if err == nil {
			for r, broken := range s.Store.List(ctx, q) {
				if broken != nil {
					err = broken
					break
				}
				found = append(found, r)
			}
		}
		s.leave(after)
		for _, r := range found {
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			yield(store.Record{}, err)
		}
	}
}

func (s *slowStore) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	key := ""
	if len(ops) > 0 {
		key = ops[0].Key()
	}
	after, err := s.enter(key)
	defer s.leave(after)
	if err != nil {
		return 0, err
	}
	// With the lock held, so that what is witnessed is in the order in which it was committed.
	s.x.mu.Lock()
	defer s.x.mu.Unlock()
	if s.life.over {
		return 0, store.ErrClosed
	}
	rev, err := s.Store.Commit(ctx, ops...)
	if err == nil {
		s.x.committed(s.life, ops)
	}
	return rev, err
}

// enter is the time before a call. It returns the time after it.
func (s *slowStore) enter(key string) (after time.Duration, err error) {
	x := s.x
	x.mu.Lock()
	x.inStore++
	before := time.Duration(0)
	if x.slow > 0 && !s.life.over {
		about := x.nameOf(key)
		d := x.dice.on("store").on(about).at(x.asked[about])
		x.asked[about]++
		before, after = d.upTo(1000), d.upTo(1000) // nanoseconds
		if !d.oneIn(3) {
			before += d.upTo(x.slow)
		}
		if d.oneIn(2) {
			after += d.upTo(x.slow)
		}
	}
	x.mu.Unlock()
	s.spend(before)
	x.mu.Lock()
	defer x.mu.Unlock()
	if s.life.over {
		return 0, store.ErrClosed
	}
	return after, nil
}

// leave is the time after a call.
func (s *slowStore) leave(after time.Duration) {
	s.spend(after)
	s.x.mu.Lock()
	defer s.x.mu.Unlock()
	if s.x.inStore--; s.x.inStore == 0 {
		s.x.look()
	}
}

func (s *slowStore) spend(d time.Duration) {
	switch {
	case d > 0:
		time.Sleep(d)
	case s.x.noise:
		for range rand.IntN(4) {
			runtime.Gosched()
		}
	}
}

// nameOf is a key with the run named in a way that is the same in every play.
func (x *explorer) nameOf(key string) string {
	switch id, rest, ok := runOf(key); {
	case !ok:
		return key
	case x.runs[id] == nil:
		return key[:4]
	default:
		step, _, _ := strings.Cut(rest[min(1, len(rest)):], "/") // what follows it may be another id
		return key[:4] + x.runs[id].alias + step
	}
}

// runOf finds the run in a key that has one.
func runOf(key string) (id, rest string, ok bool) {
	if len(key) < 4+lengthOfID || !strings.Contains("run/ act/ pln/ stp/ att/ ckp/ sig/ log/", key[:4]) {
		return "", "", false
	}
	return key[4 : 4+lengthOfID], key[4+lengthOfID:], true
}

const lengthOfID = 26
