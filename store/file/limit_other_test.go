//go:build !linux

package file_test

func limitMemory() {}
