package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
)

// counters are values of which allocs, bytes, written and syncs only grow. The difference of two readings is what was used
// between the two.
type counters struct {
	allocs  uint64 // objects allocated
	bytes   uint64 // bytes of the allocated objects
	written int64  // bytes that the process has made the kernel write to disk; unknown if negative
	disk    int64  // bytes that the files of a folder take on the disk
	syncs   int64  // number of syncs of files; unknown if negative
}

const unknown = -1

// meter reads counters.
type meter struct {
	calls *syncCalls // nil if the system calls of the process cannot be counted
}

// read returns the counters for a session whose files are in dir.
func (m meter) read(s session, dir string) (counters, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	c := counters{allocs: mem.Mallocs, bytes: mem.TotalAlloc, written: writtenBytes()}
	var err, syncErr error
	c.disk, err = diskUsage(dir)
	c.syncs, syncErr = m.syncs(s)
	return c, errors.Join(err, syncErr)
}

// syncs returns the number of syncs of the whole process if the system calls can be counted, and otherwise the number of
// syncs that the session knows.
func (m meter) syncs(s session) (int64, error) {
	if m.calls != nil {
		return m.calls.count()
	}
	if own, ok := s.(syncCounter); ok {
		return own.synced()
	}
	return unknown, nil
}

// diskUsage returns how many bytes the files below dir take on the disk. Holes in the files are not counted.
func diskUsage(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return ignoreNotExist(err)
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreNotExist(err)
		}
		total += allocated(info)
		return nil
	})
	return total, err
}

// ignoreNotExist returns nil for a file that was removed while its folder was read, and err otherwise.
func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
