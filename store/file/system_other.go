//go:build !unix

package file

import "os"

// syncDir does nothing where a directory cannot be synced: on Windows the file system records names in its own journal.
func syncDir(string) error { return nil }

func syncOldDir(string) error { return nil }

// unlinked reports that an open file was deleted, which Windows does not allow.
func unlinked(*os.File) bool { return false }
