//go:build unix

package file

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// syncDir syncs a directory, so that the names in it survive a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// syncOldDir is syncDir for a name that was in the directory before. It returns nil if the directory cannot be synced
// at all, or not with the rights of this process: then no store has made the name.
func syncOldDir(dir string) error {
	err := syncDir(dir)
	for _, never := range []error{fs.ErrPermission, errors.ErrUnsupported, syscall.EINVAL} {
		if errors.Is(err, never) {
			return nil
		}
	}
	return err
}

// unlinked reports whether an open file has no name any more. What is written to such a file is lost when it is closed.
func unlinked(f *os.File) bool {
	var stat syscall.Stat_t
	return syscall.Fstat(int(f.Fd()), &stat) == nil && stat.Nlink == 0
}
