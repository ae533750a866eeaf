// Package file is the durable store: one bbolt file on a local disk, owned by one process at a time.
//
//	st, err := file.Open(ctx, "/var/lib/app/conveyor.db", file.Options{})
//	if err != nil {
//		return err
//	}
//	defer st.Close()
//
// A commit that Commit has acknowledged survives a crash of the process and of the machine, as long as the disk keeps
// what it has reported as written. Commits that arrive at the same time share one write to the disk (group commit), so
// many concurrent callers are not much slower than one. A reader can see a commit a moment before the commit is on disk
// and before its caller knows of it.
//
// A commit takes this way through the package. [Store.Commit] puts the commit in a queue (package groupcommit). One of
// the callers takes all waiting commits and carries them out in one transaction (transaction.go), with a checksum on
// each value (record.go). After a failed sync, every call returns an error until the store is opened again (failure.go). [Open]
// (open.go) makes a new file in one step (create.go), and inspects an existing file (inspect.go) before bbolt may write
// to it. Reads check every page on their way (tree.go, walk.go, page.go), and so does a commit before bbolt writes a
// page anew. A panic of bbolt on a damaged page becomes an error (bolt.go).
//
// Damage is reported as an error that wraps [store.ErrCorrupt] and names the file, and the record if the damage is in a
// record. Damage never causes a panic, and a read never returns a value that no commit wrote. Three kinds of damage
// cannot be detected from the file:
//
//   - The disk has reported a page as written and lost the write. The older version of the page is in its place, and
//     takes its records back to their older state, if the older version fits between its neighbours.
//   - A page of another store is in place of a page, and fits between its neighbours.
//   - A record whose key and value are both damaged is absent under its key until List or [Check] reads it. This
//     applies only to a record that [Open] has not read: in a file of more than 256 MiB, or in a file that is damaged
//     while it is open.
//
// The file is in the byte order of the machine and cannot be moved to a machine of different byte order. The file must
// not be on a network file system: neither the lock nor the order of writes is reliable there.
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
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// Store implements [store.Store] in one file. Make one with [Open].
//
// When the disk refuses a write, for example because it is full, the commits that needed the write return the error of
// the operating system, such as syscall.ENOSPC. Nothing of these commits is written. The store works again as soon as
// the disk has room.
//
// When the disk fails to sync, the store no longer trusts it: the disk may have lost what it has reported as written
// since the last sync. The commits under way return the error of the operating system, and also [store.ErrUnknown] if
// their outcome is not known. From then on every call except Close returns an error that says that the store must be
// reopened, and that wraps [store.ErrClosed] and the error of the operating system. When the file has been deleted or
// replaced, the next commit and every call after it return such an error too, with fs.ErrNotExist as its cause.
//
// After Close, [Open] reads what the file has, and returns only once that is on disk. From then on it is settled
// whether a commit of unknown outcome has happened.
type Store struct {
	// Lock order: open, then beginMu.

	path string
	file *os.File // the file of db, for calls that bbolt does not offer; closed by db
	db   *bbolt.DB

	closed atomic.Bool  // written with open held
	open   sync.RWMutex // held for reading by every call, so that Close waits for the calls that have begun

	durableTx atomic.Uint64 // the newest transaction that is known to be on disk; written by the leader

	queue *groupcommit.Queue // the commits under way; the caller that carries out a group of them is the leader

	// Owned by the leader, so unguarded.
	newest   store.Revision // of the newest transaction
	fileSize int64          // the size that the file was last set to
	damaged  error          // set when bbolt has panicked in a transaction; nothing is written any more
	buffer   []byte         // memory for what a transaction writes

	// The error that every call returns once the store must be reopened; see requireReopen. Nil until then.
	// Invariant: no commit is acknowledged once it is set.
	mustReopen atomic.Pointer[error]

	beginMu sync.Mutex // guards stuck; held while bbolt begins a transaction, which bbolt does one at a time anyway
	stuck   bool       // bbolt has panicked while it held its locks, and must not be called any more

	commitTx func(*bbolt.Tx) error // (*bbolt.Tx).Commit, except in tests that need a failing disk
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
			return fmt.Errorf("%w: %.*q", store.ErrNotFound, store.MaxKey, key)
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
	return s.queue.Commit(ctx, ops)
}

// Close implements [store.Store]. When Close returns, the file can be opened again.
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

// closeFile closes the file of a bbolt that must not be called any more. The file stays mapped until the process ends.
func (s *Store) closeFile() error { return errors.Join(unlock(s.file), s.file.Close()) }

// enter keeps the store open until leave is called. It returns an error, and leave must not be called, if the store is
// closed or must be reopened.
func (s *Store) enter() (err error) {
	s.open.RLock()
	if s.closed.Load() {
		err = store.ErrClosed
	} else if cause := s.mustReopen.Load(); cause != nil {
		err = *cause
	}
	if err != nil {
		s.open.RUnlock()
	}
	return err
}

func (s *Store) leave() { s.open.RUnlock() }
