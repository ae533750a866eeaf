package file

import (
	"errors"
	"fmt"
	"io/fs"

	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
)

// outcome turns the error of a bbolt commit into that of its callers.
//
// bbolt writes the pages, syncs, writes the meta page, and syncs again. Before the meta page is written nothing has
// happened, since nothing points to the pages. Once it is written, and readers have its transaction, the disk may have
// it or not.
func (s *Store) outcome(id uint64, err error) error {
	var seen uint64
	look := s.view(func(tx *bbolt.Tx) error {
		seen = uint64(tx.ID())
		return nil
	})
	err = fmt.Errorf("commit: %w", err)
	var write *fs.PathError
	switch {
	case look != nil || seen >= id:
		return fmt.Errorf("%w: %w", store.ErrUnknown, s.requireReopen(err))
	case errors.As(err, &write) && write.Op == "write":
		return fmt.Errorf("%s: %w", s.path, err) // the disk refused a page, and nothing has been synced since
	}
	return s.requireReopen(err)
}

// requireReopen has the store answer every later call with the error that it returns: it must be reopened, and why.
//
// After a failed sync the operating system takes the pages that it could not write for clean. It shows them to readers,
// and never writes them; the next sync succeeds without them. So one failed sync means that nothing can be known of
// what is on disk by way of this file, and a meta page that readers see may not be there: the transaction after it
// would write over pages that the one on disk still needs. Only Open, with no transaction under way, can write it anew.
func (s *Store) requireReopen(cause error) error {
	err := fmt.Errorf("%w: %s must be reopened: %w", store.ErrClosed, s.path, cause)
	s.mustReopen.Store(&err)
	return err
}

// rewriteMeta makes sure that the newest meta page is on disk, and takes the newest revision from it. The pages that it
// points to were synced before it was first written.
func (s *Store) rewriteMeta() error {
	tx, err := s.beginTx(false)
	if err != nil {
		return err
	}
	defer s.rollback(tx)
	rev, err := s.readRevision(tx)
	if err != nil {
		return err
	}
	size := s.db.Info().PageSize
	page := make([]byte, size)
	at := int64(tx.ID()) % 2 * int64(size)
	if _, err := s.file.ReadAt(page, at); err != nil {
		return err
	}
	if _, err := s.file.WriteAt(page, at); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.newest = rev
	s.durableTx.Store(uint64(tx.ID()))
	return nil
}
