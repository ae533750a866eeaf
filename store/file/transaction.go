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
)

// fillPercent is how full bbolt leaves a page that it splits. The engine's keys grow with time within each prefix, so
// that most pages are never added to again; half full, which is the default, would double the file.
const fillPercent = 0.9

// commitGroup commits a group in one transaction and puts the outcome in each request. Only the leader calls it.
func (s *Store) commitGroup(group []*request) {
	if err := s.usable(); err != nil {
		failAll(group, err)
		return
	}
	before := s.newest
	err := s.guard(func() error { return s.update(group) })
	for errors.Is(err, bbolterrors.ErrMaxSizeReached) { // the guess was too low
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

// usable tells why there can be no transaction any more, if that is so.
func (s *Store) usable() error {
	switch {
	case s.mustReopen.Load() != nil: // since the group came into the queue
		return *s.mustReopen.Load()
	case s.damaged != nil:
		return s.damaged
	case unlinked(s.file):
		return s.requireReopen(fmt.Errorf("it was deleted or replaced: %w", fs.ErrNotExist))
	}
	return nil
}

// failAll answers all requests of a group with one error, also those that had a conflict: it may have been with a commit of
// the same group, which now has not happened.
func failAll(group []*request, err error) {
	for _, req := range group {
		req.rev, req.err = 0, err
	}
}

// update is the write transaction of a group. Its requests see the writes of those before them, and nobody else sees
// any until all are on disk.
func (s *Store) update(group []*request) error {
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
	if err != nil || written.ops == 0 { // every condition failed; nothing is left to write
		return err
	}
	if err := putRevision(tx, s.newest); err != nil {
		return err
	}
	// A transaction writes anew each page that it changes, of which there are no more than there are pages.
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

// write applies the requests of a group whose conditions hold, and puts the outcome in each request.
func (s *Store) write(tx *bbolt.Tx, known *tree, group []*request) (w volume, err error) {
	records := tx.Bucket([]byte(recordsBucket))
	records.FillPercent = fillPercent
	s.reserveBuffer(group)
	at := records.Cursor() // one for all conditions: a look-up by the bucket makes one each time
	lookUp := func(key []byte) ([]byte, error) {
		if found, stored := at.Seek(key); bytes.Equal(found, key) {
			return stored, nil
		}
		return nil, nil
	}
	for _, req := range group {
		if req.err = s.checkPaths(known, req.ops); req.err != nil {
			continue
		}
		if req.err = s.checkConditions(req.ops, lookUp); req.err != nil {
			continue
		}
		s.newest++
		req.rev = s.newest
		for _, op := range req.ops {
			w.ops++
			w.bytes += headerSize + len(op.Key()) + len(op.Value())
			if err := s.apply(records, op, req.rev); err != nil {
				return w, err
			}
		}
	}
	return w, nil
}

// commit commits a transaction.
func (s *Store) commit(tx *bbolt.Tx) error {
	id := uint64(tx.ID()) // not known to tx any more after its commit
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

// checkPaths makes sure that bbolt can go to each of the keys, and finds out whether it is absent where that matters, by what
// the pages were before the transaction.
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

// checkConditions returns the first condition of ops that does not hold.
func (s *Store) checkConditions(ops []store.Op, lookUp func(key []byte) ([]byte, error)) error {
	var buf [256]byte // for a key of the usual length
	for _, op := range ops {
		if op.Holds(0) && op.Holds(1) {
			continue // of any revision; most writes read nothing
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
			return fmt.Errorf("%w: %s has revision %d", store.ErrConflict, op.Key(), rev)
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

// reserveBuffer provides the memory for what a group writes, which bbolt refers to until the end of the transaction. It is
// that of the transaction before, unless that is too small, or so large that it is not worth keeping.
func (s *Store) reserveBuffer(group []*request) {
	const large = 1 << 20
	size := 0
	for _, req := range group {
		for _, op := range req.ops {
			size += encodedSize(op.Key(), op.Value())
		}
	}
	if size > cap(s.buffer) || cap(s.buffer) > large {
		s.buffer = make([]byte, 0, size)
	}
	s.buffer = s.buffer[:0]
}
