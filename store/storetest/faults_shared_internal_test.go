package storetest

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// faultyShared passes each call on to a shared store, unless it has a function that replaces the call.
type faultyShared struct {
	*memory.Shared
	world  *world
	get    getFunc
	commit commitFunc
	watch  watchFunc
	limits func() store.Limits
	close  func() error
}

type watchFunc = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error]

// world is what all handles of a faulty store have in common.
type world struct {
	losing atomic.Bool
	calls  atomic.Int64
	mu     sync.Mutex
	first  *memory.Shared
}

func (f *faultyShared) Get(ctx context.Context, key string) (store.Record, error) {
	if f.get == nil {
		return f.Shared.Get(ctx, key)
	}
	return f.get(ctx, key)
}

func (f *faultyShared) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := f.Limits().Check(ops); err != nil && f.commit == nil {
		return 0, err
	}
	if f.commit == nil {
		return f.Shared.Commit(ctx, ops...)
	}
	return f.commit(ctx, ops...)
}

func (f *faultyShared) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	if f.watch == nil {
		return f.Shared.Watch(ctx, prefix, after)
	}
	return f.watch(ctx, prefix, after)
}

func (f *faultyShared) Limits() store.Limits {
	if f.limits == nil {
		return store.Limits{Value: 120_000, Ops: 100, Bytes: 150_000}
	}
	return f.limits()
}

func (f *faultyShared) Close() error {
	if f.close == nil {
		return f.Shared.Close()
	}
	return f.close()
}

// sharedHarness returns a Harness whose handles are made faulty by wrap.
func sharedHarness(wrap func(f *faultyShared)) Harness {
	handle := func(s *memory.Shared, w *world) store.Store {
		f := &faultyShared{Shared: s, world: w}
		wrap(f)
		return f
	}
	return Harness{
		Open: func(testing.TB) store.Store {
			s := memory.NewShared()
			return handle(s, &world{first: s})
		},
		Join: func(_ testing.TB, s store.Store) store.Store {
			f := s.(*faultyShared)
			return handle(f.Join(), f.world)
		},
		Forget: func(_ testing.TB, s store.Store) { s.(*faultyShared).Forget() },
		Lose: func(_ testing.TB, s store.Store) (heal func()) {
			w := s.(*faultyShared).world
			w.losing.Store(true)
			return func() { w.losing.Store(false) }
		},
	}
}

// TestEveryFaultOfASharedStoreIsCaught is TestEveryFaultIsCaught for what shared stores promise, and for limits.
func TestEveryFaultOfASharedStoreIsCaught(t *testing.T) {
	for _, f := range sharedFaults {
		t.Run(f.name, func(t *testing.T) {
			require.Empty(t, verdict(t, f.caughtBy, sharedHarness(func(*faultyShared) {})), "the claim does not hold for a sound store")
			defer func(usual time.Duration) { patience = usual }(patience)
			patience = 50 * time.Millisecond
			for range 50 { // a fault of concurrent calls does not show each time
				if len(verdict(t, f.caughtBy, sharedHarness(f.wrap))) > 0 {
					return
				}
			}
			require.Fail(t, "the fault is not caught")
		})
	}
}

func TestEachClaimOfASharedStoreCatchesAFault(t *testing.T) {
	for _, c := range slices.Concat(limitClaims, handleClaims, watchClaims, gapClaims, lossClaims) {
		if c.name == aWatcher {
			continue // see TestAStoreThatCannotBeWatchedIsNotShared
		}
		require.True(t, slices.ContainsFunc(sharedFaults, func(f sharedFault) bool { return f.caughtBy == c.name }), c.name)
	}
}

const aWatcher = "a shared store is a Watcher"

func TestAStoreThatCannotBeWatchedIsNotShared(t *testing.T) {
	s := memory.New()
	require.NotEmpty(t, verdict(t, aWatcher, Harness{
		Open: func(testing.TB) store.Store { return s },
		Join: func(testing.TB, store.Store) store.Store { return s },
	}))
}

func TestASoundSharedStoreHasNoFaults(t *testing.T) {
	Run(t, sharedHarness(func(*faultyShared) {}))
}

// changed returns a watch that passes on what pass returns of each change.
func changed(f *faultyShared, pass func(c store.Change) []store.Change) watchFunc {
	return func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
		return func(yield func(store.Change, error) bool) {
			for c, err := range f.Shared.Watch(ctx, prefix, after) {
				if err != nil {
					yield(c, err)
					return
				}
				for _, c := range pass(c) {
					if !yield(c, nil) {
						return
					}
				}
			}
		}
	}
}

// firstPage returns a watch that ends when it has told what there was at its begin. If spent is set, the next range goes on where
// the last one has ended.
func firstPage(f *faultyShared, spent bool) watchFunc {
	return func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
		return func(yield func(store.Change, error) bool) {
			for c, err := range f.Shared.Watch(ctx, prefix, after) {
				if spent {
					after = max(after, c.Revision)
				}
				if !yield(c, err) {
					return
				}
				if c.Key == "" {
					yield(store.Change{}, errors.New("the page is over"))
					return
				}
			}
		}
	}
}

