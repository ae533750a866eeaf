//go:build !unix

package file

import "os"

// syncDir does nothing, because a directory cannot be synced here. On Windows the file system records names in its own
// journal.
func syncDir(string) error { return nil }

func syncOldDir(string) error { return nil }

// unlinked returns false: Windows does not allow an open file to be deleted.
func unlinked(*os.File) bool { return false }
