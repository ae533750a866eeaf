// Package runlog collects the log lines of runs: the handler that drivers log to, the lines that are not written yet, and
// the readers that follow a log.
package runlog

import (
	"slices"
	"sync"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

const (
	// chunkSize is the largest size in bytes of the lines in one record, unless the record has only one line.
	chunkSize = 1 << 20
	// heldSize is the size in bytes of the lines of one step in memory at which its logger waits, or lines are dropped.
	heldSize = 1 << 20
	// heldLast is the size in bytes of the newest lines of one step that are kept however full the memory is.
	heldLast = heldSize / 2
	// flushSize is the size in bytes of the lines of one step at which they are written early.
	flushSize = heldSize / 4
)

// Log collects the lines of one run until they are written. Lines are written in the commit of a step's outcome, and
// otherwise within about a second.
//
// A step has at most limit lines: its first ones, which are the head, and its newest ones. One line, the mark, stands for
// those that were dropped between them. Lines are dropped when there are more than limit. They are also dropped in
// memory if a step logs faster than the store writes.
//
// A Log is safe for concurrent use, with two exceptions. SetKept, Recount and Within must be called before the Log is shared.
// Prepare, Ops, Kept and Written are called by one goroutine at a time.
type Log struct {
	Run   string
	limit int // lines kept of a step
	room  Room

	// index is what the store holds. It is nil until it is needed: most steps never reach the limit. It is owned by the
	// goroutine that calls Prepare.
	index []chunk
	next  *change // what Ops returns; nil if there is nothing to write; owned like index

	mu      sync.Mutex       // guards what follows; held for a copy
	seq     int64            // Seq of the newest line
	writing []record.LogLine // lines in next, and lines of a commit that has failed, in the order of Seq
	waiting []record.LogLine // lines that came after them
	steps   map[string]*step
	recount bool          // the numbers of the lines on record are not known
	space   chan struct{} // closed when lines were written; nil if nobody waits
	stuck   bool          // a logger has waited in vain since lines were written last
}

// step is what a Log knows of the lines of one step.
type step struct {
	written int  // lines on record
	writing int  // lines in Log.writing
	waiting int  // lines in Log.waiting
	size    int  // bytes of the lines in writing
	last    int  // bytes of the lines in waiting
	marked  bool // lines were dropped
	ended   bool // the mark is on record or in writing, so that no waiting line is one of the head
	old     bool // the mark is on record
}

// New returns the log of a run that keeps at most limit lines of each step. seq is the number after which the lines are
// numbered.
func New(run string, seq int64, limit int) *Log {
	return &Log{Run: run, limit: limit, seq: seq, steps: map[string]*step{}}
}

// Room is how much of a log one commit can write. The zero value means that a commit can write everything.
type Room struct {
	Records int // that the commit writes or removes
	Bytes   int // of them
	Chunk   int // bytes of the new lines, unless there is only one; at most half of Bytes, less the largest line
}

// Within has Prepare make writes that one commit can make. What does not fit is left to the next call of Prepare.
func (l *Log) Within(room Room) { l.room = room }

// SetKept sets the number of lines that are on record of a step.
func (l *Log) SetKept(id string, n int) { l.stepLocked(id).written = n }

// Recount makes the next Prepare count the lines that are on record. The process that wrote them died during a call, so
// that the record of the step does not say how many there are.
func (l *Log) Recount() { l.recount = true }

func (l *Log) stepLocked(id string) *step {
	s := l.steps[id]
	if s == nil {
		s = new(step)
		l.steps[id] = s
	}
	return s
}

// Add adds a line. It reports whether the lines must be written now. If too many lines of the step are in memory, Add does
// not add the line, and returns a channel: the caller must wait until it is closed and call Add again. Add always adds the
// line if force is set, if a logger has waited in vain, or if lines of the step will be dropped anyway.
func (l *Log) Add(line record.LogLine, force bool) (wait <-chan struct{}, full bool) {
	size := sizeOf(&line)
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stepLocked(line.Step)
	whole := !s.marked && s.written+s.writing+s.waiting < l.limit // no line of the step is dropped for its limit
	if s.size+s.last > 0 && s.size+s.last+size > heldSize {
		if whole && !force && !l.stuck {
			if l.space == nil {
				l.space = make(chan struct{})
			}
			return l.space, true
		}
		if s.last+size > heldLast {
			l.thinLocked(line.Step, s, size)
		}
	}
	l.seq++
	line.Seq = l.seq
	l.waiting = append(l.waiting, line)
	s.waiting++
	s.last += size
	return nil, whole && s.size+s.last >= flushSize
}

// GiveUp notes that a logger has waited in vain. Until lines are written, no logger waits.
func (l *Log) GiveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stuck = true
}

