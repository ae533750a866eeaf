//go:build !linux

package main

import "os"

// datasync returns when the content of f is on the disk.
func datasync(f *os.File) error { return f.Sync() }
