package runlog

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Reader reads the log lines of a run that are on record.
type Reader interface {
	// LogRecords passes each record of lines with its key, in order. It leaves out the records that are damaged.
	LogRecords(run string, pass func(key string, lines []record.LogLine)) error
	// LogRecord returns the lines of one record, and none if the record is damaged or missing.
	LogRecord(key string) ([]record.LogLine, error)
}

// mark is the line that stands for dropped lines of a step.
type mark struct {
	line record.LogLine
	at   int // its position among the lines that are kept
}

// add makes the mark stand for one more line, or for those that another mark stands for. at is the position of the line
// among those that are kept.
func (m *mark) add(line *record.LogLine, at int) {
	n := m.line.Dropped + max(line.Dropped, 1)
	m.line = record.LogLine{Seq: line.Seq, Time: line.Time, Step: line.Step, Attempt: line.Attempt, Level: slog.LevelWarn, Dropped: n}
	m.at = at
}

// placed returns the lines with the mark among them, if it stands for any.
func (m *mark) placed(lines []record.LogLine) []record.LogLine {
	if m.line.Dropped == 0 {
		return lines
	}
	m.line.Message = fmt.Sprintf("log: %d lines of the step are not kept", m.line.Dropped)
	return slices.Insert(lines, m.at, m.line)
}

// thin returns lines without n lines of a step and without its marks. The first lines of the step, as many as head says,
// stay. m then stands for what was left out too.
func thin(lines []record.LogLine, id string, head, n int, m *mark) []record.LogLine {
	kept := make([]record.LogLine, 0, len(lines))
	for i := range lines {
		line := &lines[i]
		switch {
		case line.Step != id:
		case line.Dropped > 0:
			m.add(line, len(kept))
			continue
		case head > 0:
			head--
		case n > 0:
			n--
			m.add(line, len(kept))
			continue
		}
		kept = append(kept, *line)
	}
	return kept
}

// tally is the number of lines of a step, without marks.
type tally struct {
	lines  int
	before int // up to the first mark; all if there is no mark
	until  int // up to the last mark; 0 if there is no mark
	marked bool
	marks  int
}

func (t *tally) add(lines int, marked bool) {
	if marked {
		t.marked, t.until = true, t.lines
		t.marks++
	}
	t.lines += lines
	if !t.marked {
		t.before = t.lines
	}
}

// chunk is a record of lines, without the lines.
type chunk struct {
	key   string
	size  int    // bytes of the lines, or a few more
	parts []part // one for each step that has a line in the record
}

// part is what a chunk has of one step.
type part struct {
	step   string
	before int   // lines up to the mark, or all lines if there is no mark
	after  int   // lines after the mark
	drops  int64 // what the mark stands for, or 0 if there is no mark
}

func (c *chunk) part(id string) *part {
	for i := range c.parts {
		if c.parts[i].step == id {
			return &c.parts[i]
		}
	}
	return nil
}

// chunkOf returns the chunk of a record.
func chunkOf(key string, lines []record.LogLine) chunk {
	c := chunk{key: key}
	for i := range lines {
		c.size += sizeOf(&lines[i])
		p := c.part(lines[i].Step)
		if p == nil {
			c.parts = append(c.parts, part{step: lines[i].Step})
			p = &c.parts[len(c.parts)-1]
		}
		switch {
		case lines[i].Dropped > 0:
			p.drops += lines[i].Dropped
		case p.drops > 0:
			p.after++
		default:
			p.before++
		}
	}
	return c
}

// change is the next change of what the store holds of a log.
type change struct {
	reader Reader
	limit  int
	room   Room                        // what is left of the room of a commit; not bounded if Chunk is 0
	lines  []record.LogLine            // the new lines
	index  []chunk                     // of the log after the change; nil if it is not known
	edited map[string][]record.LogLine // the records that are written again, by key; a record without lines is removed
	kept   map[string]int              // the lines of each step after the change
	marked map[string]bool             // the steps of which lines are dropped
	ops    []store.Op
	last   int64
}

