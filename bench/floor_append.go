package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
)

var appendLoop = contender{
	name:    "append + fdatasync",
	class:   floor,
	unit:    "append",
	records: "128 bytes at the end of a file",
	syncs:   "before each append returns; appends that come at the same time share a sync",
	open:    openAppend,
}

// appendSession appends small records to one file. It appends one record for each run, and calls no steps.
type appendSession struct {
	file  *os.File
	lines groupCommit[[]byte]
	count atomic.Int64
}

func openAppend(_ context.Context, at site) (session, error) {
	f, err := os.OpenFile(filepath.Join(at.dir, "append"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	s := &appendSession{file: f}
	s.lines.commit = s.write
	return s, nil
}

func (s *appendSession) run(_ context.Context, id string) error {
	return s.lines.do(fmt.Appendf(nil, "%-127s\n", id))
}

func (s *appendSession) write(lines [][]byte) error {
	all := lines[0]
	for _, line := range lines[1:] {
		all = append(all, line...)
	}
	if _, err := s.file.Write(all); err != nil {
		return err
	}
	s.count.Add(1)
	return datasync(s.file)
}

func (s *appendSession) synced() (int64, error) { return s.count.Load(), nil }

func (s *appendSession) close(context.Context) error { return s.file.Close() }
