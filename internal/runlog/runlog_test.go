package runlog

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// disk holds the records of one log, and is the Reader of it.
type disk map[string][]record.LogLine

func (d disk) LogRecords(run string, pass func(key string, lines []record.LogLine)) error {
	for _, key := range slices.Sorted(maps.Keys(d)) {
		pass(key, d[key])
	}
	return nil
}

func (d disk) LogRecord(key string) ([]record.LogLine, error) {
	return d[key], nil
}

// commit makes writes.
func (d disk) commit(t require.TestingT, ops []store.Op) {
	require.NoError(t, store.CheckOps(ops))
	for _, op := range ops {
		if op.Removes() {
			delete(d, op.Key())
			continue
		}
		var lines []record.LogLine
		require.NoError(t, json.Unmarshal(op.Value(), &lines))
		require.NotEmpty(t, lines)
		d[op.Key()] = lines
	}
}

// lines returns all lines in the order of the records.
func (d disk) lines() (lines []record.LogLine) {
	for _, key := range slices.Sorted(maps.Keys(d)) {
		lines = append(lines, d[key]...)
	}
	return lines
}

// save writes the lines of a log, in as many commits as are needed.
func (d disk) save(t require.TestingT, l *Log) {
	for newest := l.Newest(); l.Unprepared(); {
		if last, wrote := d.saveSome(t, l); last >= newest || !wrote {
			return
		}
	}
}

// saveSome makes one commit, which must be within the room of the log.
func (d disk) saveSome(t require.TestingT, l *Log) (last int64, wrote bool) {
	require.NoError(t, l.Prepare(d))
	ops, last := l.Ops()
	if l.room.Chunk > 0 {
		size := 0
		for _, op := range ops {
			size += op.Size()
		}
		require.LessOrEqual(t, size, l.room.Bytes)
		require.LessOrEqual(t, len(ops), l.room.Records)
	}
	d.commit(t, ops)
	if len(ops) > 0 {
		l.Written(last)
	}
	return last, len(ops) > 0
}

// logged is what a step has logged: the number and the text of each line.
type logged struct {
	seq  int64
	text string
}

// requireEnds checks that found are the first lines and the newest lines that a step has logged, with a mark between them
// that counts what is missing.
func requireEnds(t require.TestingT, all []logged, found []record.LogLine) (lines int) {
	i := 0
	for _, line := range found {
		if line.Dropped > 0 {
			require.Equal(t, i, lines, "there is one mark, and the lines before it are complete")
			i += int(line.Dropped)
			require.LessOrEqual(t, i, len(all))
			require.Equal(t, all[i-1].seq, line.Seq, "the mark has the number of the last line that it stands for")
			continue
		}
		require.Less(t, i, len(all))
		require.Equal(t, all[i], logged{line.Seq, line.Message})
		i++
		lines++
	}
	require.Equal(t, len(all), i, "the newest lines are there")
	return lines
}

func byStep(lines []record.LogLine, id string) (of []record.LogLine) {
	for _, line := range lines {
		if line.Step == id {
			of = append(of, line)
		}
	}
	return of
}

