package file

import (
	"context"
	"os"

	"go.etcd.io/bbolt"
)

// OpenAsLarge opens an existing file as Open opens a file of more than inspectAllUpTo bytes: it does not read the
// leaves.
func OpenAsLarge(ctx context.Context, path string) (s *Store, err error) {
	err = acquire(ctx, path, Options{}, func() error {
		s, err = open(path, 0)
		return err
	})
	return s, err
}

// OpenRepeatable makes a store with pages of the given size. In this store, the same commits always fill the same
// pages.
func OpenRepeatable(path string, pageSize int) (*Store, error) {
	opts := boltOptions()
	opts.PageSize = pageSize
	opts.FreelistType = bbolt.FreelistArrayType // the map of free pages chooses among them at random
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	if err := fill(path, opts); err != nil {
		return nil, err
	}
	s := newStore(path)
	return s, s.withBolt(opts, func() error {
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		s.setFileSize(info.Size())
		return s.rewriteMeta()
	})
}
