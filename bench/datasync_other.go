//go:build !linux

package main

import "os"

// datasync syncs the content of f to the disk.
func datasync(f *os.File) error { return f.Sync() }
