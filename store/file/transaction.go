package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// The two buckets of a file, and the records of the first. The name, the keys and the coding of ownerBucket stay what
// they are in every later format, so that each program can tell by which one a file was written.
const (
	ownerBucket   = "conveyor"
	formatKey     = "format"
	revisionKey   = "revision"
	recordsBucket = "records"
)

// fileVersion is the version of what is in the buckets, and of their names.
const fileVersion = 1

// fillPercent is how full bbolt leaves a page that it splits. The engine's keys grow with time within each prefix, so
// that most pages are never added to again; half full, which is the default, would double the file.
const fillPercent = 0.9

// carryOut commits a group in one transaction and puts the outcome in each request. Only the leader calls it.
func (s *Store) carryOut(group []*request) {
	if err := s.settle(); err != nil {
		fail(group, err)
		return
	}
	if s.damaged != nil {
		fail(group, s.damaged)
		return
	}
	before := s.newest
	if err := s.guard(func() error { return s.update(group) }); err != nil {
		s.newest = before
		if errors.Is(err, store.ErrCorrupt) {
			s.damaged = err
		}
		fail(group, err)
	}
}

// fail gives the requests that have no error of their own this one.
func fail(group []*request, err error) {
	for _, req := range group {
		if req.err == nil {
			req.rev, req.err = 0, err
		}
	}
}

// update is the write transaction of a group. Its requests see the writes of those before them, and nobody else sees
// any until all are on disk.
func (s *Store) update(group []*request) error {
	tx, err := s.begun(true)
	if err != nil {
		return err
	}
	defer s.rollBack(tx) // no effect after a commit
	id := uint64(tx.ID())
	records := tx.Bucket([]byte(recordsBucket))
	records.FillPercent = fillPercent

	size, pages := 0, 0
	for _, req := range group {
		if len(req.ops) == 0 {
			continue // came to settle a doubt
		}
		if req.err = s.conditions(records, req.ops); req.err != nil {
			continue
		}
		s.newest++
		req.rev = s.newest
		for _, op := range req.ops {
			size += headerSize + len(op.Key()) + len(op.Value())
			pages++
			if err := apply(records, op, req.rev); err != nil {
				return err
			}
		}
	}
	if size == 0 {
		return nil // every condition failed; nothing is left to write
	}
	if err := putRevision(tx, s.newest); err != nil {
		return err
	}
	// A transaction writes anew each page that it changes, of which there are no more than there are pages.
	changed := min(tx.Size(), int64(pages*os.Getpagesize()))
	if err := s.grow(tx.Size() + changed + 4*int64(size)); err != nil {
		return err
	}
	if err := s.commitTx(tx); err != nil {
		return s.outcome(id, err)
	}
	return nil
}

// grow makes the file at least as large as a transaction is likely to need.
//
// bbolt would do it too, but reports a disk that is full or failing in words alone, without the error of the system. If
// the guess is too low, for small records beside very large ones, it still does. Growing by large steps keeps the change
// of size, which costs the disk a further write, out of most commits; the file has holes until they are written to.
func (s *Store) grow(size int64) error {
	if runtime.GOOS == "windows" || size <= s.grown {
		return nil // on Windows the file has the size of its mapping, which is bbolt's
	}
	if size < growStep {
		size = 1 << bits.Len64(uint64(size))
	} else {
		size += growStep
	}
	if err := s.file.Truncate(size); err != nil {
		return fmt.Errorf("grow: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("grow: %w", err)
	}
	s.grown = size
	return nil
}

// growStep is how much a file grows at a time. A smaller file doubles.
const growStep = 64 << 20

// conditions returns the first condition of ops that does not hold.
func (s *Store) conditions(records *bbolt.Bucket, ops []store.Op) error {
	for _, op := range ops {
		if op.Holds(0) && op.Holds(1) {
			continue // of any revision; most writes read nothing
		}
		var rev store.Revision
		key := []byte(op.Key())
		if stored := records.Get(key); stored != nil {
			var err error
			if rev, _, err = s.decode(key, stored); err != nil {
				return err
			}
		}
		if !op.Holds(rev) {
			return fmt.Errorf("%w: %s has revision %d", store.ErrConflict, op.Key(), rev)
		}
	}
	return nil
}

func apply(records *bbolt.Bucket, op store.Op, rev store.Revision) error {
	switch {
	case op.Removes():
		return records.Delete([]byte(op.Key()))
	case op.Writes():
		return records.Put(encode(op.Key(), rev, op.Value()))
	}
	return nil
}

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
	rev, err := readRevision(tx)
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
	return nil
}

// check carries out a commit that writes nothing, on the snapshot of a read transaction.
func (s *Store) check(ops []store.Op) (rev store.Revision, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		if err := s.conditions(tx.Bucket([]byte(recordsBucket)), ops); err != nil {
			return err
		}
		rev, err = readRevision(tx)
		return err
	})
	return rev, err
}

