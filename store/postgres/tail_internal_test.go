package postgres

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// book is a log of which a tail is kept.
type book struct {
	rows  []logRow
	reads int
}

// write adds rows of one commit each, with a key of some size.
func (b *book) write(n, size int) {
	for range n {
		base := int64(len(b.rows))
		b.rows = append(b.rows, logRow{rev: base + 1, base: base, kind: "c", nums: []int32{1}, keys: [][]byte{[]byte(strings.Repeat("k", size))}})
	}
}

func (b *book) read(at int64) ([]logRow, error) {
	b.reads++
	rows := b.rows[min(at, int64(len(b.rows))):]
	return rows[:min(len(rows), logPage)], nil
}

func after(t *testing.T, tail *tail, b *book, at int64) []logRow {
	t.Helper()
	rows, err := tail.after(t.Context(), context.Background(), at, want{since: time.Now()}, b.read)
	require.NoError(t, err)
	require.NoError(t, gap(rows, at))
	return rows
}

func TestATailKeepsWhatItIsAskedForHoweverLargeItIs(t *testing.T) {
	b, tail := &book{}, newTail()
	b.write(100, 20_000)
	require.Len(t, after(t, tail, b, 0), 100)
	require.LessOrEqual(t, tail.size, tailBytes)
	at := int64(len(b.rows) - 50)
	b.write(60, 20_000)
	require.Len(t, after(t, tail, b, at), 100, "what was kept, and what has come")
	require.LessOrEqual(t, tail.size, tailBytes)
	b.write(1, tailBytes+1)
	require.NotEmpty(t, after(t, tail, b, int64(len(b.rows)-1)))
	require.Empty(t, tail.rows, "a row that is too large is not kept")
}

func TestWatchesThatAreApartReadForThemselves(t *testing.T) {
	b, tail := &book{}, newTail()
	b.write(3000, 10)
	for at := int64(0); at < 3000; { // one that begins long ago
		rows := after(t, tail, b, at)
		require.NotEmpty(t, rows)
		at = rows[len(rows)-1].rev
		require.Empty(t, after(t, tail, b, 3000), "another one is at the end")
	}
	b.reads = 0
	b.write(1, 10)
	since := time.Now()
	for range 10 {
		rows, err := tail.after(t.Context(), context.Background(), 3000, want{since: since}, b.read)
		require.NoError(t, err)
		require.Len(t, rows, 1)
	}
	require.LessOrEqual(t, b.reads, 10)
}

// TestAWatchAheadOfTheLogDoesNotKeepOthersFromSharing begins one at a revision that was lost.
func TestAWatchAheadOfTheLogDoesNotKeepOthersFromSharing(t *testing.T) {
	b, tail := &book{}, newTail()
	b.write(10, 10)
	require.Empty(t, after(t, tail, b, 5000))
	since := time.Now()
	b.reads = 0
	for range 10 {
		rows, err := tail.after(t.Context(), context.Background(), 0, want{since: since}, b.read)
		require.NoError(t, err)
		require.Len(t, rows, 10)
	}
	require.Equal(t, 1, b.reads)
}

func TestAReaderThatHangsHoldsUpTheOthersForTwoSeconds(t *testing.T) {
	b, tail := &book{}, newTail()
	b.write(1, 10)
	tail.turn <- struct{}{} // somebody reads
	began := time.Now()
	require.Len(t, after(t, tail, b, 0), 1)
	require.GreaterOrEqual(t, time.Since(began), longestTurn)
}

func TestARowThatWasWrittenHereIsNotRead(t *testing.T) {
	b, tail := &book{}, newTail()
	b.write(1, 10)
	require.Len(t, after(t, tail, b, 0), 1)
	b.write(1, 10)
	tail.offer(b.rows[1])
	b.reads = 0
	rows, err := tail.after(t.Context(), context.Background(), 1, want{rev: 2}, b.read)
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Zero(t, b.reads)

	b.write(2, 10)
	tail.offer(b.rows[3]) // another handle has written the one before
	rows, err = tail.after(t.Context(), context.Background(), 2, want{rev: 4}, b.read)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.Equal(t, 1, b.reads)
}
