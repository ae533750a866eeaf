package file

import (
	"fmt"
	"math/bits"
	"os"
	"runtime"
)

// checkSize returns an error if pages in use are not in the file. It must be called before the file grows, which would
// put empty pages in their place.
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
// bbolt could grow the file itself, but it reports a full or failing disk as text only, without the error of the
// operating system. Therefore bbolt is not allowed to grow the file. It fails a transaction that needs more than the
// estimate, which happens with small records beside very large ones. Most commits do not change the size of the file,
// which would cost the disk another write, because the file grows in large steps. The new part of the file is a hole
// until it is written to.
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

// extend makes a file as large as size, unless it is as large already.
func extend(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return f.Truncate(size)
}

// setFileSize notes the size of the file, and forbids bbolt to change the size.
func (s *Store) setFileSize(size int64) {
	s.fileSize, s.db.AllocSize = size, growStep
	if managesFileSize {
		s.db.AllocSize, s.db.MaxSize = 0, int(size) // with an AllocSize, bbolt would ask for more than it needs
	}
}

// managesFileSize reports whether the store sets the size of its file. On Windows bbolt sets it, to the size of its
// mapping.
const managesFileSize = runtime.GOOS != "windows"

// growStep is how many bytes a file grows at a time. A file smaller than growStep doubles its size instead.
const growStep = 64 << 20
