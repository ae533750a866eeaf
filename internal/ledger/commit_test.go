package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

var errUnknown = fmt.Errorf("disk: %w", store.ErrUnknown)

// forgetful is a store that commits, or does not, and then does not know which.
type forgetful struct {
	store.Store
	commits bool
}

func (f forgetful) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if f.commits {
		if _, err := f.Store.Commit(ctx, ops...); err != nil {
			return 0, err
		}
	}
	return 0, errUnknown
}

// afterRead is a store in which something happens each time that a record was found.
type afterRead struct {
	store.Store
	then func()
}

func (a afterRead) Get(ctx context.Context, key string) (store.Record, error) {
	r, err := a.Store.Get(ctx, key)
	if err == nil {
		a.then()
	}
	return r, err
}

func TestFindOut(t *testing.T) {
	const (
		happened = iota
		notHappened
		conflict
		unknown
		permanent
	)
	run, step := record.RunKey("r1"), record.StepKey("r1", "1")
	resource, revision := record.ResourceKey(app), record.RevisionKey(app, 2)
	for _, c := range []struct {
		name string
		old  []string // keys that exist before the commit, with the value "old"
		ops  func(rev store.Revision) []store.Op
		done bool
		then func(*book) // after the commit
		want int
	}{
		{"a record that is new is there", nil, func(store.Revision) []store.Op {
			return []store.Op{store.Put(run, []byte("new")).IfAbsent(), store.Put("log/r1/1", []byte("line"))}
		}, true, func(*book) {}, happened},
		{"a record that is new is not there", nil, func(store.Revision) []store.Op {
			return []store.Op{store.Put(run, []byte("new")).IfAbsent()}
		}, false, func(*book) {}, notHappened},
		{"a record has the new value", []string{step}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(step, []byte("new")).If(rev)}
		}, true, func(*book) {}, happened},
		{"a record has the old revision", []string{step}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(step, []byte("new")).If(rev)}
		}, false, func(*book) {}, notHappened},
		{"the new value is equal to the old one, and the revision is old", []string{step}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(step, []byte("old")).If(rev)}
		}, false, func(*book) {}, notHappened},
		{"somebody else has written the record", []string{step}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(step, []byte("new")).If(rev)}
		}, false, func(b *book) { b.put(step, []byte("other")) }, conflict},
		{"somebody else has made the record", nil, func(store.Revision) []store.Op {
			return []store.Op{store.Put(run, []byte("new")).IfAbsent()}
		}, false, func(b *book) { b.put(run, []byte("other")) }, conflict},
		{"somebody else has removed the record", []string{step}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(step, []byte("new")).If(rev)}
		}, false, func(b *book) { b.remove(step) }, conflict},
		{"the resource was written over, and its generation is there", []string{resource}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(resource, []byte("new")).If(rev), store.Put(revision, []byte("spec")).IfAbsent()}
		}, true, func(b *book) { b.put(resource, []byte("other")) }, happened},
		{"the resource was written over, and its generation is not there", []string{resource}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(resource, []byte("new")).If(rev), store.Put(revision, []byte("spec")).IfAbsent()}
		}, false, func(b *book) { b.put(resource, []byte("other")) }, unknown},
		{"the resource was written over, and its generation is another one", []string{resource}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(resource, []byte("new")).If(rev), store.Put(revision, []byte("spec")).IfAbsent()}
		}, false, func(b *book) { b.put(resource, []byte("other"), revision, []byte("other")) }, conflict},
		{"somebody else has written the same resource, and another generation", []string{resource}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(resource, []byte("new")).If(rev), store.Put(revision, []byte("spec")).IfAbsent()}
		}, false, func(b *book) { b.put(resource, []byte("new"), revision, []byte("other")) }, conflict},
		{"the resource is there, and a run that is not", []string{resource}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(resource, []byte("new")).If(rev), store.Put(revision, []byte("spec")).IfAbsent(), store.Put(run, []byte("new")).IfAbsent()}
		}, true, func(b *book) { b.remove(run) }, happened},
		{"the resource was removed, and its generation with it", []string{resource}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(resource, []byte("new")).If(rev), store.Put(revision, []byte("spec")).IfAbsent()}
		}, true, func(b *book) { b.remove(resource, revision) }, unknown},
		{"the resource is removed with its generation after it was read", []string{resource}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(resource, []byte("new")).If(rev), store.Put(revision, []byte("spec")).IfAbsent()}
		}, true, func(b *book) { b.Store = afterRead{b.Store, func() { b.remove(resource, revision) }} }, unknown},
		{"the resource was written over, and no generation came with it", []string{resource}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put(resource, []byte("new")).If(rev)}
		}, true, func(b *book) { b.put(resource, []byte("other")) }, unknown},
		{"nothing is written under a condition", nil, func(store.Revision) []store.Op {
			return []store.Op{store.Put("log/r1/1", []byte("line")), store.Delete("que/1")}
		}, true, func(*book) {}, notHappened},
		{"nothing is written under a condition but one is checked", []string{run}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Put("log/r1/1", []byte("line")), store.Check(run, rev)}
		}, true, func(*book) {}, notHappened},
		{"a record is removed under a condition", []string{run}, func(rev store.Revision) []store.Op {
			return []store.Op{store.Delete(run).If(rev)}
		}, true, func(*book) {}, unknown},
		{"the store cannot be read", nil, func(store.Revision) []store.Op {
			return []store.Op{store.Put(run, []byte("new")).IfAbsent()}
		}, true, func(b *book) { b.Store = broken{b.Store, errors.New("boom")} }, unknown},
		{"the store does not know yet", nil, func(store.Revision) []store.Op {
			return []store.Op{store.Put(run, []byte("new")).IfAbsent()}
		}, true, func(b *book) { b.Store = broken{b.Store, store.ErrUnknown} }, unknown},
		{"the store is closed", nil, func(store.Revision) []store.Op {
			return []store.Op{store.Put(run, []byte("new")).IfAbsent()}
		}, true, func(b *book) { b.Store = broken{b.Store, store.ErrClosed} }, permanent},
		{"the record is damaged", nil, func(store.Revision) []store.Op {
			return []store.Op{store.Put(run, []byte("new")).IfAbsent()}
		}, true, func(b *book) { b.Store = broken{b.Store, store.ErrCorrupt} }, permanent},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(t)
			var old, committed store.Revision
			for _, key := range c.old {
				old = b.put(key, []byte("old"))
			}
			ops := c.ops(old)
			if c.done {
				var err error
				committed, err = b.Store.Commit(t.Context(), ops...)
				require.NoError(t, err)
			}
			c.then(b)
			rev, err := b.FindOut(t.Context(), ops, errUnknown)
			require.Equal(t, c.want == happened, err == nil)
			require.Equal(t, c.want == notHappened, errors.Is(err, ErrNotCommitted))
			require.Equal(t, c.want == conflict, errors.Is(err, store.ErrConflict))
			require.Equal(t, c.want >= unknown, errors.Is(err, store.ErrUnknown))
			require.Equal(t, c.want == permanent, err != nil && Permanent(err))
			if c.want == happened {
				require.Equal(t, committed, rev)
			} else {
				require.Zero(t, rev)
			}
		})
	}
}

