//go:build unix

package file

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// syncDir makes the names in a directory survive a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// syncOldDir is syncDir for a directory with a name in it that was there before. If it cannot be synced for want of
// rights, or ever, the name is not from a store.
func syncOldDir(dir string) error {
	err := syncDir(dir)
	for _, never := range []error{fs.ErrPermission, errors.ErrUnsupported, syscall.EINVAL} {
		if errors.Is(err, never) {
			return nil
		}
	}
	return err
}

// unlinked reports that an open file has no name any more, so that what is written to it is lost when it is closed.
func unlinked(f *os.File) bool {
	var stat syscall.Stat_t
	return syscall.Fstat(int(f.Fd()), &stat) == nil && stat.Nlink == 0
}
