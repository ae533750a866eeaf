package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
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

func (s *Store) readRevision(tx *bbolt.Tx) (store.Revision, error) {
	t, err := s.bucketOf(tx, ownerBucket)
	if err != nil {
		return 0, s.corrupt(err)
	}
	stored, err := t.find([]byte(revisionKey), 0, true)
	if err != nil {
		return 0, s.corrupt(err)
	}
	_, payload, err := s.decode([]byte(revisionKey), stored)
	if err == nil && len(payload) != 8 {
		err = s.corrupt(errors.New("the newest revision is damaged"))
	}
	if err != nil {
		return 0, err
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
