package main

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// boltSyncs returns how often transactions have synced a bbolt file. Transactions are numbered, and the newer of the two
// meta pages has the number of the newest transaction. Each transaction syncs twice: first the pages, then the meta page.
// The syncs of a file that grows are not counted.
func boltSyncs(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	newest, err := boltTransactions(f, int64(os.Getpagesize()))
	return 2 * newest, err
}

// boltTransactions returns the number of the newest transaction.
func boltTransactions(file io.ReaderAt, pageSize int64) (int64, error) {
	const (
		header = 16         // length of the header of a page
		magic  = 0xED0CDAED // the first field of a meta page
		number = 48         // offset of the number of the transaction in a meta page
		length = number + 8
	)
	var newest int64
	for page := range int64(2) {
		meta := make([]byte, length)
		if _, err := file.ReadAt(meta, page*pageSize+header); err != nil {
			return 0, err
		}
		if binary.NativeEndian.Uint32(meta) != magic {
			return 0, errors.New("not the meta page of a bbolt file")
		}
		newest = max(newest, int64(binary.NativeEndian.Uint64(meta[number:])))
	}
	return newest, nil
}
