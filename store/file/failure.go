package file

import (
	"errors"
	"fmt"
	"io/fs"

	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
)

// outcome returns the error for the callers of transaction id, which bbolt has failed to commit with err.
//
// bbolt writes the pages, syncs, writes the meta page, and syncs again. Until the meta page is written, nothing has
// happened, because nothing points to the new pages. Once the meta page is written, readers see the transaction, but
// the disk may or may not have it.
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
		return fmt.Errorf("%s: %w", s.path, err) // the disk refused a page; no sync has been tried since
	}
	return s.requireReopen(err)
}

// requireReopen makes every later call return an error, which requireReopen returns too. The error says that the store
// must be reopened, and wraps the cause.
//
// After a failed sync, the operating system marks the pages that it could not write as clean. It shows these pages to
// readers but never writes them, and the next sync succeeds without them. After one failed sync, therefore, nothing
// read through this file tells what is on disk. A meta page that readers see may not be on disk; the next transaction
// would then overwrite pages that the meta page on disk still needs. Only Open can write the meta page anew, because no
// transaction is under way there.
func (s *Store) requireReopen(cause error) error {
	err := fmt.Errorf("%w: %s must be reopened: %w", store.ErrClosed, s.path, cause)
	s.mustReopen.Store(&err)
	return err
}

// rewriteMeta writes and syncs the newest meta page, and takes the newest revision from its transaction. The pages that
// the meta page points to were synced before the meta page was first written.
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
