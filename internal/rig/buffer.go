package rig

import (
	"bytes"
	"sync"
	"testing/synctest"
)

// Buffer keeps what the logger of an engine writes. The engine logs on a goroutine of its own, also while a test reads.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends p. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String waits until every other goroutine of the bubble is blocked, and returns what has been written.
func (b *Buffer) String() string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
