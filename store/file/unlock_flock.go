//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package file

import (
	"os"
	"syscall"
)

// unlock gives up the lock that bbolt has on a file. To close the file is not enough while it is mapped: the mapping
// refers to what was opened, and so keeps the lock.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
