package file

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/conveyor-go/conveyor/store"
	"go.etcd.io/bbolt"
)

// The two buckets of a file, and the records of ownerBucket. The name, the keys and the coding of ownerBucket are the
// same in every later format, so that every version of the program can read which format a file has.
const (
	ownerBucket   = "conveyor"
	formatKey     = "format"
	revisionKey   = "revision"
	recordsBucket = "records"
)

// fileVersion is the version of the contents of the buckets and of their names.
const fileVersion = 1

func putRevision(tx *bbolt.Tx, rev store.Revision) error {
	payload := binary.LittleEndian.AppendUint64(nil, uint64(rev))
	return tx.Bucket([]byte(ownerBucket)).Put(encode(revisionKey, 0, payload))
}

func (s *Store) readRevision(tx *bbolt.Tx) (store.Revision, error) {
	t, err := s.bucketTree(tx, ownerBucket)
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

func emptyStore(tx *bbolt.Tx) error {
	owner, err := tx.CreateBucket([]byte(ownerBucket))
	if err != nil {
		return err
	}
	if err := owner.Put(encode(formatKey, 0, binary.LittleEndian.AppendUint32(nil, fileVersion))); err != nil {
		return err
	}
	if _, err := tx.CreateBucket([]byte(recordsBucket)); err != nil {
		return err
	}
	return putRevision(tx, 0)
}
