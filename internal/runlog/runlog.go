package runlog

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// logChunk bounds the bytes of lines that go into one record.
const logChunk = 1 << 20

// Log collects the lines of one run until they are written. Lines are written along with a step's outcome, in its
// commit, and once a second besides.
type Log struct {
	Run string

	mu      sync.Mutex       // guards what follows; held for a copy
	seq     int64            // of the newest line
	pending []record.LogLine // not known to be written, in order of Seq
	size    int              // about the bytes of pending
	kept    map[string]int   // lines kept by step
}

// Add keeps a line; it reports whether there was room and whether it is time to write.
func (l *Log) Add(line record.LogLine, limit int) (kept, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := l.kept[line.Step]; {
	case n > limit:
		return false, false
	case n == limit:
		line.Level, line.Attrs = slog.LevelWarn, nil
		line.Message = fmt.Sprintf("log: more than the limit of %d lines; later ones are not kept", limit)
	}
	l.kept[line.Step]++
	l.seq++
	line.Seq = l.seq
	l.pending = append(l.pending, line)
	l.size += len(line.Message) + len(line.Attrs) + 128
	return true, l.size >= logChunk
}

// Ops returns writes for the pending lines, and the Seq of the last of them.
func (l *Log) Ops() (ops []store.Op, last int64) {
	l.mu.Lock()
	lines := slices.Clone(l.pending)
	l.mu.Unlock()
	for len(lines) > 0 {
		n, size := 0, 0
		for n < len(lines) && (n == 0 || size < logChunk) {
			size += len(lines[n].Message) + len(lines[n].Attrs) + 128
			n++
		}
		ops = append(ops, store.Put(record.LogKey(l.Run, lines[0].Seq), record.Encode(lines[:n])))
		last, lines = lines[n-1].Seq, lines[n:]
	}
	return ops, last
}

// Written drops the lines up to a Seq from memory.
func (l *Log) Written(last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.pending) && l.pending[n].Seq <= last {
		l.size -= len(l.pending[n].Message) + len(l.pending[n].Attrs) + 128
		n++
	}
	l.pending = slices.Delete(l.pending, 0, n)
}

func (l *Log) Unwritten() []record.LogLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.pending)
}

// Kept returns how many lines of a step are kept.
func (l *Log) Kept(step string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept[step]
}

// New returns the log of a run whose newest line has a number.
func New(run string, seq int64) *Log {
	return &Log{Run: run, seq: seq, kept: map[string]int{}}
}

// SetKept says how many lines of a step are kept already.
func (l *Log) SetKept(step string, n int) { l.kept[step] = n }
