package main

import (
	"io/fs"
	"os"
	"path/filepath"
)

// removeAll removes a folder and all that is in it, also if the tests of a repository have left folders that nobody may
// write to. The module cache of Go is such a folder. os.RemoveAll fails there, unless root calls it.
func removeAll(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	// The entries of a folder are visited after the folder, so that a folder can be read when WalkDir comes to its entries.
	filepath.WalkDir(path, func(name string, entry fs.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			os.Chmod(name, 0o700) // if this fails, the second os.RemoveAll says why
		}
		return nil
	})
	return os.RemoveAll(path)
}
