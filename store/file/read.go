package file

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

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
	return s.guard(func() error {
		tx, err := s.begun(false)
		if err != nil {
			return err
		}
		defer s.rollBack(tx)
		return fn(tx)
	})
}
