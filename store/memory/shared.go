package memory

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/conveyor-go/conveyor/store"
)

// Shared is a handle of a shared store in memory. It implements [store.Store] and [store.Watcher]. Make the first handle with
// [NewShared], and further ones with Join. All handles have the same records. Closing a handle ends the calls of this handle
// alone, as the end of a process does that has a shared store open. The records stay as long as a handle is reachable.
type Shared struct {
	Store
	done chan struct{} // closed by Close
}

var (
	_ store.Store   = (*Shared)(nil)
	_ store.Watcher = (*Shared)(nil)
)

// NewShared returns the first handle of an empty shared store.
func NewShared() *Shared {
	r := newRecords()
	r.changes = &changes{happened: make(chan struct{})}
	return &Shared{Store: Store{records: r}, done: make(chan struct{})}
}

// Join returns another handle of the same store. It can be called after Close.
func (s *Shared) Join() *Shared {
	return &Shared{Store: Store{records: s.records}, done: make(chan struct{})}
}

// Close implements [store.Store]. The records stay for the other handles.
func (s *Shared) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed.Swap(true) {
		close(s.done)
	}
	return nil
}

// Forget drops what is known of the changes up to the newest revision, as a server does some time after a change. A Watch that
// has not told all of them ends with [store.ErrGap].
func (s *Shared) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes.forgetLocked(len(s.changes.all))
}

// Watch implements [store.Watcher].
func (s *Shared) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		at := after // everything up to this revision was told
		for {
			if err := s.alive(ctx); err != nil {
				yield(store.Change{}, err)
				return
			}
			page, newest, happened, err := s.changesAfter(at, prefix)
			if err != nil {
				yield(store.Change{}, err)
				return
			}
			for _, c := range page {
				if err := s.alive(ctx); err != nil {
					yield(store.Change{}, err)
					return
				}
				if !yield(c, nil) {
					return
				}
			}
			if newest > at {
				if at = newest; !yield(store.Change{Revision: at}, nil) {
					return
				}
				continue
			}
			select {
			case <-happened:
			case <-ctx.Done():
			case <-s.done:
			}
		}
	}
}

// changesAfter returns the changes under a prefix after a revision, the newest revision, and a channel that is closed by the next
// commit.
func (s *Shared) changesAfter(after store.Revision, prefix string) (page []store.Change, newest store.Revision, happened <-chan struct{}, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.changes
	if after < c.forgotten {
		return nil, 0, nil, store.ErrGap
	}
	from, _ := slices.BinarySearchFunc(c.all, after+1, func(c store.Change, rev store.Revision) int { return int(c.Revision - rev) })
	for _, change := range c.all[from:] {
		if strings.HasPrefix(change.Key, prefix) {
			page = append(page, change)
		}
	}
	return page, s.newest, c.happened, nil
}

// changes are the changes of a shared store that are known. records.mu guards them.
type changes struct {
	all       []store.Change // in the order of the revisions
	forgotten store.Revision // the changes up to this revision are not known any more
	happened  chan struct{}  // closed by the next commit that writes
}

// maxChanges is the largest number of changes that are kept.
const maxChanges = 1 << 16

func (c *changes) addLocked(rev store.Revision, ops []store.Op) {
	for _, op := range ops {
		if op.Writes() {
			c.all = append(c.all, store.Change{Key: op.Key(), Revision: rev})
		}
	}
	if len(c.all) > maxChanges {
		c.forgetLocked(len(c.all) - maxChanges/2)
	}
	close(c.happened)
	c.happened = make(chan struct{})
}

// forgetLocked drops the oldest n changes, and the others of the last of their commits.
func (c *changes) forgetLocked(n int) {
	if n == 0 {
		return
	}
	c.forgotten = c.all[n-1].Revision
	for n < len(c.all) && c.all[n].Revision == c.forgotten {
		n++
	}
	c.all = slices.Clone(c.all[n:])
}