// TestALogKeepsTheBeginningAndTheEnd logs lines of several steps, writes them or fails to, restarts and crashes, in any
// order. What is on record of a step is always its first lines, its newest ones, and the number of those between them.
func TestALogKeepsTheBeginningAndTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		epoch := 0
		room := rapid.SampledFrom([]Room{
			{}, {Records: 2, Bytes: 4 * heldSize, Chunk: heldSize / 2}, {Records: 4, Bytes: 4 * heldSize, Chunk: 10 * sizeOf(&record.LogLine{})},
			{Records: 100, Bytes: 3 * heldSize, Chunk: heldSize / 4},
		}).Draw(t, "room")
		l, d := New("r", 0, limit), disk{}
		l.Within(room)
		all := map[string][]logged{}
		steps := []string{"a", "b", "c"}
		given := map[int64]bool{}
		crashed := false
		restart := func(crash bool) {
			crashed = crashed || crash
			last := int64(0)
			if lines := d.lines(); len(lines) > 0 {
				last = lines[len(lines)-1].Seq
			}
			old := l
			if crash {
				epoch++
			}
			l = New("r", record.FirstLine(last, epoch), limit)
			l.Within(room)
			for _, id := range steps {
				l.SetKept(id, old.onRecord(id))
			}
			if crash {
				l.Recount()
				for id, lines := range all {
					if room.Chunk > 0 {
						// Of a step whose lines were dropped before they were written, the mark can be lost although newer lines
						// of other steps are on record: one commit need not write all lines.
						last = 0
						if of := byStep(d.lines(), id); len(of) > 0 {
							last = of[len(of)-1].Seq
						}
					}
					for len(lines) > 0 && lines[len(lines)-1].seq > last {
						lines = lines[:len(lines)-1]
					}
					all[id] = lines
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				id := rapid.SampledFrom(steps).Draw(t, "step")
				size, most := 0, 6
				if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
					size, most = rapid.SampledFrom([]int{heldSize / 8, heldSize * 2 / 3, heldSize + 1}).Draw(t, "size"), 2
				}
				for range rapid.IntRange(1, most).Draw(t, "lines") {
					text := fmt.Sprint(len(all[id]), strings.Repeat("x", size))
					wait, _ := l.Add(record.LogLine{Step: id, Message: text}, rapid.Bool().Draw(t, "force"))
					if wait == nil {
						require.False(t, given[l.seq], "no number is given twice")
						given[l.seq] = true
						all[id] = append(all[id], logged{l.seq, text})
					}
				}
			},
			"write": func(t *rapid.T) {
				d.save(t, l)
				require.Empty(t, l.Unwritten())
				ops, last := l.Ops()
				require.Empty(t, ops)
				require.Zero(t, last)
				for _, id := range steps {
					n := requireEnds(t, all[id], byStep(d.lines(), id))
					require.LessOrEqual(t, n, limit)
					require.Equal(t, n, l.Kept(id))
					if len(all[id]) > 0 && !(crashed && room.Chunk > 0) { // a crash can come between a mark and the line after it
						require.Positive(t, n, "at least the newest line is kept")
					}
				}
			},
			"write some": func(t *rapid.T) { d.saveSome(t, l) },
			"fail":       func(t *rapid.T) { require.NoError(t, l.Prepare(d)) },
			"restart": func(t *rapid.T) {
				d.save(t, l)
				restart(false)
			},
			"crash": func(t *rapid.T) { restart(true) },
			"": func(t *rapid.T) {
				for _, lines := range [][]record.LogLine{d.lines(), l.Unwritten()} {
					for i := 1; i < len(lines); i++ {
						require.Less(t, lines[i-1].Seq, lines[i].Seq)
					}
				}
				size := 0
				for _, line := range l.Unwritten() {
					size += len(line.Message)
				}
				require.LessOrEqual(t, size, len(steps)*(heldSize+heldLast+2*heldSize), "what is held of a step is bounded, but for one line")
			},
		})
	})
}

// onRecord returns the number of lines of a step that its record would have.
func (l *Log) onRecord(id string) int {
	if s := l.steps[id]; s != nil {
		return s.written
	}
	return 0
}

func TestALogSaysWhatItHasDropped(t *testing.T) {
	l, d := New("r", 0, 3), disk{}
	for range 5 {
		l.Add(record.LogLine{Step: "a", Attempt: 2, Message: "m", Attrs: []byte(`{"k":1}`)}, false)
	}
	d.save(t, l)
	lines := d.lines()
	require.Len(t, lines, 4)
	require.Equal(t, record.LogLine{Seq: 1, Step: "a", Attempt: 2, Message: "m", Attrs: []byte(`{"k":1}`)}, lines[0])
	require.Equal(t, record.LogLine{
		Seq: 3, Step: "a", Attempt: 2, Level: slog.LevelWarn, Message: "log: 2 lines of the step are not kept", Dropped: 2,
	}, lines[1])
	require.EqualValues(t, 4, lines[2].Seq)
	require.EqualValues(t, 5, lines[3].Seq)
}

// TestALogThatIsOverItsLimitGoesOn loads logs that have more lines than the limit: the limit was larger before, or an earlier
// version has put a line about the limit behind them.
func TestALogThatIsOverItsLimitGoesOn(t *testing.T) {
	for _, kept := range []int{9, 10, 11, 40} {
		before, d := New("r", 0, 100), disk{}
		var all []logged
		for range kept {
			before.Add(record.LogLine{Step: "a", Message: "m"}, false)
			all = append(all, logged{before.seq, "m"})
			d.save(t, before)
		}
		l := New("r", before.seq, 10)
		l.SetKept("a", kept)
		for range 30 {
			l.Add(record.LogLine{Step: "a", Message: "m"}, false)
			all = append(all, logged{l.seq, "m"})
			d.save(t, l)
			require.LessOrEqual(t, requireEnds(t, all, d.lines()), 10)
		}
		require.EqualValues(t, 5, slices.IndexFunc(d.lines(), func(line record.LogLine) bool { return line.Dropped > 0 }), "the beginning is kept")
	}
}