// Prepare makes the writes that bring all lines on record, and keep each step within its limit. After an error of the
// reader, the lines stay as they are. If the writes are not committed, Prepare can be called again.
//
// If one commit cannot make all these writes (see Within), Prepare makes the writes for the first lines. If even the lines that
// must go for their sake are too many, the writes only drop some of those. Written must then be called, and Prepare again.
func (l *Log) Prepare(reader Reader) error {
	again, err := l.prepare(reader, math.MaxInt)
	for err == nil && again {
		again, err = l.prepare(reader, max(len(l.writing)/2, 1))
	}
	return err
}

// prepare does what Prepare does, for most lines at most. It reports whether it must be called again, for fewer lines.
func (l *Log) prepare(reader Reader, most int) (again bool, err error) {
	l.next = nil
	c := l.newChange(reader)
	l.mu.Lock()
	recount := l.recount
	l.moveLocked(most)
	c.lines = l.writing
	l.mu.Unlock()
	if recount {
		if err := l.count(c); err != nil {
			return false, err
		}
	}
	if len(c.lines) == 0 {
		return false, nil
	}
	c.last = c.lines[len(c.lines)-1].Seq
	l.mu.Lock()
	for i := range c.lines {
		s := l.steps[c.lines[i].Step]
		c.kept[c.lines[i].Step] = s.written + s.writing
	}
	l.mu.Unlock()
	c.room.Records--
	c.room.Bytes -= sizeOfAll(c.lines)
	for _, id := range slices.Sorted(maps.Keys(c.kept)) {
		fits, more, err := c.bound(l.Run, id)
		if err != nil {
			return false, err
		}
		if fits {
			continue
		}
		if more == 0 && len(l.writing) > 1 {
			return true, nil
		}
		c = l.newChange(reader)
		if err := c.dropSome(l.Run, id, more); err != nil {
			return false, err
		}
		break
	}
	c.write(l.Run)
	l.next = c
	return false, nil
}

func (l *Log) newChange(reader Reader) *change {
	return &change{
		reader: reader, limit: l.limit, room: l.room, index: l.index,
		edited: map[string][]record.LogLine{}, kept: map[string]int{}, marked: map[string]bool{},
	}
}

// moveLocked moves the waiting lines to those that are written. Lines that a failed commit was to write wait again before,
// so that they are bounded together with those that came after them.
func (l *Log) moveLocked(most int) {
	if len(l.writing) > 0 {
		l.waiting, l.writing = append(l.writing, l.waiting...), nil
		for id, s := range l.steps {
			s.waiting, s.writing = s.waiting+s.writing, 0
			s.last, s.size = s.last+s.size, 0
			s.ended = s.old
			if s.last > heldSize {
				l.thinLocked(id, s, 0)
			}
		}
	}
	if l.room.Chunk > 0 {
		l.moveSomeLocked(most)
		return
	}
	l.writing, l.waiting = l.waiting, nil
	for i := range l.writing {
		line := &l.writing[i]
		s := l.steps[line.Step]
		s.writing, s.size = s.writing+s.waiting, s.size+s.last
		s.waiting, s.last = 0, 0
		s.ended = s.ended || line.Dropped > 0
	}
}

// moveSomeLocked does what moveLocked does, for the first of the waiting lines: as many as Room.Chunk allows, and most at most.
func (l *Log) moveSomeLocked(most int) {
	n, size := 0, 0
	for n < min(len(l.waiting), most) && (n == 0 || size+sizeOf(&l.waiting[n]) <= l.room.Chunk) {
		line := &l.waiting[n]
		s := l.steps[line.Step]
		if line.Dropped > 0 {
			s.ended = true
		} else {
			s.writing, s.waiting = s.writing+1, s.waiting-1
		}
		s.size, s.last = s.size+sizeOf(line), s.last-sizeOf(line)
		size += sizeOf(line)
		n++
	}
	l.writing, l.waiting = slices.Clone(l.waiting[:n]), slices.Clone(l.waiting[n:])
}

