package postgres

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/again"
)

// logPage is the largest number of rows of the log that are read at once.
const logPage = 100

// Watch implements [store.Watcher]. It reads the log, and learns by a notification, or after [Options].Poll, that there is
// something to read. It ends with [store.ErrGap] if the log does not go back that far any more (see [Options].LogAge), and if the
// server has been taken back to a state in which a revision that was told does not exist. With the prefix of letters, or of one of them, it
// also tells of the letters that [Enqueue] has written, once each, with the revision up to which everything was told.
func (s *Store) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		at := int64(after) // everything up to this revision was told
		waiter := s.wakes.join(prefix)
		defer s.wakes.leave(waiter)
		poll := newPoll(s)
		defer poll.stop()
		told := new(letters)
		wanted := want{since: time.Now()}
		for late := false; ; {
			page, err := s.changesAfter(ctx, at, wanted)
			if err != nil {
				yield(store.Change{}, err)
				return
			}
			for _, row := range page {
				for _, c := range row.changes(prefix, at) {
					if late && s.wakes.listening.CompareAndSwap(true, false) { // no notification came for it
						s.wakes.wakeAll() // to ask more often
					}
					if err := s.gate.Alive(ctx); err != nil {
						yield(store.Change{}, err)
						return
					}
					if !yield(c, nil) {
						return
					}
				}
				at = row.rev
			}
			if len(page) < logPage && !s.enqueued(ctx, prefix, at, told, yield) {
				return
			}
			if len(page) == 0 {
				wanted, late = poll.wait(ctx, waiter)
				continue
			}
			if late = false; !yield(store.Change{Revision: store.Revision(at)}, nil) {
				return
			}
		}
	}
}

// changesAfter returns the next rows of the log, and none only if there is none that is wanted. It tries until ctx ends or the store is
// closed.
func (s *Store) changesAfter(ctx context.Context, at int64, wanted want) (page []logRow, err error) {
	s.listen.Do(s.startListening)
	var wait again.Pause
	for {
		if err := s.gate.Alive(ctx); err != nil {
			return nil, err
		}
		page, err = s.tail.after(ctx, s.gate.Closing, at, wanted, func(at int64) ([]logRow, error) { return s.logAfter(ctx, at) })
		switch {
		case err == nil:
			return page, gap(page, at)
		case s.gate.Closing.Err() != nil:
			return nil, store.ErrClosed
		case ctx.Err() == nil && !passing(err):
			return nil, s.final(err)
		}
		s.noteLoss(err)
		wait.Next(ctx)
	}
}

// logRow is a row of the log.
type logRow struct {
	rev, base int64
	kind      string
	failed    []int32
	nums      []int32
	keys      [][]byte
}

// gap returns ErrGap if the first of the rows after a revision does not follow it.
func gap(page []logRow, at int64) error {
	for _, row := range page {
		if row.base > at {
			return fmt.Errorf("%w: revision %d is older than the log", store.ErrGap, at)
		}
		if row.kind == "j" && row.base < at {
			return fmt.Errorf("%w: revision %d was lost when the server was taken back to revision %d", store.ErrGap, at, row.base)
		}
		at = row.rev
	}
	return nil
}

// rowsUntilClosed reads rows once. It ends early when the store closes.
func (s *Store) rowsUntilClosed(ctx context.Context, sql string, args []any, each func(pgx.Rows) error) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	ctx, cancel := context.WithTimeout(ctx, s.opts.Patience/3)
	defer cancel()
	defer context.AfterFunc(s.gate.Closing, cancel)()
	return s.rows(ctx, sql, args, each)
}

// logAfter reads the rows of the log after a revision.
func (s *Store) logAfter(ctx context.Context, at int64) (page []logRow, err error) {
	err = s.rowsUntilClosed(ctx, s.logSQL, []any{at, logPage}, func(r pgx.Rows) error {
		var row logRow
		err := r.Scan(&row.rev, &row.base, &row.kind, &row.failed, &row.nums, &row.keys)
		page = append(page, row)
		return err
	})
	return page, err
}

// changes returns the changes under a prefix that come after a revision, in the order of their revisions.
func (r logRow) changes(prefix string, at int64) (all []store.Change) {
	for i, key := range r.keys {
		n := r.nums[i]
		if _, failed := slices.BinarySearch(r.failed, n); failed || r.base+int64(n) <= at || !strings.HasPrefix(string(key), prefix) {
			continue
		}
		all = append(all, store.Change{Key: string(key), Revision: store.Revision(r.base + int64(n))})
	}
	slices.SortStableFunc(all, func(a, b store.Change) int { return int(a.Revision - b.Revision) })
	return all
}

