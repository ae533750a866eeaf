package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
)

// counters are readings that only grow. What two of them differ by was spent in between.
type counters struct {
	allocs  uint64 // objects allocated
	bytes   uint64 // bytes of them
	written int64  // bytes that the process has made the kernel write to disk; unknown if negative
	disk    int64  // bytes that the files of a folder take on the disk
	syncs   int64  // of files; unknown if negative
}

const unknown = -1

// meter reads counters.
type meter struct {
	calls *syncCalls // nil if the system calls of the process cannot be counted
}

// read reads the counters for a session whose files are in dir.
func (m meter) read(s session, dir string) (counters, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	c := counters{allocs: mem.Mallocs, bytes: mem.TotalAlloc, written: writtenBytes()}
	var err, syncErr error
	c.disk, err = diskUsage(dir)
	c.syncs, syncErr = m.syncs(s)
	return c, errors.Join(err, syncErr)
}

// syncs counts the system calls of the whole process where that is possible, or else asks the session.
func (m meter) syncs(s session) (int64, error) {
	if m.calls != nil {
		return m.calls.count()
	}
	if own, ok := s.(syncCounter); ok {
		return own.synced()
	}
	return unknown, nil
}

// diskUsage is how many bytes the files below dir take, without the holes in them.
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

// ignoreNotExist passes over files that were removed while their folder was read.
func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
