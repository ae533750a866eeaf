// Package postgres is a durable store that several processes share: the tables of a schema in a database of PostgreSQL.
//
//	if err := postgres.Migrate(ctx, dsn, postgres.Options{}); err != nil { // once, with the rights to make tables
//		return err
//	}
//	st, err := postgres.Open(ctx, dsn, postgres.Options{})
//	if err != nil {
//		return err
//	}
//	defer st.Close()
//
// A commit that Commit has acknowledged survives what the server's synced WAL survives: a crash of every process and of the
// machine. With synchronous replication it also survives the loss of the machine. A failover to an asynchronous standby, or a backup,
// takes the store back; docs/postgres.md of the repository says what is lost then.
//
// A commit takes this way through the package. [Store.Commit] puts the commit in a queue (package groupcommit). One of the
// callers takes all waiting commits and has them carried out by one call of one function in the database (commit.go,
// arguments.go, schema.sql). The function takes the turn of the store, which is a lock that ends with the transaction, judges
// all conditions, writes the records, and adds one row to the log. This row is the newest revision, the outcome of the group,
// and what [Store.Watch] reads (watch.go). The handle then notifies the others (tell.go). Get and List read without a lock (read.go).
//
// When the connection breaks before the answer has come, the store asks what came of the group. If the log has no row of the
// group, the store adds one that keeps the group from being carried out later. So a caller sees [store.ErrUnknown] only if the
// server could not be asked for [Options].Patience and ten seconds more (settle.go).
//
// The package uses no extension and no temporary table. It works behind pgbouncer in transaction mode, with any search path, and at any
// default isolation level. Statements are prepared on connections that lead to the server itself, and nowhere else.
package postgres

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/gate"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// Store is a handle of a shared store in a database. It implements [store.Store] and [store.Watcher]. Make one with [Open] or
// [OpenPool]. All handles on one schema, in this process and in others, have the same records.
type Store struct {
	// Lock order: gate, then settling.

	statements
	opts    Options
	pool    *pgxpool.Pool
	ownPool bool          // Close closes the pool
	channel string        // of the notifications; empty if there are none
	grace   time.Duration // see grace; shorter in tests

	breaks breaks   // of connections
	writer [16]byte // who has written a group; no other handle has the same

	explicit atomic.Bool // a call of a function has to say in which kind of transaction it is

	gate *gate.Gate // Close waits for the calls that have begun

	queue *groupcommit.Queue // the commits under way; the caller that carries out a group of them is the leader

	// Owned by the leader, so unguarded.
	group int64       // the number of the newest attempt
	clock serverClock // of the last answer

	// Holds a value while the doubts are used or settled, because a second caller would only ask the same.
	settling chan struct{}
	doubts   []int64     // the attempts that are not settled
	inDoubt  atomic.Bool // whether there are any

	wakes  *wakes    // wake what waits for a new commit
	teller *teller   // wakes the other handles; nil if there are no notifications
	tail   *tail     // of the log
	listen sync.Once // the first Watch begins to listen
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Watcher = (*Store)(nil)
	_ store.Limited = (*Store)(nil)
)

// Limits implements [store.Limited].
func (s *Store) Limits() store.Limits {
	return store.Limits{
		Value: store.MaxValue, Ops: maxOps, Bytes: maxBytes,
		Commit:  s.opts.Patience + s.grace + time.Second,
		Unknown: doubtful,
	}
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	if ctx.Err() != nil {
		return store.Record{}, context.Cause(ctx)
	}
	if err := s.gate.Enter(); err != nil {
		return store.Record{}, err
	}
	defer s.gate.Leave()
	return s.get(ctx, key)
}

// List implements [store.Store]. It reads about a megabyte, or 256 records, at a time.
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	alive := func() error { return s.gate.Alive(ctx) }
	fetch := func(page []store.Record, r keyrange.Range, limit int) ([]store.Record, bool, error) {
		return s.page(ctx, page, r, limit)
	}
	return keyrange.Pages(q, alive, fetch, nil)
}

// Commit implements [store.Store]. Nothing was written when it returns [store.ErrUnavailable], after [Options].Patience.
func (s *Store) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if err := s.Limits().Check(ops); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err := s.gate.Enter(); err != nil {
		return 0, err
	}
	defer s.gate.Leave()
	if !slices.ContainsFunc(ops, store.Op.Writes) {
		return s.check(ctx, ops)
	}
	rev, err := s.queue.Commit(ctx, ops)
	if err == nil {
		s.wakes.wake(want{rev: int64(rev)}, func(yield func(string) bool) {
			for _, op := range ops {
				if op.Writes() && !yield(op.Key()) {
					return
				}
			}
		})
	}
	return rev, err
}

// Close implements [store.Store]. The records stay. A pool that the caller has made stays open.
func (s *Store) Close() error {
	s.gate.Close(func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastTell)
		_ = s.tell(ctx)
		cancel()
		if s.ownPool {
			s.pool.Close()
		}
	})
	return nil
}
