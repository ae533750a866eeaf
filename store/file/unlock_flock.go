//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package file

import (
	"os"
	"syscall"
)

// unlock releases the lock that bbolt has on a file. Closing the file is not enough while the file is mapped: the
// mapping keeps the open file, and with it the lock.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
