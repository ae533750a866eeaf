package main

import (
	"fmt"
	"os"
)

// tempDir makes the folder for all temporary data in dir. If dir is empty, tempDir makes the folder in the current folder,
// or else in the folder of the system for temporary files. It skips a folder whose file system is in memory.
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

// inMemory reports whether a file system keeps its files in memory. A sync costs nothing in memory.
func inMemory(fileSystem string) bool { return fileSystem == "tmpfs" || fileSystem == "ramfs" }
