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
		Timeout: 1, // one attempt to lock the file; acquire makes the others and watches the context
		// The list of free pages is written with every commit. Without the list, Open would have to read the whole file
		// to find the free pages, which costs more than the commits gain.
		NoFreelistSync: false,
		FreelistType:   bbolt.FreelistMapType, // the array is slow once there are many
		NoStatistics:   true,
	}
}

// withBolt opens the file with bbolt and calls then. If either fails, withBolt closes the file and returns the error.
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
		_, _ = unlock(s.file), s.file.Close() // bbolt has done both already, unless it panicked
	}
	return err
}

// openFile opens the file for bbolt and keeps a reference to it.
func (s *Store) openFile(path string, flag int, mode fs.FileMode) (f *os.File, err error) {
	// Without O_CREATE, a file that is removed between two steps of Open is not replaced by an empty one.
	s.file, err = os.OpenFile(path, flag&^os.O_CREATE, mode)
	return s.file, err
}

// beginTx begins a transaction. bbolt panics here if both meta pages have been destroyed, and then keeps its locks: the
// next transaction and bbolt's Close would wait for them for ever. beginTx notes this in stuck.
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

// rollback ends a transaction. bbolt can panic here on a damaged list of free pages, with the same consequence as in
// beginTx.
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
		if uint64(tx.ID()) < least { // bbolt falls back to the older meta page if the newer one is damaged
			return s.corrupt(errors.New("its last commit is gone"))
		}
		return fn(tx)
	})
}

// guard calls fn, which calls bbolt. bbolt panics on pages that make no sense, and causes a memory fault on pages that
// are not in the file. guard is the only place that turns such a panic or fault into an error. No code of a caller of
// the store runs inside guard.
func (s *Store) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", store.ErrCorrupt, s.path, p)
		}
	}()
	return fn()
}

// corrupt returns err as damage of the file, wrapped in ErrCorrupt, unless err comes from the operating system or says
// that another owner has the file.
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
