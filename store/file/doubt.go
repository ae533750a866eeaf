package file

import (
	"fmt"

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
	if look == nil && seen < id {
		return fmt.Errorf("commit to %s: %w", s.path, err)
	}
	err = fmt.Errorf("%w: commit to %s: %w", store.ErrUnknown, s.path, err)
	s.doubt.Store(&err)
	return err
}

// settle ends the doubt about a transaction whose last sync failed. Only the leader calls it.
//
// The operating system may show a meta page that the disk does not have, and will never write it, for a failed sync
// takes its pages for clean. To build on it would be wrong twice: a crash would bring back the transaction before it,
// whose pages the next one may already have written over; and what readers saw would be undone. So nothing is read or
// written until the page has been written once more, and synced.
func (s *Store) settle() error {
	doubt := s.doubt.Load()
	if doubt == nil {
		return nil
	}
	// bbolt has given up the pages that the transaction replaced, while older read transactions may still be on them.
	s.snapshots.Lock()
	defer s.snapshots.Unlock()
	if err := s.guard(s.rewriteMeta); err != nil {
		return fmt.Errorf("%w (and again: %w)", *doubt, err)
	}
	s.doubt.Store(nil)
	return nil
}

// rewriteMeta makes sure that the newest meta page is on disk, and takes the newest revision from it.
func (s *Store) rewriteMeta() error {
	tx, err := s.begun(false)
	if err != nil {
		return err
	}
	defer s.rollBack(tx)
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
	s.txn.Store(uint64(tx.ID()))
	return nil
}
