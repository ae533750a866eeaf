// Package file is the durable store: one bbolt file on a local disk, owned by one process at a time.
//
//	st, err := file.Open(ctx, "/var/lib/app/conveyor.db", file.Options{})
//	if err != nil {
//		return err
//	}
//	defer st.Close()
//
// What Commit has acknowledged survives a crash of the process and of the machine, as far as the disk keeps what it has
// reported as written. Commits that come at the same time share one write to the disk, so many callers at once are not
// much slower than one. A reader may see a commit a moment before the disk has it and the caller of Commit knows of it.
//
// The way of a commit through the package: [Store.Commit] puts it in a queue (queue.go), where one of the callers takes
// all that wait and carries them out in one transaction (transaction.go), with a checksum on each value (record.go). Once
// a sync has failed, the store answers every call with an error until it is opened again (failure.go). [Open] (open.go)
// makes a new file in one step, and has an existing one inspected (inspect.go) before bbolt may touch it. Reads, and the
// look at the pages before bbolt writes them anew, take nothing on trust either (tree.go). What bbolt does with damage it
// meets all the same is contained in bolt.go.
//
// Damage is an error that wraps [store.ErrCorrupt] and names the file, and the record if it is one; never a panic, and never
// a value that no commit wrote. Three things nothing in a file can tell. A page that the disk has reported as written and
// lost, so that an older version of it is in its place, takes its records back to what they were, if it fits between its
// neighbours; so does a page of another store. And where [Open] has not read the records, in a file of more than 256 MiB or
// one that is damaged while it is open, a record whose key is damaged along with its value is absent under its key, until
// List or [Check] comes to it.
//
// The file is in the byte order of the machine and does not move between machines of different order. It does not
// belong on a network file system: neither the lock nor the order of writes can be relied on there.
package file

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// Store implements [store.Store] in one file. Make one with [Open].
//
// A disk that refuses a write, because it is full for instance, fails the commits that needed it with the error of the
// system (syscall.ENOSPC, say); nothing of them is written, and the store goes on when there is room again.
//
// A disk that fails to sync is not trusted any more: what it has reported as written before may be all that it has. The
// commits under way return the error of the system, along with [store.ErrUnknown] if their outcome is open, and from
// then on every call but Close returns an error that wraps [store.ErrClosed] and the error of the system, and says that
// the store must be reopened. So does a store whose file has been deleted or replaced under it, from its next commit
// on, with fs.ErrNotExist. After Close, [Open] begins with what the file has, and returns only once that is on disk;
// then a commit of unknown outcome is there or not, for good.
type Store struct {
	// Locks are taken in the order open, beginMu; mu is held alone, for a few lines, never while bbolt works.

	path string
	file *os.File // that of db, for what bbolt does not do; closed by db
	db   *bbolt.DB

	closed atomic.Bool  // written with open held
	open   sync.RWMutex // held for reading by every call, so that Close waits for those that have begun

	durableTx atomic.Uint64 // the last transaction that is known to be on disk; written by the leader

	mu      sync.Mutex // guards the two below
	queue   []*request // commits that wait for their turn, the oldest first
	leading bool       // one of the callers is carrying out a group of commits, or has been told to

	// Owned by the leader, so unguarded.
	newest   store.Revision // of the last transaction
	fileSize int64          // the size that the file was last made to have
	damaged  error          // bbolt panicked in a transaction; nothing is written any more
	buffer   []byte         // memory for what a transaction writes

	// Why the store must be reopened, once it must; see requireReopen. Invariant: nothing is acknowledged once it is set.
	mustReopen atomic.Pointer[error]

	beginMu sync.Mutex // guards stuck; held while bbolt begins a transaction, which it does one at a time anyway
	stuck   bool       // bbolt has panicked with its locks held, and must not be called any more

	commitTx func(*bbolt.Tx) error // (*bbolt.Tx).Commit; tests put a failing disk in its place
}

var _ store.Store = (*Store)(nil)

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (rec store.Record, err error) {
	if ctx.Err() != nil {
		return store.Record{}, context.Cause(ctx)
	}
	if err := s.enter(); err != nil {
		return store.Record{}, err
	}
	defer s.leave()
	err = s.view(func(tx *bbolt.Tx) error {
		stored, err := s.lookUp(tx, []byte(key))
		if err != nil {
			return err
		}
		if stored == nil {
			return fmt.Errorf("%w: %s", store.ErrNotFound, key)
		}
		rec, err = s.record([]byte(key), stored)
		return err
	})
	return rec, err
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	alive := func() error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case s.closed.Load():
			return store.ErrClosed
		}
		return nil
	}
	return keyrange.Pages(q, alive, s.page, nil)
}

// Commit implements [store.Store].
func (s *Store) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if !slices.ContainsFunc(ops, store.Op.Writes) {
		return s.check(ops)
	}
	return s.enqueue(ctx, ops)
}

// Close implements [store.Store]. The file may be opened again when it returns.
func (s *Store) Close() error {
	s.open.Lock()
	defer s.open.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	s.beginMu.Lock()
	defer s.beginMu.Unlock()
	closing := s.db.Close
	if s.stuck {
		closing = s.closeFile
	}
	if err := s.guard(closing); err != nil {
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	return nil
}

// closeFile closes the file of a bbolt that must not be called any more. Its mapping stays to the end of the process.
func (s *Store) closeFile() error { return errors.Join(unlock(s.file), s.file.Close()) }

// enter keeps the store open until leave is called.
func (s *Store) enter() (err error) {
	s.open.RLock()
	if s.closed.Load() {
		err = store.ErrClosed
	} else if gone := s.mustReopen.Load(); gone != nil {
		err = *gone
	}
	if err != nil {
		s.open.RUnlock()
	}
	return err
}

func (s *Store) leave() { s.open.RUnlock() }
