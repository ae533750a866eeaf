//go:build unix && !solaris && !aix

package file

import (
	"os"
	"syscall"
)

// unlock gives up the lock that bbolt has on a file. Closing the file is not enough while it is mapped.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
