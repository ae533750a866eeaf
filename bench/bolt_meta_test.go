package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

func TestBoltSyncsAreTwoForEachTransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bolt.db")
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	before, err := boltSyncs(path)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists([]byte("b"))
			return err
		}))
	}
	after, err := boltSyncs(path)
	require.NoError(t, err)
	require.EqualValues(t, 6, after-before)
	require.NoError(t, db.Close())

	require.NoError(t, os.WriteFile(path, make([]byte, 3*os.Getpagesize()), 0o600))
	_, err = boltSyncs(path)
	require.Error(t, err)
}