// thinLocked drops waiting lines of a step, so that there is room for a newer line of so many bytes; 0 if there is none. It
// keeps the lines of the head, up to a quarter of heldSize, and the newest ones.
func (l *Log) thinLocked(id string, s *step, size int) {
	head, room := 0, heldSize/4
	if !s.ended {
		head = max(l.limit/2-s.written-s.writing, 0)
	}
	target := max(max(heldSize*3/4-s.size, heldLast*3/4)-size, 0)
	newest := -1
	for i := len(l.waiting) - 1; size == 0 && newest < 0; i-- {
		if l.waiting[i].Step == id {
			newest = i
		}
	}
	var m mark
	kept := l.waiting[:0]
	for i := range l.waiting {
		line := &l.waiting[i]
		if line.Step == id {
			size := sizeOf(line)
			if head > 0 && line.Dropped == 0 && size <= room {
				head, room = head-1, room-size
			} else {
				head = 0
				if s.last > target && i != newest {
					m.add(line, len(kept))
					s.last -= size
					if line.Dropped == 0 {
						s.waiting--
					}
					continue
				}
			}
		}
		kept = append(kept, *line)
	}
	clear(l.waiting[len(kept):])
	l.waiting = m.placed(kept)
	if m.line.Dropped > 0 {
		s.marked = true
		s.last += sizeOf(&l.waiting[m.at])
	}
}

// sizeOf returns the number of bytes that a line needs in a record, or a few more.
func sizeOf(line *record.LogLine) int {
	const names = 256 // the names of the fields, the numbers and the time
	return text.Size(line.Message) + len(line.Attrs) + len(line.Step) + names
}

// Newest returns the Seq of the newest line.
func (l *Log) Newest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// sizeOfAll returns the number of bytes that lines need in records.
func sizeOfAll(lines []record.LogLine) (size int) {
	for i := range lines {
		size += sizeOf(&lines[i])
	}
	return size
}

// Unprepared reports whether Prepare has something to do.
func (l *Log) Unprepared() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.writing)+len(l.waiting) > 0 || l.recount
}

// Ops returns the writes that Prepare has made, and the Seq of the last line. It returns 0 if there are none. It also returns 0
// if the writes only make room for lines, which the next Prepare writes.
func (l *Log) Ops() (ops []store.Op, last int64) {
	if l.next == nil {
		return nil, 0
	}
	return l.next.ops, l.next.last
}

// Written notes that the writes of Ops are on record. last is what Ops has returned.
func (l *Log) Written(last int64) {
	if l.next == nil || l.next.last != last {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range l.next.kept {
		s := l.steps[id]
		s.written = n
		if l.next.marked[id] {
			s.marked, s.ended, s.old = true, true, true
		}
	}
	if last == 0 { // the lines are still to be written
		l.index, l.next = l.next.index, nil
		return
	}
	for i := range l.writing {
		s := l.steps[l.writing[i].Step]
		s.writing, s.size = 0, 0
	}
	l.index, l.writing, l.next = l.next.index, nil, nil
	l.stuck = false
	if l.space != nil {
		close(l.space)
		l.space = nil
	}
}

// Unwritten returns a copy of the lines that are not known to be on record.
func (l *Log) Unwritten() []record.LogLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Concat(l.writing, l.waiting)
}

// Kept returns the number of lines of a step that are on record when the writes of Ops are.
func (l *Log) Kept(id string) int {
	if l.next != nil {
		if n, ok := l.next.kept[id]; ok {
			return n
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.steps[id]; s != nil {
		return s.written
	}
	return 0
}
