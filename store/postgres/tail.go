package postgres

import (
	"context"
	"slices"
	"time"
)

// tail is the newest part of the log, as far as this handle has read it. The watches of a handle share it: each commit is read once,
// however many of them there are.
type tail struct {
	turn chan struct{} // holds a value while somebody uses what follows

	from, to int64 // the rows after revision from, up to revision to
	rows     []logRow
	size     int       // bytes
	read     time.Time // when the newest read began that has found the end of the log
}

// What a tail keeps at most.
const (
	tailRows  = 1000
	tailBytes = 1 << 20
)

func newTail() *tail { return &tail{turn: make(chan struct{}, 1)} }

// want is what a watch wants to know of: of everything up to a revision, and of everything that happened before a time.
type want struct {
	rev   int64
	since time.Time
}

func (w want) and(other want) want {
	if other.since.After(w.since) {
		w.since = other.since
	}
	w.rev = max(w.rev, other.rev)
	return w
}

// offer adds a row that this handle has written itself, if it follows. It does not wait for somebody who reads.
func (t *tail) offer(row logRow) {
	select {
	case t.turn <- struct{}{}:
	default:
		return
	}
	defer func() { <-t.turn }()
	if row.rev > 0 && row.base == t.to && !t.read.IsZero() {
		t.add([]logRow{row})
		t.trim()
	}
}

// after returns the first rows after a revision, at most logPage. If there are fewer, all that is wanted is among them. A watch reads for
// itself if another one has the turn for long, or if it is apart from the others.
func (t *tail) after(ctx, closing context.Context, at int64, wanted want, read func(at int64) ([]logRow, error)) ([]logRow, error) {
	timer := time.NewTimer(longestTurn)
	defer timer.Stop()
	select {
	case t.turn <- struct{}{}:
		if page, shared, err := t.share(at, wanted, read); shared {
			return page, err
		}
	case <-timer.C: // the connection of the other one hangs, perhaps
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-closing.Done():
		return nil, context.Cause(closing)
	}
	return read(at)
}

// share is after for a watch that has the turn, which it gives back. It does nothing, and shared is false, if the watch is apart.
func (t *tail) share(at int64, wanted want, read func(at int64) ([]logRow, error)) (page []logRow, shared bool, err error) {
	defer func() { <-t.turn }()
	if len(t.rows) == 0 && at < t.from || at > t.to && time.Since(t.read) > longUnread {
		t.forget(at)
	}
	if at < t.from || at > t.to {
		return nil, false, nil
	}
	page = t.page(at)
	if len(page) == logPage || t.to >= wanted.rev && !t.read.Before(wanted.since) {
		return page, true, nil
	}
	began := time.Now()
	rows, err := read(t.to)
	if err != nil {
		return nil, true, err
	}
	if len(rows) < logPage {
		t.read = began
	}
	broken := gap(rows, t.to) != nil // who has read as far as this has to know
	t.add(rows)
	page = t.page(at)
	if t.trim(); broken {
		t.forget(t.to)
	}
	return page, true, nil
}

// How long a watch waits for another one that reads, and after which time without a reader the tail begins anew.
const (
	longestTurn = 2 * time.Second
	longUnread  = 10 * time.Second
)

func (t *tail) forget(at int64) {
	t.from, t.to, t.rows, t.size, t.read = at, at, nil, 0, time.Time{}
}

// page returns the rows after a revision.
func (t *tail) page(at int64) []logRow {
	i, _ := slices.BinarySearchFunc(t.rows, at+1, func(r logRow, rev int64) int { return int(min(max(r.rev-rev, -1), 1)) })
	return slices.Clone(t.rows[i:min(len(t.rows), i+logPage)])
}

func (t *tail) add(rows []logRow) {
	for _, r := range rows {
		t.rows, t.to = append(t.rows, r), r.rev
		t.size += r.size()
	}
}

// trim forgets the oldest rows if there are too many.
func (t *tail) trim() {
	old := 0
	for ; len(t.rows)-old > tailRows || t.size > tailBytes; old++ {
		t.from = t.rows[old].rev
		t.size -= t.rows[old].size()
	}
	t.rows = slices.Delete(t.rows, 0, old)
}

func (r logRow) size() (n int) {
	const each = 32 // a slice, and a number
	for _, key := range r.keys {
		n += each + len(key)
	}
	return n
}