// poll is how a Watch waits.
type poll struct {
	s     *Store
	timer *time.Timer
}

func newPoll(s *Store) *poll { return &poll{s, time.NewTimer(0)} }

func (p *poll) stop() { p.timer.Stop() }

// wait waits for a notification, for the next time to ask, or for the end. It returns what is wanted then, and whether it is only the
// time to ask that has come.
func (p *poll) wait(ctx context.Context, w *waiter) (wanted want, late bool) {
	every := p.s.opts.Poll
	if every == 0 {
		if every = defaultPoll; p.s.wakes.listening.Load() {
			every = pollWhileListened
		}
	}
	p.timer.Reset(every)
	select {
	case wanted = <-w.woken:
	case <-p.timer.C:
		return want{since: time.Now().Add(-every / 2)}, true // the other watches ask at about the same time
	case <-ctx.Done():
	case <-p.s.gate.Closing.Done():
	}
	return wanted, false
}

// wakes wake the watches when something has happened under their prefixes.
type wakes struct {
	listening atomic.Bool // a notification has come; behind pgbouncer none does, although it accepts a LISTEN

	mu      sync.Mutex // guards waiters
	waiters map[*waiter]bool
}

// waiter is a watch that waits.
type waiter struct {
	prefix string
	woken  chan want // what it was woken for; size 1
}

func newWakes() *wakes { return &wakes{waiters: map[*waiter]bool{}} }

func (w *wakes) join(prefix string) *waiter {
	of := &waiter{prefix: prefix, woken: make(chan want, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiters[of] = true
	return of
}

func (w *wakes) leave(of *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiters, of)
}

// wake wakes the watches to which one of the keys may be of interest, of which there is at least the beginning.
func (w *wakes) wake(wanted want, keys iter.Seq[string]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for of := range w.waiters {
		for key := range keys {
			if n := min(len(key), len(of.prefix)); key[:n] == of.prefix[:n] {
				of.wake(wanted)
				break
			}
		}
	}
}

// wakeAll wakes all watches.
func (w *wakes) wakeAll() {
	w.wake(want{since: time.Now()}, func(yield func(string) bool) { yield("") })
}

// wake adds to what the watch was woken for before. It is called with the lock of the wakes held.
func (w *waiter) wake(wanted want) {
	select {
	case before := <-w.woken:
		wanted = wanted.and(before)
	default:
	}
	w.woken <- wanted
}

// startListening begins to listen for notifications, unless that is turned off or the store is closing.
func (s *Store) startListening() {
	if s.channel == "" || s.gate.Enter() != nil {
		return
	}
	defer s.gate.Leave()
	s.gate.Go(func() {
		var wait again.Pause
		for s.gate.Closing.Err() == nil {
			if s.listenOnce(s.gate.Closing) { // it has listened for a while
				wait = 0
			}
			s.wakes.listening.Store(false)
			wait.AtMost(s.gate.Closing, longestListenPause)
		}
	})
}

// listenOnce listens until the connection breaks, outside of the pool. It reports whether there was a connection.
func (s *Store) listenOnce(ctx context.Context) (listened bool) {
	conn, err := s.connectToListen(ctx)
	if err != nil {
		return false
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{s.channel}.Sanitize()); err != nil {
		return false
	}
	s.wakes.wakeAll() // for what was committed before
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return true
		}
		s.wakes.listening.Store(true)
		if rev, keys, ok := parseNotification(n.Payload); ok {
			s.wakes.wake(want{rev: rev}, keys)
		} else {
			s.wakes.wakeAll()
		}
	}
}

func (s *Store) connectToListen(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Patience/3)
	defer cancel()
	if s.opts.ListenDSN != "" {
		config, err := pgx.ParseConfig(s.opts.ListenDSN)
		if err != nil {
			return nil, err
		}
		onlyPrimary(&config.Config, s.opts.ListenDSN) // a standby does not listen
		return pgx.ConnectConfig(ctx, config)
	}
	config := s.pool.Config()
	if config.BeforeConnect != nil { // it may set a password that is short-lived
		if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
			return nil, err
		}
	}
	return pgx.ConnectConfig(ctx, config.ConnConfig)
}
