// Package runlog collects the log lines of runs: the handler that drivers log to, the lines that are not written yet, and
// the readers that follow a log.
package runlog

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// logChunk is the maximum size in bytes of the lines in one record, unless the record has only one line.
const logChunk = 1 << 20

// Log collects the lines of one run until they are written. Lines are written in the commit of a step's outcome, and
// otherwise within about a second. A Log is safe for concurrent use, except for SetKept.
type Log struct {
	Run string

	mu      sync.Mutex       // guards what follows; held for a copy
	seq     int64            // Seq of the newest line
	pending []record.LogLine // lines that are not known to be written, in the order of Seq
	size    int              // approximate size of pending in bytes
	kept    map[string]int   // number of lines kept, by step
}

// New returns the log of a run. seq is the Seq of the newest line that is written, or 0 if there is none.
func New(run string, seq int64) *Log {
	return &Log{Run: run, seq: seq, kept: map[string]int{}}
}

// SetKept sets the number of lines that are kept of a step. It must be called before the Log is shared.
func (l *Log) SetKept(step string, n int) { l.kept[step] = n }

// Add keeps a line, unless the step has reached the limit of lines. Instead of the first line over the limit, Add keeps
// a line that reports this. It returns whether a line was kept, and whether the pending lines must be written now.
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

// Ops returns the writes of the pending lines, and the Seq of the last line. It returns 0 if no line is pending.
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

// Written drops the pending lines up to a Seq. The caller knows that they are written.
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

// Unwritten returns a copy of the pending lines.
func (l *Log) Unwritten() []record.LogLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.pending)
}

// Kept returns the number of lines that are kept of a step, written or pending.
func (l *Log) Kept(step string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept[step]
}
