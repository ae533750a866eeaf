package main

import (
	"os"
	"syscall"
)

// datasync returns when the content of f is on the disk.
func datasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