// TestALogGoesOnWithoutRecordsThatAreLost loses records of lines that are to be dropped.
func TestALogGoesOnWithoutRecordsThatAreLost(t *testing.T) {
	l, d := New("r", 0, 4), disk{}
	for i := range 40 {
		l.Add(record.LogLine{Step: "a", Message: "m"}, false)
		d.save(t, l)
		if i%3 == 1 {
			clear(d)
		}
		for _, line := range d.lines() {
			require.Positive(t, line.Seq)
		}
	}
	require.NotEmpty(t, d.lines())
}

// TestALogIsBoundedWhileTheStoreFails has lines come again and again between commits that fail.
func TestALogIsBoundedWhileTheStoreFails(t *testing.T) {
	l, d := New("r", 0, 1_000), disk{}
	message := strings.Repeat("m", heldSize/20)
	var all []logged
	add := func(n int) {
		for range n {
			text := fmt.Sprint(len(all), message)
			l.Add(record.LogLine{Step: "a", Message: text}, true)
			all = append(all, logged{l.seq, text})
		}
	}
	add(5)
	d.save(t, l)
	for range 50 {
		add(20)
		require.NoError(t, l.Prepare(d))
		size := 0
		for _, line := range l.Unwritten() {
			size += len(line.Message)
		}
		require.LessOrEqual(t, size, heldSize+heldLast)
	}
	require.Greater(t, len(l.Unwritten()), 12, "the newest lines are there")
	d.save(t, l)
	require.Greater(t, requireEnds(t, all, d.lines()), 5+10)
	require.GreaterOrEqual(t, slices.IndexFunc(d.lines(), func(line record.LogLine) bool { return line.Dropped > 0 }), 5, "and the first ones")
}

// TestALogOfSlowLinesIsRewrittenSeldom writes each line in a record of its own. The records that go are removed several at
// a time, and few are read for it.
func TestALogOfSlowLinesIsRewrittenSeldom(t *testing.T) {
	const limit = 400
	l, d := New("r", 0, limit), disk{}
	removed, written := 0, 0
	for range 10 * limit {
		l.Add(record.LogLine{Step: "a", Message: "m"}, false)
		require.NoError(t, l.Prepare(d))
		ops, last := l.Ops()
		for _, op := range ops {
			if op.Removes() {
				removed++
			} else {
				written++
			}
		}
		d.commit(t, ops)
		l.Written(last)
	}
	require.LessOrEqual(t, written, 10*limit+10*8)
	require.LessOrEqual(t, removed, written)
	require.LessOrEqual(t, len(d), limit+1)
	require.GreaterOrEqual(t, len(d), limit*7/8)
}

func TestALogIsFullByBytesAndDividesItsWrites(t *testing.T) {
	l := New("r", 0, 100)
	message := strings.Repeat("m", heldSize/8)
	add := func() (<-chan struct{}, bool) { return l.Add(record.LogLine{Step: "a", Message: message}, false) }
	for i := range 7 {
		wait, full := add()
		require.Nil(t, wait)
		require.Equal(t, i >= 1, full, "line %d", i)
	}
	wait, full := add()
	require.NotNil(t, wait, "the logger must wait")
	require.True(t, full)
	other, _ := l.Add(record.LogLine{Step: "b", Message: message}, false)
	require.Nil(t, other, "another step has room")
	d := disk{}
	d.save(t, l)
	<-wait
	require.Len(t, d.lines(), 8)
	_, full = l.Add(record.LogLine{Step: "a", Message: "m"}, false)
	require.False(t, full, "what is written does not count")

	for range 20 {
		l.Add(record.LogLine{Step: "b", Message: message}, true)
		l.Add(record.LogLine{Step: "c", Message: message}, true)
		l.Add(record.LogLine{Step: "d", Message: message}, true)
	}
	require.NoError(t, l.Prepare(d))
	ops, _ := l.Ops()
	require.Greater(t, len(ops), 1)
	for _, op := range ops {
		require.Less(t, len(op.Value()), chunkSize+heldSize/8+1_000)
	}
}

