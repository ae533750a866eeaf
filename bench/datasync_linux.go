package main

import (
	"os"
	"syscall"
)

// datasync syncs the content of f to the disk.
func datasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
