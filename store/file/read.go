package file

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// check carries out a commit that writes nothing, in a read transaction.
func (s *Store) check(ops []store.Op) (rev store.Revision, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		if err := s.checkConditions(ops, func(key []byte) ([]byte, error) { return s.lookUp(tx, key) }); err != nil {
			return err
		}
		rev, err = s.readRevision(tx)
		return err
	})
	return rev, err
}

// maxPage is how many bytes of values end a page of a list that does not have its number of records yet.
const maxPage = 1 << 20

// page is the [keyrange.Fetch] of a list. Each page has a read transaction of its own, so that none is open while the
// caller's code runs. Otherwise bbolt could neither reuse a page nor grow its mapping until that code is done, and a
// commit in that code would never return.
func (s *Store) page(page []store.Record, r keyrange.Range, limit int) (_ []store.Record, more bool, err error) {
	if err := s.enter(); err != nil {
		return page, false, err
	}
	defer s.leave()
	err = s.view(func(tx *bbolt.Tx) error {
		t, err := s.bucketTree(tx, recordsBucket)
		if err != nil {
			return s.corrupt(err)
		}
		size := 0
		var fault error
		if err := t.walk(r, func(key, stored []byte) bool {
			if len(page) == limit || size > maxPage {
				more = true
				return false
			}
			var rec store.Record
			if rec, fault = s.record(key, stored); fault != nil {
				return false
			}
			page = append(page, rec)
			size += len(rec.Value)
			return true
		}); err != nil {
			return s.corrupt(err)
		}
		return fault
	})
	return page, more, err
}

// lookUp returns the stored value of a key in the snapshot of tx, or nil if there is none.
func (s *Store) lookUp(tx *bbolt.Tx, key []byte) ([]byte, error) {
	t, err := s.bucketTree(tx, recordsBucket)
	if err != nil {
		return nil, s.corrupt(err)
	}
	stored, err := t.find(key, 0, true)
	if err != nil {
		return nil, s.corrupt(err)
	}
	return stored, nil
}

// record returns a record that remains valid after the transaction.
func (s *Store) record(key, stored []byte) (store.Record, error) {
	rev, payload, err := s.decode(key, stored)
	if err != nil {
		return store.Record{}, err
	}
	return store.Record{Key: string(key), Value: bytes.Clone(payload), Revision: rev}, nil
}

// decode calls the function decode and adds the file and the key to its error.
func (s *Store) decode(key, stored []byte) (store.Revision, []byte, error) {
	rev, payload, err := decode(key, stored)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %s: record %q: %w", store.ErrCorrupt, s.path, key, err)
	}
	return rev, payload, nil
}
