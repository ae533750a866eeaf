package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
)

// fillPercent is how full bbolt leaves a page that it splits. The engine's keys grow with time within each prefix, so
// most pages never get another record. bbolt's default, half full, would double the size of the file.
const fillPercent = 0.9

// maxGroup is the largest number of bytes of keys and values in a group of more than one commit. The remaining commits
// are left to the next group.
const maxGroup = 16 << 20

// commitGroup commits a group in one transaction and puts the outcome in each commit. Only the leader calls it.
func (s *Store) commitGroup(group []*groupcommit.Commit) {
	if err := s.usable(); err != nil {
		failAll(group, err)
		return
	}
	before := s.newest
	err := s.guard(func() error { return s.update(group) })
	for errors.Is(err, bbolterrors.ErrMaxSizeReached) { // the estimate in update was too low
		s.newest = before
		if err = s.grow(s.fileSize + 1); err == nil {
			err = s.guard(func() error { return s.update(group) })
		}
	}
	if err != nil {
		s.newest = before
		if errors.Is(err, store.ErrCorrupt) {
			s.damaged = err
		}
		failAll(group, err)
	}
}

// usable returns why there can be no transaction any more, or nil.
func (s *Store) usable() error {
	switch {
	case s.mustReopen.Load() != nil: // set while the group was in the queue
		return *s.mustReopen.Load()
	case s.damaged != nil:
		return s.damaged
	case unlinked(s.file):
		return s.requireReopen(fmt.Errorf("it was deleted or replaced: %w", fs.ErrNotExist))
	}
	return nil
}

// failAll puts one error in all commits of a group, also in those that had a conflict: the conflict may have been with
// a commit of the same group, which has not happened now.
func failAll(group []*groupcommit.Commit, err error) {
	for _, c := range group {
		c.Revision, c.Err = 0, err
	}
}

// update carries out a group in one write transaction. A commit sees the writes of the commits before it. Nobody else
// sees any of the writes until all pages of the transaction are on disk.
func (s *Store) update(group []*groupcommit.Commit) error {
	tx, err := s.beginTx(true)
	if err != nil {
		return err
	}
	defer s.rollback(tx) // no effect after a commit
	known, err := s.checkTx(tx)
	if err != nil {
		return err
	}
	written, err := s.write(tx, &known, group)
	if err != nil || written.ops == 0 { // no ops: every commit has failed, and nothing is left to write
		return err
	}
	if err := putRevision(tx, s.newest); err != nil {
		return err
	}
	// A transaction writes anew each page that it changes. The estimate is one page for each op, and no more than all
	// pages in use.
	changed := min(tx.Size(), int64(written.ops*os.Getpagesize()))
	if err := s.grow(tx.Size() + changed + 4*int64(written.bytes)); err != nil {
		return err
	}
	return s.commit(tx)
}

// checkTx checks what a write transaction relies on, before it changes anything. It returns the records as they were
// before the transaction.
func (s *Store) checkTx(tx *bbolt.Tx) (tree, error) {
	known, err := s.bucketTree(tx, recordsBucket)
	if err != nil {
		return known, s.corrupt(err)
	}
	if err := known.checkFree(uint64(tx.ID()) - 1); err != nil {
		return known, s.corrupt(err)
	}
	if err := s.checkSize(tx.Size()); err != nil {
		return known, err
	}
	rev, err := s.readRevision(tx)
	if err == nil && rev != s.newest {
		err = s.corrupt(fmt.Errorf("its newest revision is %d instead of %d", rev, s.newest))
	}
	return known, err
}

// volume is how much a transaction has written: operations, and bytes of records.
type volume struct{ ops, bytes int }

// write applies the commits of a group whose conditions hold, and puts the outcome in each commit.
func (s *Store) write(tx *bbolt.Tx, known *tree, group []*groupcommit.Commit) (w volume, err error) {
	records := tx.Bucket([]byte(recordsBucket))
	records.FillPercent = fillPercent
	s.reserveBuffer(group)
	at := records.Cursor() // one cursor for all conditions; Bucket.Get would make one each time
	lookUp := func(key []byte) ([]byte, error) {
		if found, stored := at.Seek(key); bytes.Equal(found, key) {
			return stored, nil
		}
		return nil, nil
	}
	for _, c := range group {
		if c.Err = s.checkPaths(known, c.Ops); c.Err != nil {
			continue
		}
		if c.Err = s.checkConditions(c.Ops, lookUp); c.Err != nil {
			continue
		}
		s.newest++
		c.Revision = s.newest
		for _, op := range c.Ops {
			w.ops++
			w.bytes += headerSize + op.Size()
			if err := s.apply(records, op, c.Revision); err != nil {
				return w, err
			}
		}
	}
	return w, nil
}

// commit commits a transaction. Only when it returns nil is the transaction known to be on disk.
func (s *Store) commit(tx *bbolt.Tx) error {
	id := uint64(tx.ID()) // tx has no ID after its commit
	switch err := s.commitTx(tx); {
	case err == nil:
		s.durableTx.Store(id)
		return nil
	case errors.Is(err, bbolterrors.ErrMaxSizeReached):
		return err
	default:
		return s.outcome(id, err)
	}
}

// checkPaths checks the pages on bbolt's way to the key of each op, as they were before the transaction. For an op with
// a condition, it also checks that a key which seems absent is absent.
func (s *Store) checkPaths(t *tree, ops []store.Op) error {
	var buf [256]byte
	for _, op := range ops {
		t.removes = op.Removes()
		if _, err := t.find(append(buf[:0], op.Key()...), 0, op.Conditional()); err != nil {
			return s.corrupt(err)
		}
	}
	return nil
}

// checkConditions returns an error for the first op whose condition does not hold. lookUp returns the stored value of a
// key, or nil.
func (s *Store) checkConditions(ops []store.Op, lookUp func(key []byte) ([]byte, error)) error {
	var buf [256]byte // large enough for most keys
	for _, op := range ops {
		if op.Holds(0) && op.Holds(1) {
			continue // the op has no condition; most writes read nothing
		}
		var rev store.Revision
		key := append(buf[:0], op.Key()...)
		stored, err := lookUp(key)
		if err == nil && stored != nil {
			rev, _, err = s.decode(key, stored)
		}
		if err != nil {
			return err
		}
		if !op.Holds(rev) {
			return fmt.Errorf("%w: %q has revision %d", store.ErrConflict, op.Key(), rev)
		}
	}
	return nil
}

func (s *Store) apply(records *bbolt.Bucket, op store.Op, rev store.Revision) error {
	switch {
	case op.Removes():
		return records.Delete([]byte(op.Key()))
	case op.Writes():
		var k, stored []byte
		k, stored, s.buffer = encodeInto(s.buffer, op.Key(), rev, op.Value())
		return records.Put(k, stored)
	}
	return nil
}

// reserveBuffer reserves the memory for what a group writes; bbolt refers to this memory until the transaction ends.
// The memory of the last transaction is used again, unless it is too small, or so large that it is not worth keeping.
func (s *Store) reserveBuffer(group []*groupcommit.Commit) {
	const large = 1 << 20
	size := 0
	for _, c := range group {
		for _, op := range c.Ops {
			size += encodedSize(op.Key(), op.Value())
		}
	}
	if size > cap(s.buffer) || cap(s.buffer) > large {
		s.buffer = make([]byte, 0, size)
	}
	s.buffer = s.buffer[:0]
}