func TestCommitFindsOutWhatTheStoreDoesNotKnow(t *testing.T) {
	for _, commits := range []bool{true, false} {
		b := newBook(t)
		sound := b.Store
		b.Store = forgetful{sound, commits}
		rev, err := b.Commit(t.Context(), []store.Op{store.Put(record.RunKey("r1"), []byte("new")).IfAbsent()})
		require.Equal(t, commits, err == nil)
		require.Equal(t, !commits, errors.Is(err, ErrNotCommitted))
		require.Equal(t, commits, rev > 0)
	}
	b := newBook(t)
	b.put("a", []byte("1"))
	_, err := b.Commit(t.Context(), []store.Op{store.Put("a", nil).IfAbsent()})
	require.ErrorIs(t, err, store.ErrConflict)
	require.Equal(t, err.Error(), TextOnly(err).Error())
	require.NotErrorIs(t, TextOnly(err), store.ErrConflict)
}

func TestTaken(t *testing.T) {
	b := newBook(t)
	b.put("b", []byte("1"), "c", []byte("1"))
	for _, c := range []struct {
		name string
		ops  []store.Op
		want string
	}{
		{"nothing is in the way", []store.Op{store.Put("a", nil).IfAbsent(), store.Put("b", nil), store.Check("c", 1)}, ""},
		{"the first in the way", []store.Op{store.Put("a", nil).IfAbsent(), store.Put("c", nil).IfAbsent(), store.Put("b", nil).IfAbsent()}, "c"},
		{"a check takes nothing", []store.Op{store.Check("b", 0)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := b.Taken(t.Context(), c.ops)
			require.NoError(t, err)
			require.Equal(t, c.want, r.Key)
		})
	}
}