// maxPage is how many bytes of values a page of a list has before it ends short of its number of records.
const maxPage = 1 << 20

// page fetches a part of a list in a read transaction of its own: were one open while the caller's code runs, bbolt
// could not reclaim a page, nor grow, until that code is done, and a commit from within it would never return.
func (s *Store) page(page []store.Record, r keyrange.Range, limit int) (_ []store.Record, more bool, err error) {
	if err := s.begin(); err != nil {
		return page, false, err
	}
	defer s.end()
	err = s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket([]byte(recordsBucket)).Cursor()
		size := 0
		for k, stored := first(cursor, r); k != nil && within(k, r); k, stored = step(cursor, r) {
			if len(page) == limit || size > maxPage {
				more = true
				return nil
			}
			rec, err := s.record(k, stored)
			if err != nil {
				return err
			}
			page = append(page, rec)
			size += len(rec.Value)
		}
		return nil
	})
	return page, more, err
}

// first moves to where r begins.
func first(c *bbolt.Cursor, r keyrange.Range) (key, stored []byte) {
	switch {
	case !r.Reverse:
		return c.Seek([]byte(r.From))
	case r.To == "":
		return c.Last()
	}
	if key, _ := c.Seek([]byte(r.To)); key == nil {
		return c.Last()
	}
	return c.Prev()
}

func step(c *bbolt.Cursor, r keyrange.Range) (key, stored []byte) {
	if r.Reverse {
		return c.Prev()
	}
	return c.Next()
}

func within(key []byte, r keyrange.Range) bool {
	return string(key) >= r.From && (r.To == "" || string(key) < r.To)
}

// record returns a record that does not depend on the transaction.
func (s *Store) record(key, stored []byte) (store.Record, error) {
	rev, payload, err := s.decode(key, stored)
	if err != nil {
		return store.Record{}, err
	}
	return store.Record{Key: string(key), Value: bytes.Clone(payload), Revision: rev}, nil
}

// decode is the function decode, with an error that names file and key.
func (s *Store) decode(key, stored []byte) (store.Revision, []byte, error) {
	rev, payload, err := decode(key, stored)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %s: record %q: %w", store.ErrCorrupt, s.path, key, err)
	}
	return rev, payload, nil
}

// view runs fn in a read transaction.
func (s *Store) view(fn func(tx *bbolt.Tx) error) error {
	if s.doubt.Load() != nil {
		// Any leader settles the doubt, so become one, or wait for one.
		if _, err := s.enqueue(context.Background(), nil); err != nil {
			return err
		}
	}
	s.snapshots.RLock()
	defer s.snapshots.RUnlock()
	return s.guard(func() error {
		tx, err := s.begun(false)
		if err != nil {
			return err
		}
		defer s.rollBack(tx)
		return fn(tx)
	})
}

// begun begins a transaction. If bbolt panics in the middle, because both meta pages have been destroyed under it, it
// keeps locks for which the next transaction, and its Close, would wait for ever.
func (s *Store) begun(writable bool) (tx *bbolt.Tx, err error) {
	s.beginning.Lock()
	defer s.beginning.Unlock()
	if s.stuck {
		return nil, fmt.Errorf("%w: %s: it was destroyed while it was open", store.ErrCorrupt, s.path)
	}
	s.stuck = true
	tx, err = s.db.Begin(writable)
	s.stuck = false
	return tx, err
}

// rollBack ends a transaction. On a damaged list of free pages bbolt may panic here too, with the same consequence.
func (s *Store) rollBack(tx *bbolt.Tx) {
	done := false
	defer func() {
		if !done {
			s.beginning.Lock()
			defer s.beginning.Unlock()
			s.stuck = true
		}
	}()
	_ = tx.Rollback()
	done = true
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

func putRevision(tx *bbolt.Tx, rev store.Revision) error {
	payload := binary.LittleEndian.AppendUint64(nil, uint64(rev))
	return tx.Bucket([]byte(ownerBucket)).Put(encode(revisionKey, 0, payload))
}

func readRevision(tx *bbolt.Tx) (store.Revision, error) {
	stored := tx.Bucket([]byte(ownerBucket)).Get([]byte(revisionKey))
	_, payload, err := decode([]byte(revisionKey), stored)
	if err != nil || len(payload) != 8 {
		return 0, fmt.Errorf("%w: the newest revision: %w", store.ErrCorrupt, errDamaged)
	}
	return decodeRevision(payload), nil
}

func decodeRevision(payload []byte) store.Revision {
	return store.Revision(binary.LittleEndian.Uint64(payload))
}

func checkFormat(payload []byte) error {
	if len(payload) != 4 {
		return errors.New("no record of its format")
	}
	if v := binary.LittleEndian.Uint32(payload); v != fileVersion {
		return fmt.Errorf("written by another version of Conveyor: format %d, and this one reads format %d", v, fileVersion)
	}
	return nil
}
