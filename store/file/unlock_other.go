//go:build !unix || solaris || aix

package file

import "os"

// unlock does nothing where the lock on a file ends when it is closed.
func unlock(*os.File) error { return nil }