// count replaces the numbers of the lines on record by what the store says.
func (l *Log) count(c *change) error {
	if err := c.read(l.Run); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recount, l.index = false, c.index
	for _, s := range l.steps {
		s.written = 0
	}
	for _, chunk := range c.index {
		for _, p := range chunk.parts {
			s := l.stepLocked(p.step)
			s.written += p.before + p.after
			if p.drops > 0 {
				s.marked, s.ended, s.old = true, true, true
			}
		}
	}
	return nil
}

// read reads the index if it is not known.
func (c *change) read(run string) error {
	if c.index != nil {
		return nil
	}
	index := []chunk{}
	err := c.reader.LogRecords(run, func(key string, lines []record.LogLine) { index = append(index, chunkOf(key, lines)) })
	if err == nil {
		c.index = index
	}
	return err
}

// bound drops lines of a step between its head and its newest lines, so that it keeps to the limit and has one mark at
// most. If lines on record have to go, more of them go than must, so that the records need not be read and written for
// every line.
//
// If the change has no room for what has to be changed on record, fits is false, and the change cannot be used. must is then the
// number of lines on record that have to go. It is 0 if only a mark would have to.
func (c *change) bound(run, id string) (fits bool, must int, err error) {
	var fresh, old tally
	for i := range c.lines {
		switch line := &c.lines[i]; {
		case line.Step != id:
		case line.Dropped > 0:
			fresh.add(0, true)
		default:
			fresh.add(1, false)
		}
	}
	if c.kept[id] <= c.limit && !fresh.marked {
		return true, 0, nil
	}
	if c.kept[id] > fresh.lines || c.room.Chunk > 0 { // in the second case, the mark alone can be on record
		if old, err = c.recorded(run, id); err != nil {
			return false, 0, err
		}
	}
	oldHead, freshHead := min(old.before, c.limit/2), 0
	if !old.marked {
		freshHead = min(fresh.before, c.limit/2-oldHead)
	}
	oldTail := old.lines - oldHead
	n := max(old.lines+fresh.lines-c.limit, 0)
	if fresh.marked {
		n = max(n, oldTail+fresh.until-freshHead)
	}
	c.kept[id] = old.lines + fresh.lines
	if n == 0 && !(fresh.marked && old.marks+fresh.marks > 1) {
		return true, 0, nil
	}
	amongFresh := fresh.marked || n > oldTail // where the mark will be
	must = min(n, oldTail)
	if !amongFresh {
		n = min(n+c.limit/8, oldTail)
	}
	if can, all := c.affordable(id, oldHead, min(n, oldTail)); !all {
		if amongFresh || can < must {
			return false, must, nil
		}
		if n, all = c.affordable(id, oldHead, can); !all {
			return false, must, nil
		}
	}
	c.kept[id] -= n
	c.marked[id] = true
	var m mark
	if err := c.thinOld(id, oldHead, min(n, oldTail), &m, !amongFresh); err != nil || !amongFresh {
		return err == nil, 0, err
	}
	c.lines = m.placed(thin(c.lines, id, freshHead, n-min(n, oldTail), &m))
	return true, 0, nil
}

// recorded counts the lines of a step that are on record.
func (c *change) recorded(run, id string) (old tally, err error) {
	if err := c.read(run); err != nil {
		return old, err
	}
	for i := range c.index {
		if p := c.index[i].part(id); p != nil {
			old.add(p.before, false)
			old.add(p.after, p.drops > 0)
		}
	}
	return old, nil
}

// dropSome drops up to n lines of a step that are on record, as many as the change has room for.
func (c *change) dropSome(run, id string, n int) error {
	old, err := c.recorded(run, id)
	if err != nil {
		return err
	}
	head := min(old.before, c.limit/2)
	n, _ = c.affordable(id, head, n)
	c.kept[id], c.marked[id] = old.lines-n, true
	return c.thinOld(id, head, n, new(mark), true)
}

