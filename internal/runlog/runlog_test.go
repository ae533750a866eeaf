package runlog

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// linesOf decodes the lines that writes put, and checks that each write stands under the number of its first line.
func linesOf(t require.TestingT, run string, ops []store.Op) (lines []record.LogLine) {
	for _, op := range ops {
		var chunk []record.LogLine
		require.NoError(t, json.Unmarshal(op.Value(), &chunk))
		require.NotEmpty(t, chunk)
		require.Equal(t, record.LogKey(run, chunk[0].Seq), op.Key())
		lines = append(lines, chunk...)
	}
	return lines
}

func TestALogGivesNumbersAndForgetsWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Int64Range(0, 100).Draw(t, "first")
		limit := rapid.IntRange(1, 8).Draw(t, "limit")
		l := New("r", first)
		kept, next := map[string]int{}, first
		var pending []int64
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				step := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "step")
				ok, full := l.Add(record.LogLine{Step: step, Message: "m"}, limit)
				require.False(t, full)
				require.Equal(t, kept[step] <= limit, ok, "one line more than the limit is kept: it reports the limit")
				if ok {
					kept[step]++
					next++
					pending = append(pending, next)
				}
			},
			"write": func(t *rapid.T) {
				ops, last := l.Ops()
				lines := linesOf(t, "r", ops)
				require.Len(t, lines, len(pending))
				for i, line := range lines {
					require.Equal(t, pending[i], line.Seq)
				}
				if len(pending) == 0 {
					require.Zero(t, last)
					return
				}
				require.Equal(t, next, last)
				n := rapid.IntRange(0, len(pending)).Draw(t, "written")
				if n > 0 {
					l.Written(pending[n-1])
				}
				pending = pending[n:]
			},
			"": func(t *rapid.T) {
				require.Len(t, l.Unwritten(), len(pending))
				require.Equal(t, kept["a"], l.Kept("a"))
				require.Equal(t, kept["b"], l.Kept("b"))
			},
		})
	})
}

func TestALogReportsItsLimitOnce(t *testing.T) {
	l := New("r", 0)
	l.SetKept("a", 1)
	for range 4 {
		l.Add(record.LogLine{Step: "a", Message: "m", Attrs: []byte(`{"k":1}`)}, 2)
	}
	lines := l.Unwritten()
	require.Len(t, lines, 2)
	require.Equal(t, record.LogLine{Seq: 1, Step: "a", Message: "m", Attrs: []byte(`{"k":1}`)}, lines[0])
	require.Equal(t, record.LogLine{
		Seq: 2, Step: "a", Level: slog.LevelWarn, Message: "log: more than the limit of 2 lines; later ones are not kept",
	}, lines[1])
}

func TestALogIsFullByBytesAndDividesItsWrites(t *testing.T) {
	l := New("r", 0)
	message := strings.Repeat("m", logChunk/4)
	for i := range 9 {
		_, full := l.Add(record.LogLine{Step: "a", Message: message}, 100)
		require.Equal(t, i >= 3, full, "line %d", i)
	}
	ops, last := l.Ops()
	require.EqualValues(t, 9, last)
	require.Len(t, ops, 3)
	for _, op := range ops {
		require.Less(t, len(op.Value()), logChunk+logChunk/4+1_000)
	}
	require.Len(t, linesOf(t, "r", ops), 9)
	l.Written(last)
	_, full := l.Add(record.LogLine{Step: "a", Message: "m"}, 100)
	require.False(t, full, "what is written does not count")
}
