// Package etcd is a durable store that several processes share: the keys under a prefix of an etcd.
//
//	st, err := etcd.Open(ctx, clientv3.Config{Endpoints: []string{"https://etcd-1:2379", "https://etcd-2:2379"}}, etcd.Options{})
//	if err != nil {
//		return err
//	}
//	defer st.Close()
//
// A commit that Commit has acknowledged survives what etcd survives: with three servers, the loss of one of them. A backup that is
// restored takes the store back; docs/etcd.md of the repository says what is lost then, and what an etcd needs to stay healthy.
//
// A commit takes this way through the package. [Store.Commit] takes a lane, which has one commit at a time (lane.go). It sends one Txn:
// the conditions of the ops, and the condition that the marker of the lane is as the last commit of the lane has left it; if they hold,
// the ops are carried out and the marker is written (commit.go). When the connection breaks before the answer has come, the store writes the
// marker itself under the same condition: if it can, the Txn has not happened, and it cannot happen any more; otherwise the marker
// tells what has (settle.go). So a caller sees [store.ErrUnknown] only if no server could be asked for [Options].Patience and ten
// seconds more, or if the lease of the marker has ended meanwhile, after two minutes. Get and List read what all servers have agreed on (read.go). [Store.Watch] is a watch of etcd (watch.go).
//
// The revision of a record is the revision of etcd that wrote it, so that other programs can use the same etcd, and revisions have gaps.
package etcd

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/gate"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// Store is a handle of a shared store in an etcd. It implements [store.Store] and [store.Watcher]. Make one with [Open] or
// [OpenClient]. All handles with one prefix, in this process and in others, have the same records.
type Store struct {
	client    *clientv3.Client
	ownClient bool // Close closes the client
	opts      Options
	limits    store.Limits
	records   string        // begins the keys of the records
	grace     time.Duration // see grace; shorter in tests

	lanes *lanes
	lease lease

	trouble   *trouble    // of the connections; it stays empty with a client of the caller's
	noStreams atomic.Bool // the servers are older than 3.7, and cannot send a range piece by piece

	gate *gate.Gate // Close waits for the calls that have begun

	compacting atomic.Pointer[error] // why the newest compaction has failed; nil if it has not
	watches    atomic.Int64          // that were begun
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Watcher = (*Store)(nil)
	_ store.Limited = (*Store)(nil)
)

// Limits implements [store.Limited]. They follow from [Options].MaxTxnOps and [Options].MaxRequestBytes.
func (s *Store) Limits() store.Limits { return s.limits }

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	if ctx.Err() != nil {
		return store.Record{}, context.Cause(ctx)
	}
	if err := s.enter(); err != nil {
		return store.Record{}, err
	}
	defer s.gate.Leave()
	return s.get(ctx, key)
}

// List implements [store.Store]. It reads about a megabyte, or 256 records, at a time, and fewer if an attempt takes too long. For
// each of these pages a server counts the keys of the rest of the list in its memory. Servers older than etcd 3.7 look at each of them, and
// so do all of them for a client with a user and a password.
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	alive := func() error { return s.alive(ctx) }
	fetch := func(page []store.Record, r keyrange.Range, limit int) ([]store.Record, bool, error) {
		if err := s.enter(); err != nil {
			return page, false, err
		}
		defer s.gate.Leave()
		return s.page(ctx, page, r, limit)
	}
	return keyrange.Pages(q, alive, fetch, nil)
}

// Commit implements [store.Store]. Nothing was written when it returns [store.ErrUnavailable], after [Options].Patience.
func (s *Store) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if err := s.limits.Check(ops); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.gate.Leave()
	if !slices.ContainsFunc(ops, store.Op.Writes) {
		return s.check(ctx, ops)
	}
	return s.commit(ctx, ops)
}

// Close implements [store.Store]. The records stay. A client that the caller has made stays open.
func (s *Store) Close() error {
	s.gate.Close(func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastCall)
		defer cancel()
		s.lease.end(ctx, s.client) // the markers go with it
		if s.ownClient {
			_ = s.client.Close()
		}
	})
	return nil
}

// lastCall is how long Close waits for a server at most.
const lastCall = time.Second

// enter keeps the store open until the gate is left. It returns an error if the store or its client is closed.
func (s *Store) enter() error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	if s.client.Ctx().Err() != nil {
		s.gate.Leave()
		return errClientClosed
	}
	return nil
}

func (s *Store) alive(ctx context.Context) error {
	if err := s.gate.Alive(ctx); err != nil {
		return err
	}
	if s.client.Ctx().Err() != nil {
		return errClientClosed
	}
	return nil
}

var errClientClosed = fmt.Errorf("%w: the client is closed", store.ErrClosed)