// markSize is the number of bytes that a record can have more after a mark was put into it.
const markSize = 1 << 10

// affordable returns how many of n lines on record behind the head of a step the change has room to drop, and whether these
// are all. It takes the room if they are. It returns some lines in any case.
func (c *change) affordable(id string, head, n int) (lines int, all bool) {
	if c.room.Chunk == 0 {
		return n, true
	}
	records, bytes := 0, 0
	for i := range c.index {
		p := c.index[i].part(id)
		if p == nil {
			continue
		}
		stay := min(head, p.before)
		head -= stay
		drop := min(n-lines, p.before+p.after-stay)
		if drop == 0 && p.drops == 0 {
			continue
		}
		if _, edited := c.edited[c.index[i].key]; edited { // for another step
			lines += drop
			continue
		}
		cost := c.index[i].size
		if len(c.index[i].parts) == 1 && drop == p.before+p.after {
			cost = len(c.index[i].key) // the record goes as a whole, or only the mark is left of it
		}
		if lines > 0 && (records+1 > c.room.Records || bytes+cost+markSize > c.room.Bytes) {
			return lines, false
		}
		records, bytes = records+1, bytes+cost
		lines += drop
	}
	if records > c.room.Records || bytes+markSize > c.room.Bytes {
		return lines, false
	}
	c.room.Records -= records
	c.room.Bytes -= bytes + markSize
	return lines, true
}

// thinOld does for the lines on record what thin does. If place is set, the mark is put in the place of the last line that
// is dropped.
func (c *change) thinOld(id string, head, n int, m *mark, place bool) error {
	if len(c.index) == 0 {
		return nil
	}
	index := make([]chunk, 0, len(c.index)+1)
	for i, old := range c.index {
		p := old.part(id)
		if p == nil {
			index = append(index, old)
			continue
		}
		lines := p.before + p.after
		stay := min(head, p.before)
		head -= stay
		drop := min(n, lines-stay)
		if drop == 0 && p.drops == 0 {
			index = append(index, old)
			continue
		}
		n -= drop
		ends := place && n == 0
		if len(old.parts) == 1 && drop == lines && !ends {
			m.line.Dropped += int64(drop) + p.drops
			c.edited[old.key] = nil
			continue
		}
		kept, err := c.record(old.key)
		if err != nil {
			return err
		}
		kept = thin(kept, id, stay, drop, m)
		if ends && m.line.Seq > 0 { // it is 0 if the record was missing
			kept = m.placed(kept)
		}
		c.edited[old.key] = kept
		if len(kept) > 0 {
			index = append(index, chunkOf(old.key, kept))
		}
		if ends {
			index = append(index, c.index[i+1:]...)
			break
		}
	}
	c.index = index
	return nil
}

// record returns the lines of a record as the change has them so far.
func (c *change) record(key string) ([]record.LogLine, error) {
	if lines, ok := c.edited[key]; ok {
		return lines, nil
	}
	return c.reader.LogRecord(key)
}

// write makes the writes of the change.
func (c *change) write(run string) {
	for lines := c.lines; len(lines) > 0; {
		n, size := 0, 0
		for n < len(lines) && (n == 0 || size < chunkSize) {
			size += sizeOf(&lines[n])
			n++
		}
		key := record.LogKey(run, lines[0].Seq)
		c.ops = append(c.ops, store.Put(key, record.Encode(lines[:n])))
		if c.index != nil {
			c.index = append(c.index, chunkOf(key, lines[:n]))
		}
		lines = lines[n:]
	}
	for _, key := range slices.Sorted(maps.Keys(c.edited)) {
		if lines := c.edited[key]; len(lines) > 0 {
			c.ops = append(c.ops, store.Put(key, record.Encode(lines)))
		} else {
			c.ops = append(c.ops, store.Delete(key))
		}
	}
}