func TestALogDoesNotWaitForAStoreThatDoesNotWrite(t *testing.T) {
	l, d := New("r", 0, 100), disk{}
	message := strings.Repeat("m", heldSize/2)
	add := func() <-chan struct{} {
		wait, _ := l.Add(record.LogLine{Step: "a", Message: message}, false)
		return wait
	}
	require.Nil(t, add())
	require.NotNil(t, add())
	l.GiveUp()
	for range 10 {
		require.Nil(t, add())
	}
	d.save(t, l)
	lines := d.lines()
	require.Len(t, lines, 2)
	require.EqualValues(t, 10, lines[0].Dropped)
	require.EqualValues(t, 11, lines[1].Seq)
	require.Equal(t, 1, l.Kept("a"))
}

// TestALogIsWrittenInCommitsOfABoundedSize fills logs in ways that need many records at once: many large lines of many steps, and
// the removal of many records of one line each, also of records that hold lines of other steps.
func TestALogIsWrittenInCommitsOfABoundedSize(t *testing.T) {
	room := Room{Records: 10, Bytes: 100 << 10, Chunk: 40 << 10}
	message := strings.Repeat("m", 5<<10)
	for _, steps := range [][]string{{"a"}, {"a", "b", "c"}} {
		t.Run(fmt.Sprint(len(steps), " steps"), func(t *testing.T) {
			l, d := New("r", 0, 50), disk{}
			l.Within(room)
			all := map[string][]logged{}
			add := func(n int) {
				for range n {
					for _, id := range steps {
						wait, _ := l.Add(record.LogLine{Step: id, Message: message}, true)
						require.Nil(t, wait)
						all[id] = append(all[id], logged{l.seq, message})
					}
				}
			}
			for range 50 { // a record for each
				add(1)
				d.save(t, l)
			}
			require.GreaterOrEqual(t, len(d), 50)
			add(40)
			_, wrote := d.saveSome(t, l)
			require.True(t, wrote)
			require.NotEmpty(t, l.Unwritten(), "one commit is not enough")
			d.save(t, l)
			require.Empty(t, l.Unwritten())
			for _, id := range steps {
				require.LessOrEqual(t, requireEnds(t, all[id], byStep(d.lines(), id)), 50)
			}
		})
	}
}

// TestAMarkThatIsAloneOnRecordIsNotForgotten drops all lines on record to make room for new ones, in a commit before that of the
// new ones.
func TestAMarkThatIsAloneOnRecordIsNotForgotten(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			room := Room{Records: 2, Bytes: 4 * heldSize, Chunk: heldSize / 2}
			l, d := New("r", 0, 3), disk{}
			l.Within(room)
			var all []logged
			add := func(text string) {
				l.Add(record.LogLine{Step: "a", Message: text}, true)
				all = append(all, logged{l.seq, text})
			}
			add("0" + strings.Repeat("x", heldSize*2/3))
			add("1" + strings.Repeat("x", heldSize*2/3)) // the first one is dropped
			d.save(t, l)
			require.Len(t, d, 2)
			for i := range 5 {
				add(fmt.Sprint(i + 2))
			}
			if last, _ := d.saveSome(t, l); restart {
				require.Zero(t, last, "the first commit only makes room")
				waiting := l.Unwritten()
				l = New("r", waiting[0].Seq-1, 3)
				l.Within(room)
				for _, line := range waiting {
					l.Add(line, true)
				}
			}
			d.save(t, l)
			require.Equal(t, 3, requireEnds(t, all, d.lines()))
		})
	}
}

// TestTwoMarksAmongNewLinesBecomeOne drops lines in memory before and after a commit that fails.
func TestTwoMarksAmongNewLinesBecomeOne(t *testing.T) {
	l, d := New("r", 0, 1), disk{}
	var all []logged
	add := func(size int) {
		text := strings.Repeat("x", size)
		l.Add(record.LogLine{Step: "a", Message: text}, true)
		all = append(all, logged{l.seq, text})
	}
	add(heldSize + 1)
	add(heldSize + 1)
	require.NoError(t, l.Prepare(d))
	add(heldSize * 2 / 3)
	add(heldSize * 2 / 3)
	d.save(t, l)
	require.Equal(t, 1, requireEnds(t, all, d.lines()))
}
