//go:build !unix

package file

// syncDir does nothing where a directory cannot be synced: on Windows the file system records names in its own journal.
func syncDir(string) error { return nil }

func syncOldDir(string) error { return nil }
