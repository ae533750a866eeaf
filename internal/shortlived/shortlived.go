// Package shortlived gives the records that come and go one first letter on a shared store, so that the store can keep them apart from
// the records of runs, which it keeps for long. It must not know what the records hold.
package shortlived

import (
	"context"
	"iter"
	"strings"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Letter is the first letter of the keys of the records that come and go. No other key begins with it.
const Letter = "~"

// prefixes are those of the records that come and go, as package record has them.
var prefixes = [...]string{
	record.ActivePrefix, record.ReadyPrefix, record.OwnedPrefix, record.AskPrefix, record.PendingPrefix, record.ResyncPrefix,
	record.SignalPrefix, record.SlotPrefix, record.HeartbeatPrefix, record.LetterPrefix,
}

// On returns a store that gives the keys on their way to and from a shared store their first letter. It returns any other store as it is:
// there, the records have the keys that they always had.
func On(st store.Store) store.Store {
	watched, shared := st.(store.Watcher)
	if !shared {
		return st
	}
	return &lettered{st, watched}
}

// Key returns the key under which a shared store has a record.
func Key(key string) string {
	for _, p := range prefixes {
		if strings.HasPrefix(key, p) {
			return Letter + key
		}
	}
	return key
}

// Plain returns the key of a record from the key under which a shared store has it.
func Plain(key string) string { return strings.TrimPrefix(key, Letter) }

// lettered is a shared store whose callers do not know of the letter.
type lettered struct {
	store.Store
	watched store.Watcher
}

var (
	_ store.Watcher = (*lettered)(nil)
	_ store.Limited = (*lettered)(nil)
)

// Limits implements [store.Limited].
func (l *lettered) Limits() store.Limits { return store.LimitsOf(l.Store) }

// Get implements [store.Store].
func (l *lettered) Get(ctx context.Context, key string) (store.Record, error) {
	r, err := l.Store.Get(ctx, Key(key))
	r.Key = Plain(r.Key)
	return r, err
}

// List implements [store.Store]. The prefix of the query must name one kind of record.
func (l *lettered) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	if prefix := Key(q.Prefix); prefix != q.Prefix {
		q.Prefix = prefix
		if q.After != "" {
			q.After = Letter + q.After
		}
	}
	all := l.Store.List(ctx, q)
	return func(yield func(store.Record, error) bool) {
		all(func(r store.Record, err error) bool {
			r.Key = Plain(r.Key)
			return yield(r, err)
		})
	}
}

// Commit implements [store.Store].
func (l *lettered) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	renamed := make([]store.Op, len(ops))
	for i, op := range ops {
		renamed[i] = op
		key := Key(op.Key())
		if key == op.Key() {
			continue
		}
		rev, conditional := op.Condition()
		switch {
		case !op.Writes():
			renamed[i] = store.Check(key, rev)
			continue
		case op.Removes():
			renamed[i] = store.Delete(key)
		default:
			renamed[i] = store.Put(key, op.Value())
		}
		if conditional {
			renamed[i] = renamed[i].If(rev)
		}
	}
	return l.Store.Commit(ctx, renamed...)
}

// Watch implements [store.Watcher]. The prefix must name one kind of record.
func (l *lettered) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	all := l.watched.Watch(ctx, Key(prefix), after)
	return func(yield func(store.Change, error) bool) {
		all(func(c store.Change, err error) bool {
			c.Key = Plain(c.Key)
			return yield(c, err)
		})
	}
}
