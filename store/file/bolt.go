package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/conveyor-go/conveyor/store"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

func boltOptions() *bbolt.Options {
	return &bbolt.Options{
		Timeout: 1, // one attempt to lock the file; acquire makes the others, with an eye on the context
		// The list of free pages is written with every commit. Without it Open would have to find them by reading the
		// whole file, which costs more than the commits gain.
		NoFreelistSync: false,
		FreelistType:   bbolt.FreelistMapType, // the array is slow once there are many
		NoStatistics:   true,
	}
}

// withBolt has bbolt open the file, and calls then. If either fails, the file is closed again.
func (s *Store) withBolt(opts *bbolt.Options, then func() error) error {
	opts.OpenFile = s.openFile
	err := s.guard(func() (err error) {
		if s.db, err = bbolt.Open(s.path, 0o600, opts); err != nil {
			return s.corrupt(err)
		}
		return then()
	})
	switch {
	case err == nil:
		return nil
	case s.db != nil:
		_ = s.guard(s.db.Close)
	case s.file != nil:
		_, _ = unlock(s.file), s.file.Close() // bbolt has done so, unless it panicked
	}
	return err
}

// openFile opens the file for bbolt and keeps a reference to it.
func (s *Store) openFile(path string, flag int, mode fs.FileMode) (f *os.File, err error) {
	// Whoever removes the file between two steps of Open does not get an empty one in its place.
	s.file, err = os.OpenFile(path, flag&^os.O_CREATE, mode)
	return s.file, err
}

// beginTx begins a transaction. If bbolt panics in the middle, because both meta pages have been destroyed under it, it
// keeps locks for which the next transaction, and its Close, would wait for ever.
func (s *Store) beginTx(writable bool) (tx *bbolt.Tx, err error) {
	s.beginMu.Lock()
	defer s.beginMu.Unlock()
	if s.stuck {
		return nil, fmt.Errorf("%w: %s: it was destroyed while it was open", store.ErrCorrupt, s.path)
	}
	s.stuck = true
	tx, err = s.db.Begin(writable)
	s.stuck = false
	return tx, err
}

// rollback ends a transaction. On a damaged list of free pages bbolt may panic here too, with the same consequence.
func (s *Store) rollback(tx *bbolt.Tx) {
	done := false
	defer func() {
		if !done {
			s.beginMu.Lock()
			defer s.beginMu.Unlock()
			s.stuck = true
		}
	}()
	_ = tx.Rollback()
	done = true
}

// view runs fn in a read transaction.
func (s *Store) view(fn func(tx *bbolt.Tx) error) error {
	least := s.durableTx.Load()
	return s.guard(func() error {
		tx, err := s.beginTx(false)
		if err != nil {
			return err
		}
		defer s.rollback(tx)
		if uint64(tx.ID()) < least { // bbolt goes back to the older meta page if the newer one is damaged
			return s.corrupt(errors.New("its last commit is gone"))
		}
		return fn(tx)
	})
}

// guard calls bbolt, which panics on pages that make no sense, and faults on those that are not in the file. It is the
// one place where that becomes an error. No code of a caller runs inside it.
func (s *Store) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", store.ErrCorrupt, s.path, p)
		}
	}()
	return fn()
}

// corrupt tells damage from an operating system that refuses, and from an owner who has the file.
func (s *Store) corrupt(err error) error {
	var (
		path  *fs.PathError
		errno syscall.Errno
	)
	if errors.As(err, &path) || errors.As(err, &errno) || errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("open %s: %w", s.path, err)
	}
	return fmt.Errorf("%w: %s: %w", store.ErrCorrupt, s.path, err)
}
