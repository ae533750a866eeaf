package file

import (
	"fmt"
	"math/bits"
	"os"
	"runtime"
)

// checkSize makes sure that the pages of a transaction are in the file, before it grows by what is not.
func (s *Store) checkSize(used int64) error {
	if used <= s.fileSize {
		return nil
	}
	info, err := s.file.Stat()
	if err == nil && used > info.Size() {
		err = s.corrupt(fmt.Errorf("file has %d bytes, and %d are in use", info.Size(), used))
	}
	return err
}

// grow makes the file at least as large as a transaction is likely to need.
//
// bbolt would do it too, but reports a disk that is full or failing in words alone, without the error of the system, so
// it is not allowed to: it gives up a transaction that needs more, for small records beside very large ones. Growing by
// large steps keeps the change of size, which costs the disk a further write, out of most commits; the file has holes
// until they are written to.
func (s *Store) grow(size int64) error {
	if size <= s.fileSize || !managesFileSize {
		return nil
	}
	if size < growStep {
		size = 1 << bits.Len64(uint64(size))
	} else {
		size += growStep
	}
	if err := extend(s.file, size); err != nil {
		return fmt.Errorf("grow: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return s.requireReopen(fmt.Errorf("grow: %w", err))
	}
	s.setFileSize(size)
	return nil
}

// extend gives a file the size that it is to have, unless it is larger.
func extend(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return f.Truncate(size)
}

// setFileSize notes the size of the file, and forbids bbolt to change it.
func (s *Store) setFileSize(size int64) {
	s.fileSize, s.db.AllocSize = size, growStep
	if managesFileSize {
		s.db.AllocSize, s.db.MaxSize = 0, int(size) // it would ask for the former beyond what it needs
	}
}

// managesFileSize says whether the store sets the size of its file. On Windows bbolt does, to that of its mapping.
const managesFileSize = runtime.GOOS != "windows"

// growStep is how much a file grows at a time. A smaller file doubles.
const growStep = 64 << 20