type sharedFault struct {
	name     string
	caughtBy string
	wrap     func(f *faultyShared)
}

var sharedFaults = []sharedFault{
	{"the limits change with what is stored", "the limits of a store stay the same", func(f *faultyShared) {
		f.limits = func() store.Limits {
			rev, _ := f.Shared.Commit(context.Background())
			return store.Limits{Ops: int(rev) + 5}
		}
	}},
	{"one op less than stated is accepted", "a commit of as many ops as the store states is carried out, and a larger one refused", func(f *faultyShared) {
		f.commit = func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			if len(ops) >= 100 {
				return 0, errors.New("too many")
			}
			return f.Shared.Commit(ctx, ops...)
		}
	}},
	{"one op more than stated is accepted", "a commit of as many ops as the store states is carried out, and a larger one refused", func(f *faultyShared) {
		f.commit = f.Shared.Commit
	}},
	{"one byte more than stated is accepted", "a commit of as many bytes as the store states is carried out, and a larger one refused", func(f *faultyShared) {
		f.commit = f.Shared.Commit
	}},
	{"keys do not count", "a commit of as many bytes as the store states is carried out, and a larger one refused", func(f *faultyShared) {
		f.commit = func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			n := 0
			for _, op := range ops {
				n += len(op.Value())
			}
			if n > f.Limits().Bytes {
				return 0, errors.New("too much")
			}
			return f.Shared.Commit(ctx, ops...)
		}
	}},

	{"a handle reads its own copy", "what one handle commits every other one sees", func(f *faultyShared) {
		kept := map[string]store.Record{}
		f.get = func(ctx context.Context, key string) (store.Record, error) {
			if rec, ok := kept[key]; ok {
				return rec, nil
			}
			rec, err := f.Shared.Get(ctx, key)
			if err == nil {
				kept[key] = rec
			}
			return rec, err
		}
	}},
	{"closing a handle closes the store", "closing a handle leaves the others", func(f *faultyShared) {
		f.close = func() error {
			for rec := range f.List(context.Background(), store.Query{}) {
				_, _ = f.Shared.Commit(context.Background(), store.Delete(rec.Key))
			}
			return f.Shared.Close()
		}
	}},
	{"a handle states other limits", "all handles state the same limits", func(f *faultyShared) {
		n := int(f.world.calls.Add(1))
		f.limits = func() store.Limits { return store.Limits{Ops: n} }
	}},
	{"a handle reads from a copy that is behind", "a caller that has seen a revision sees everything before it", func(f *faultyShared) {
		var mu sync.Mutex
		var behind store.Record
		f.get = func(ctx context.Context, key string) (store.Record, error) {
			rec, err := f.Shared.Get(ctx, key)
			if key != "a" || err != nil {
				return rec, err
			}
			mu.Lock()
			defer mu.Unlock()
			if behind.Key == "" {
				behind = rec
			}
			rec, behind = behind, rec
			return rec, nil
		}
	}},

	{"the second key of a commit is not told", "watch yields every key that a commit changes", func(f *faultyShared) {
		var told store.Revision
		f.watch = changed(f, func(c store.Change) []store.Change {
			if c.Key != "" && c.Revision == told {
				return nil
			}
			told = c.Revision
			return []store.Change{c}
		})
	}},
	{"a handle is not told what others commit", "watch yields every key that a commit changes", func(f *faultyShared) {
		own := map[store.Revision]bool{}
		f.commit = func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			rev, err := f.Shared.Commit(ctx, ops...)
			own[rev] = true
			return rev, err
		}
		f.watch = changed(f, func(c store.Change) []store.Change {
			if !own[c.Revision] {
				return nil
			}
			return []store.Change{c}
		})
	}},
	{"a watch begins with the commit of its revision", "watch begins after its revision", func(f *faultyShared) {
		f.watch = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
			return f.Shared.Watch(ctx, prefix, max(after-1, 0))
		}
	}},
	{"a watch begins one commit late", "watch begins after its revision", func(f *faultyShared) {
		f.watch = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
			return f.Shared.Watch(ctx, prefix, after+1)
		}
	}},
	{"a watch tells what is there and ends", "watch yields what is committed while it goes on", func(f *faultyShared) {
		f.watch = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
			return func(yield func(store.Change, error) bool) {
				for c, err := range f.Shared.Watch(ctx, prefix, after) {
					if !yield(c, err) || c.Key == "" {
						return
					}
				}
			}
		}
	}},
	{"a prefix is a folder", "watch keeps to its prefix", func(f *faultyShared) {
		f.watch = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
			return f.Shared.Watch(ctx, prefix[:max(len(prefix)-1, 0)], after)
		}
	}},
	{"the newest change comes first", "the changes come in ascending order of their revisions", func(f *faultyShared) {
		f.watch = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
			return func(yield func(store.Change, error) bool) {
				var all []store.Change
				for c, err := range f.Shared.Watch(ctx, prefix, after) {
					if err != nil || c.Key == "" {
						break
					}
					all = append(all, c)
				}
				slices.Reverse(all[:max(len(all)-1, 0)])
				for _, c := range all {
					if !yield(c, nil) {
						return
					}
				}
			}
		}
	}},
	{"the revision is told before the changes", "when a change comes all earlier ones have come", func(f *faultyShared) {
		f.watch = changed(f, func(c store.Change) []store.Change {
			if c.Key == "" {
				return nil
			}
			return []store.Change{{Revision: c.Revision}, c}
		})
	}},
	{"removals are told and writes are not", "when a change comes all earlier ones have come", func(f *faultyShared) {
		f.watch = changed(f, func(c store.Change) []store.Change {
			if _, err := f.Shared.Get(context.Background(), c.Key); err == nil && c.Key != "last" {
				return nil
			}
			return []store.Change{c}
		})
	}},
	{"a change is told before it can be read", "what a change tells every handle sees", func(f *faultyShared) {
		f.watch = changed(f, func(c store.Change) []store.Change {
			if c.Key != "" {
				c.Revision += 1000
			}
			return []store.Change{c}
		})
	}},
	{"every third change is lost", "a watch that is called again goes on without a gap", func(f *faultyShared) {
		n := 0
		f.watch = changed(f, func(c store.Change) []store.Change {
			if n++; n%3 == 0 && c.Key != "last" {
				return nil
			}
			return []store.Change{c}
		})
	}},
	{"a watch can be ranged over once", "each range over a watch starts anew", func(f *faultyShared) {
		f.watch = firstPage(f, true)
	}},
	{"a watch tells no more after its first page", "the body of a watch may call the store", func(f *faultyShared) {
		f.watch = firstPage(f, false)
	}},
	{"a watch ends with canceled", "a watch ends with its context and yields the cause", func(f *faultyShared) {
		f.watch = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
			return func(yield func(store.Change, error) bool) {
				for c, err := range f.Shared.Watch(ctx, prefix, after) {
					if ctx.Err() != nil {
						yield(store.Change{}, ctx.Err())
						return
					}
					if !yield(c, err) {
						return
					}
				}
			}
		}
	}},
	{"a watch ends without an error", "a watch ends when its handle is closed", func(f *faultyShared) {
		f.watch = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
			return func(yield func(store.Change, error) bool) {
				for c, err := range f.Shared.Watch(ctx, prefix, after) {
					if err != nil || !yield(c, err) {
						return
					}
				}
			}
		}
	}},
	{"a watch begins with what is known", "a watch from a revision that is forgotten yields a gap", func(f *faultyShared) {
		f.watch = func(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
			rev, _ := f.Shared.Commit(ctx)
			return f.Shared.Watch(ctx, prefix, rev)
		}
	}},
	{"a watch after a gap yields a gap", "after a gap a list and a watch tell everything", func(f *faultyShared) {
		f.watch = func(context.Context, string, store.Revision) iter.Seq2[store.Change, error] {
			return func(yield func(store.Change, error) bool) { yield(store.Change{}, store.ErrGap) }
		}
	}},

	{"a lost answer counts as a failure", "what a commit reports is what happened although answers get lost", func(f *faultyShared) {
		f.commit = func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			rev, err := f.Shared.Commit(ctx, ops...)
			if f.world.losing.Load() && f.world.calls.Add(1)%5 == 0 {
				return 0, store.ErrUnavailable
			}
			return rev, err
		}
	}},
	{"a commit that did not arrive counts as one that happened", "what a commit reports is what happened although answers get lost", func(f *faultyShared) {
		f.commit = func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			if f.world.losing.Load() && f.world.calls.Add(1)%5 == 0 {
				return 1, nil
			}
			return f.Shared.Commit(ctx, ops...)
		}
	}},
	{"half of a commit arrives", "what a commit reports is what happened although answers get lost", func(f *faultyShared) {
		f.commit = func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			if f.world.losing.Load() && f.world.calls.Add(1)%5 == 0 {
				_, _ = f.Shared.Commit(ctx, ops[0])
				return 0, store.ErrUnknown
			}
			return f.Shared.Commit(ctx, ops...)
		}
	}},
	{"a commit is sent again without its conditions", "a commit whose answer was lost happens once at most", func(f *faultyShared) {
		f.commit = func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			rev, err := f.Shared.Commit(ctx, ops...)
			if f.world.losing.Load() && errors.Is(err, store.ErrConflict) {
				return f.Shared.Commit(ctx, each(unconditional)(ops)...)
			}
			return rev, err
		}
	}},
	{"a commit whose answer was lost is not told", "a watch misses nothing although answers get lost", func(f *faultyShared) {
		lost := map[string]bool{}
		f.commit = func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
			rev, err := f.Shared.Commit(ctx, ops...)
			if f.world.losing.Load() && f.world.calls.Add(1)%5 == 0 {
				f.world.mu.Lock()
				defer f.world.mu.Unlock()
				lost[ops[0].Key()] = true
				return 0, store.ErrUnknown
			}
			return rev, err
		}
		f.watch = changed(f, func(c store.Change) []store.Change {
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			if lost[c.Key] {
				return nil
			}
			return []store.Change{c}
		})
	}},
}
