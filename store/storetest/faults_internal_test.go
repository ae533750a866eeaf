package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

// TestEveryFaultIsCaught runs the claims of the suite against faulty stores. Each faulty store breaks one promise.
func TestEveryFaultIsCaught(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			sound := harness(func(s store.Store) store.Store { return s })
			require.Empty(t, verdict(t, f.caughtBy, sound), "the claim does not hold for a sound store")
			require.NotEmpty(t, verdict(t, f.caughtBy, harness(f.wrap)))
		})
	}
}

func TestASoundStoreHasNoFaults(t *testing.T) {
	Run(t, harness(func(s store.Store) store.Store { return s }))
}

func TestClaimsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range claims(harness(nil)) {
		require.False(t, seen[c.name], c.name)
		seen[c.name] = true
	}
}

func TestDurabilityIsNotAskedOfAStoreWithoutReopen(t *testing.T) {
	without := claims(Harness{})
	require.Len(t, claims(harness(nil)), len(without)+len(durabilityClaims))
}

// verdict runs one claim and returns its complaints.
func verdict(t *testing.T, name string, h Harness) []string {
	t.Helper()
	all := claims(h)
	i := slices.IndexFunc(all, func(c claim) bool { return c.name == name })
	require.GreaterOrEqual(t, i, 0, "no claim is called %q", name)

	rec := &recorder{TB: t}
	var ran sync.WaitGroup
	ran.Go(func() { all[i].check(rec, h) })
	ran.Wait()
	for _, clean := range rec.cleanups {
		clean()
	}
	return rec.complaints
}

