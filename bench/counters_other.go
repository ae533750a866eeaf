//go:build !linux

package main

import (
	"errors"
	"io/fs"
)

func writtenBytes() int64 { return unknown }

func allocated(info fs.FileInfo) int64 { return info.Size() }

type syncCalls struct{}

func countSyncCalls() (*syncCalls, error) { return nil, errors.ErrUnsupported }

func (*syncCalls) count() (int64, error) { return unknown, nil }
