package main

import (
	"fmt"
	"os"
)

// tempDir makes the folder for all temporary data: below dir, or below the current folder, or else where the system has
// its temporary files, if that is a disk.
func tempDir(dir string) (string, error) {
	if dir != "" {
		return os.MkdirTemp(dir, "conveyor-bench-")
	}
	for _, candidate := range []string{".", os.TempDir()} {
		if inMemory(fileSystem(candidate)) {
			continue
		}
		if made, err := os.MkdirTemp(candidate, "conveyor-bench-"); err == nil {
			return made, nil
		}
	}
	return "", fmt.Errorf("no folder on a disk to write to: choose one with -dir")
}

// inMemory tells whether a file system keeps its files in memory, where a sync costs nothing.
func inMemory(fileSystem string) bool { return fileSystem == "tmpfs" || fileSystem == "ramfs" }