var faults = []struct {
	name     string
	caughtBy string
	wrap     func(store.Store) store.Store
}{
	{
		"the ops of a commit are applied one by one until one fails",
		"a commit that fails applies none of its ops",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (rev store.Revision, err error) {
				for _, op := range ops {
					if rev, err = s.Commit(ctx, op); err != nil {
						return rev, err
					}
				}
				return rev, nil
			}
		}),
	}, {
		"a commit has one revision for each op",
		"the records of a commit have its revision and the others keep theirs",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (rev store.Revision, err error) {
				for _, op := range ops {
					if rev, err = s.Commit(ctx, op); err != nil {
						return rev, err
					}
				}
				return rev, nil
			}
		}),
	}, {
		"a reader can come between two ops of a commit",
		"readers never see half a commit",
		func(s store.Store) store.Store {
			var reads atomic.Int64
			return &faulty{
				Store: s,
				get: func(ctx context.Context, key string) (store.Record, error) {
					defer reads.Add(1)
					return s.Get(ctx, key)
				},
				commit: func(ctx context.Context, ops ...store.Op) (rev store.Revision, err error) {
					for _, op := range ops {
						if rev, err = s.Commit(ctx, op); err != nil {
							return rev, err
						}
						// Give readers time to read all keys.
						for n, spins := reads.Load(), 0; reads.Load() < n+10 && spins < 10_000; spins++ {
							runtime.Gosched()
						}
					}
					return rev, nil
				},
			}
		},
	}, {
		"a conflict is reported and everything written",
		"a commit that fails applies none of its ops",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				if errors.Is(err, store.ErrConflict) {
					_, _ = s.Commit(ctx, each(unconditional)(ops)...)
				}
				return rev, err
			}
		}),
	}, {
		"the condition of a put is lost",
		"a put with a revision holds at that revision alone",
		onOps(each(func(op store.Op) store.Op {
			if op.Writes() && !op.Removes() {
				return unconditional(op)
			}
			return op
		})),
	}, {
		"if absent is lost",
		"a put if absent holds when no record has the key",
		onOps(each(func(op store.Op) store.Op {
			if op.Writes() && !op.Holds(1<<50) {
				return unconditional(op)
			}
			return op
		})),
	}, {
		"the condition of a delete is lost",
		"delete obeys its condition",
		onOps(each(func(op store.Op) store.Op {
			if op.Removes() {
				return unconditional(op)
			}
			return op
		})),
	}, {
		"checks are ignored",
		"check makes the commit depend on a record",
		onOps(each(func(op store.Op) store.Op {
			if !op.Writes() && op.Key() != "" {
				return unconditional(op)
			}
			return op
		})),
	}, {
		"a check writes its record anew",
		"check writes nothing",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				for _, op := range ops {
					if rec, missing := s.Get(ctx, op.Key()); err == nil && missing == nil && !op.Writes() {
						_, _ = s.Commit(ctx, store.Put(rec.Key, rec.Value))
					}
				}
				return rev, err
			}
		}),
	}, {
		"checks return the revision of the next commit",
		"checks alone write nothing and return a revision between what was and what comes",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				if err == nil && !slices.ContainsFunc(ops, store.Op.Writes) {
					rev++
				}
				return rev, err
			}
		}),
	}, {
		"a commit without ops returns zero",
		"a commit without ops returns a revision between what was and what comes",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				if len(ops) == 0 {
					rev = 0
				}
				return rev, err
			}
		}),
	}, {
		"a revision is repeated",
		"each commit has a greater revision than all before it",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				return (rev + 1) / 2, err
			}
		}),
	}, {
		"a removal uses no revision",
		"each commit has a greater revision than all before it",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				if len(ops) > 0 && !slices.ContainsFunc(ops, func(op store.Op) bool { return !op.Removes() }) {
					rev--
				}
				return rev, err
			}
		}),
	}, {
		"concurrent commits share a revision",
		"concurrent commits have distinct revisions, which their records have",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				return (rev + 3) / 4 * 4, err
			}
		}),
	}, {
		"the values of a put are kept, not copied",
		"commit keeps no reference to the values",
		func(s store.Store) store.Store {
			kept := map[string][]byte{}
			return &faulty{
				Store: s,
				commit: func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
					for _, op := range ops {
						kept[op.Key()] = op.Value()
					}
					return s.Commit(ctx, ops...)
				},
				get: func(ctx context.Context, key string) (store.Record, error) {
					rec, err := s.Get(ctx, key)
					rec.Value = bytes.Clone(kept[key])
					return rec, err
				},
			}
		},
	}, {
		"a checksum is appended to the caller's value",
		"commit does not change the values",
		onOps(func(ops []store.Op) []store.Op {
			for _, op := range ops {
				_ = append(op.Value(), "checksum"...)
			}
			return ops
		}),
	}, {
		"get returns the store's own bytes",
		"the caller of get owns the value",
		func(s store.Store) store.Store {
			own := map[string]store.Record{}
			return &faulty{Store: s, get: func(ctx context.Context, key string) (store.Record, error) {
				if rec, ok := own[key]; ok {
					return rec, nil
				}
				rec, err := s.Get(ctx, key)
				own[key] = rec
				return rec, err
			}}
		},
	}, {
		"list cuts its values from one piece",
		"the caller of list owns the values",
		onRecords(func(_ store.Query, recs []store.Record) []store.Record {
			var piece []byte
			for _, rec := range recs {
				piece = append(piece, rec.Value...)
			}
			for i, at := 0, 0; i < len(recs); i++ {
				n := len(recs[i].Value)
				recs[i].Value = piece[at : at+n]
				at += n
			}
			return recs
		}),
	}, {
		"list sorts capitals and small letters together",
		"the zero query lists everything in ascending order",
		onRecords(func(_ store.Query, recs []store.Record) []store.Record {
			slices.SortStableFunc(recs, func(a, b store.Record) int {
				return strings.Compare(strings.ToValidUTF8(a.Key, ""), strings.ToValidUTF8(b.Key, ""))
			})
			return recs
		}),
	}, {
		"after is inclusive",
		"after leaves out the key itself, which need not exist",
		onList(func(s store.Store) listFunc {
			return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
				return func(yield func(store.Record, error) bool) {
					if rec, err := s.Get(ctx, q.After); err == nil && !yield(rec, nil) {
						return
					}
					s.List(ctx, q)(yield)
				}
			}
		}),
	}, {
		"after must exist",
		"after leaves out the key itself, which need not exist",
		onList(func(s store.Store) listFunc {
			return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
				if _, err := s.Get(ctx, q.After); q.After != "" && err != nil {
					q.Prefix = "\x00\x00none"
				}
				return s.List(ctx, q)
			}
		}),
	}, {
		"reverse ignores after",
		"after means smaller keys when the list is reversed",
		onQuery(func(q store.Query) store.Query {
			if q.Reverse {
				q.After = ""
			}
			return q
		}),
	}, {
		"reverse is ignored",
		"reverse lists in descending order",
		onQuery(func(q store.Query) store.Query {
			q.Reverse = false
			return q
		}),
	}, {
		"a reversed prefix starts below its greatest keys",
		"prefix, after, limit and reverse combine",
		onQuery(func(q store.Query) store.Query {
			if q.Reverse && q.After == "" && q.Prefix != "" {
				q.After = q.Prefix + "\xff"
			}
			return q
		}),
	}, {
		"limit is off by one",
		"limit is the largest number of records",
		onQuery(func(q store.Query) store.Query {
			if q.Limit > 0 {
				q.Limit++
			}
			return q
		}),
	}, {
		"a negative limit selects nothing",
		"limit is the largest number of records",
		onRecords(func(q store.Query, recs []store.Record) []store.Record {
			if q.Limit < 0 {
				return nil
			}
			return recs
		}),
	}, {
		"prefix selects what comes after it as well",
		"prefix limits the list to the keys that begin with it",
		onList(func(s store.Store) listFunc {
			return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
				q.After, q.Prefix = max(q.After, q.Prefix), ""
				return s.List(ctx, q)
			}
		}),
	}, {
		"the last key of a page is repeated",
		"a long list is complete in both directions",
		onRecords(func(_ store.Query, recs []store.Record) []store.Record {
			if len(recs) > 128 {
				recs = slices.Insert(recs, 128, recs[127])
			}
			return recs
		}),
	}, {
		"a list ends after a page",
		"a long list is complete in both directions",
		onRecords(func(_ store.Query, recs []store.Record) []store.Record { return recs[:min(len(recs), 256)] }),
	}, {
		"list yields the newest revision with every record",
		"list yields the records as they were written",
		onList(func(s store.Store) listFunc {
			return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
				return func(yield func(store.Record, error) bool) {
					newest, _ := s.Commit(ctx)
					recs, err := collect(s.List(ctx, q))
					for i := range recs {
						recs[i].Revision = newest
					}
					replay(recs, err, yield)
				}
			}
		}),
	}, {
		"a sequence is spent after one range",
		"a sequence starts anew each time it is ranged over",
		onList(func(s store.Store) listFunc {
			return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
				next, stop := iter.Pull2(s.List(ctx, q))
				return func(yield func(store.Record, error) bool) {
					defer stop()
					for rec, err, ok := next(); ok; rec, err, ok = next() {
						if !yield(rec, err) {
							return
						}
					}
				}
			}
		}),
	}, {
		"a list is read when it is asked for",
		"list sees the commits made before the range began",
		onList(func(s store.Store) listFunc {
			return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
				recs, err := collect(s.List(ctx, q))
				return func(yield func(store.Record, error) bool) { replay(recs, err, yield) }
			}
		}),
	}, {
		"a list yields keys again that were written meanwhile",
		"the body of a range may call the store",
		onList(func(s store.Store) listFunc {
			return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
				return func(yield func(store.Record, error) bool) {
					recs, _ := collect(s.List(ctx, q))
					replay(recs, nil, yield)
					now, err := collect(s.List(ctx, q))
					if len(now) < len(recs) {
						replay(recs[:1], err, yield)
					}
				}
			}
		}),
	}, {
		"get ignores a context that has ended",
		"get with an ended context returns its cause",
		onGet(func(s store.Store) getFunc {
			return func(ctx context.Context, key string) (store.Record, error) {
				return s.Get(context.WithoutCancel(ctx), key)
			}
		}),
	}, {
		"get answers canceled instead of the cause",
		"get with an ended context returns its cause",
		onGet(func(s store.Store) getFunc {
			return func(ctx context.Context, key string) (store.Record, error) {
				if err := ctx.Err(); err != nil {
					return store.Record{}, err
				}
				return s.Get(ctx, key)
			}
		}),
	}, {
		"list ignores a context that has ended",
		"list with an ended context yields its cause",
		onList(func(s store.Store) listFunc {
			return func(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
				return s.List(context.WithoutCancel(ctx), q)
			}
		}),
	}, {
		"list looks at the context at its start alone",
		"a context that ends on the way ends the range with its cause",
		onRecords(func(_ store.Query, recs []store.Record) []store.Record { return recs }),
	}, {
		"commit ignores a context that has ended",
		"commit with an ended context writes nothing and returns its cause",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				return s.Commit(context.WithoutCancel(ctx), ops...)
			}
		}),
	}, {
		"commit reports a context that ended after the writes",
		"what a commit with a departing caller reports is what happened",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				if len(ops) > 1 && err == nil {
					<-ctx.Done()
					return 0, context.Cause(ctx)
				}
				return rev, err
			}
		}),
	}, {
		"an over-long key is accepted",
		"the longest key is stored and a longer one refused",
		onOps(each(func(op store.Op) store.Op {
			if len(op.Key()) > store.MaxKey {
				return store.Put(op.Key()[:store.MaxKey], op.Value())
			}
			return op
		})),
	}, {
		"the longest key is refused",
		"the longest key is stored and a longer one refused",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				for _, op := range ops {
					if len(op.Key()) >= store.MaxKey {
						return 0, errors.New("key too long")
					}
				}
				return s.Commit(ctx, ops...)
			}
		}),
	}, {
		"a value is cut to the limit",
		"the largest value is stored and a larger one refused",
		onOps(each(func(op store.Op) store.Op {
			if len(op.Value()) > store.MaxValue {
				return store.Put(op.Key(), op.Value()[:store.MaxValue])
			}
			return op
		})),
	}, {
		"an empty value removes the record",
		"values may be empty",
		onOps(each(func(op store.Op) store.Op {
			if op.Writes() && len(op.Value()) == 0 {
				return store.Delete(op.Key())
			}
			return op
		})),
	}, {
		"keys end at their first zero byte",
		"keys may hold any bytes",
		onOps(each(func(op store.Op) store.Op {
			if key, _, cut := strings.Cut(op.Key(), "\x00"); cut && key != "" {
				return store.Put(key, op.Value())
			}
			return op
		})),
	}, {
		"of two ops for one key the last one counts",
		"a malformed op is refused with none of the sentinels",
		onOps(func(ops []store.Op) []store.Op {
			last := map[string]int{}
			for i, op := range ops {
				last[op.Key()] = i
			}
			var kept []store.Op
			for i, op := range ops {
				if last[op.Key()] == i {
					kept = append(kept, op)
				}
			}
			return kept
		}),
	}, {
		"a malformed op is called a conflict",
		"a malformed op is refused with none of the sentinels",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				if err := store.CheckOps(ops); err != nil {
					return 0, fmt.Errorf("%w: %w", store.ErrConflict, err)
				}
				return s.Commit(ctx, ops...)
			}
		}),
	}, {
		"delete of what is not there is not found",
		"delete of what is not there is no fault",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				for _, op := range ops {
					if _, err := s.Get(ctx, op.Key()); op.Removes() && err != nil {
						return 0, err
					}
				}
				return s.Commit(ctx, ops...)
			}
		}),
	}, {
		"commits check their conditions before they take the lock",
		"concurrent commits behave as if one came after the other",
		onCommit(func(s store.Store) commitFunc {
			return func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				for _, op := range ops {
					rec, _ := s.Get(ctx, op.Key())
					if !op.Holds(rec.Revision) {
						return 0, store.ErrConflict
					}
				}
				for range 10 {
					runtime.Gosched()
				}
				return s.Commit(ctx, each(unconditional)(ops)...)
			}
		}),
	}, {
		"a conflict fails the whole group",
		"a conflict among concurrent commits fails its own caller alone",
		func(s store.Store) store.Store {
			var (
				mu    sync.Mutex
				spoil bool
			)
			return &faulty{Store: s, commit: func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				mu.Lock()
				defer mu.Unlock()
				if err == nil && spoil {
					spoil = false
					return 0, store.ErrConflict
				}
				spoil = errors.Is(err, store.ErrConflict)
				return rev, err
			}}
		},
	}, {
		"a commit is acknowledged before it can be read",
		"get sees every commit that returned before it",
		onGet(func(s store.Store) getFunc {
			var (
				mu    sync.Mutex
				stale = map[string]store.Record{}
			)
			return func(ctx context.Context, key string) (store.Record, error) {
				rec, err := s.Get(ctx, key)
				mu.Lock()
				defer mu.Unlock()
				old, known := stale[key]
				stale[key] = rec
				if known {
					return old, err
				}
				return rec, err
			}
		}),
	}, {
		"a closed store answers",
		"get after close returns closed",
		func(s store.Store) store.Store { return &faulty{Store: s, close: func() error { return nil }} },
	}, {
		"a closed store lists",
		"list after close yields closed",
		func(s store.Store) store.Store { return &faulty{Store: s, close: func() error { return nil }} },
	}, {
		"a closed store accepts commits",
		"commit after close returns closed",
		func(s store.Store) store.Store { return &faulty{Store: s, close: func() error { return nil }} },
	}, {
		"a range goes on after close",
		"a range under way when the store is closed yields closed",
		onRecords(func(_ store.Query, recs []store.Record) []store.Record { return recs }),
	}, {
		"closing twice is an error",
		"closing twice returns nil",
		func(s store.Store) store.Store {
			n := 0
			return &faulty{Store: s, close: func() error {
				if n++; n > 1 {
					return store.ErrClosed
				}
				return s.Close()
			}}
		},
	}, {
		"the newest commits are gone after a reopen",
		"records survive a reopen",
		func(s store.Store) store.Store {
			var keys []string
			return &faulty{
				Store: s,
				commit: func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
					for _, op := range ops {
						keys = append(keys, op.Key())
					}
					return s.Commit(ctx, ops...)
				},
				close: func() error {
					if len(keys) > 0 {
						_, _ = s.Commit(context.Background(), store.Delete(keys[len(keys)-1]))
					}
					return s.Close()
				},
			}
		},
	}, {
		"what was removed is back after a reopen",
		"removals survive a reopen",
		func(s store.Store) store.Store {
			var removed []string
			return &faulty{
				Store: s,
				commit: func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
					for _, op := range ops {
						if op.Removes() {
							removed = append(removed, op.Key())
						}
					}
					return s.Commit(ctx, ops...)
				},
				close: func() error {
					for _, key := range removed {
						_, _ = s.Commit(context.Background(), store.Put(key, nil))
					}
					return s.Close()
				},
			}
		},
	}, {
		"a reopen starts from the newest revision that a record has",
		"revisions go on growing after a reopen",
		func(s store.Store) store.Store {
			recs, _ := collect(s.List(context.Background(), store.Query{}))
			var base, wrote store.Revision
			for _, rec := range recs {
				base = max(base, rec.Revision)
			}
			start, _ := s.Commit(context.Background())
			return &faulty{Store: s, commit: func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
				rev, err := s.Commit(ctx, ops...)
				if rev > 0 {
					wrote = rev - start + base
				}
				return wrote, err
			}}
		},
	}, {
		"commits that fail are done after a reopen",
		"a failed commit leaves nothing to a reopen",
		func(s store.Store) store.Store {
			var failed []store.Op
			return &faulty{
				Store: s,
				commit: func(ctx context.Context, ops ...store.Op) (store.Revision, error) {
					rev, err := s.Commit(ctx, ops...)
					if errors.Is(err, store.ErrConflict) {
						failed = each(unconditional)(ops)
					}
					return rev, err
				},
				close: func() error {
					_, _ = s.Commit(context.Background(), failed...)
					return s.Close()
				},
			}
		},
	}, {
		"acknowledged commits are dropped by a close in their midst",
		"what was acknowledged while the store closed is there after a reopen",
		func(s store.Store) store.Store {
			return &faulty{Store: s, close: func() error {
				recs, _ := collect(s.List(context.Background(), store.Query{Prefix: "w", Limit: 1}))
				if len(recs) > 0 {
					_, _ = s.Commit(context.Background(), store.Delete(recs[0].Key))
				}
				return s.Close()
			}}
		},
	},
}
