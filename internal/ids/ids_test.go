package ids

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/text"
)

func TestIDsGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g IDs
		now := time.UnixMilli(rapid.Int64Range(0, 1<<47).Draw(t, "now"))
		last := ""
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			// Within a millisecond, over several, and with a clock that goes back.
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(time.Millisecond)).Draw(t, "passed")))
			id := g.Next(now)
			require.Len(t, id, 26)
			require.Empty(t, text.NameFault(id))
			require.Empty(t, strings.Trim(id, letters))
			require.Greater(t, id, last)
			last = id
		}
	})
}

func TestIDsSortByTimeAcrossEngines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Int64Range(0, 1<<48-2).Draw(t, "first")
		b := rapid.Int64Range(a+1, 1<<48-1).Draw(t, "second")
		require.Less(t, new(IDs).Next(time.UnixMilli(a)), new(IDs).Next(time.UnixMilli(b)))
	})
}

func TestIDsCarryOver(t *testing.T) {
	g := IDs{millis: 7, high: 0xFFFF, low: math.MaxUint64}
	before := IDs{millis: 7, high: 0xFFFF, low: math.MaxUint64 - 1<<30}
	last := before.Next(time.UnixMilli(7))
	require.Greater(t, g.Next(time.UnixMilli(7)), last)
	require.Equal(t, uint64(8), g.millis)
	require.Zero(t, g.high)
}

func TestIDsOfManyCallersDiffer(t *testing.T) {
	var g IDs
	made := make(chan string, 4000)
	for range 4 {
		go func() {
			for range 1000 {
				made <- g.Next(time.UnixMilli(1))
			}
		}()
	}
	seen := map[string]bool{}
	for range 4000 {
		seen[<-made] = true
	}
	require.Len(t, seen, 4000)
	require.NotEqual(t, new(IDs).Next(time.UnixMilli(1)), new(IDs).Next(time.UnixMilli(1)))
}

func TestIDsGoOnAfterThoseOfAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g, earlier IDs
		now := time.UnixMilli(rapid.Int64Range(0, 1<<46).Draw(t, "now"))
		var id string
		for range rapid.IntRange(1, 5).Draw(t, "n") {
			id = earlier.Next(now)
		}
		set := now.Add(-time.Duration(rapid.Int64Range(-10, 1<<40).Draw(t, "set back by")) * time.Millisecond)
		if rapid.Bool().Draw(t, "has made one") {
			require.NotEmpty(t, g.Next(set))
		}
		g.After(id)
		next := g.Next(set)
		require.Greater(t, next, id)
		g.After(id)
		require.Greater(t, g.Next(set), next, "an earlier id changes nothing")
	})
}

func TestWhatIsNoIDIsIgnored(t *testing.T) {
	for _, text := range []string{"", "run", "0123456789abcdefghjkmnpqrst!", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "8zzzzzzzzzzzzzzzzzzzzzzzzz", "zzzzzzzzzzzzzzzzzzzzzzzzzz", "7zzzzzzzzzzzzzzzzzzzzzzzzz"} {
		var g IDs
		now := time.Unix(1_000_000, 0)
		g.After(text)
		require.Equal(t, uint64(0), g.millis, text)
		first := g.Next(now)
		require.Greater(t, g.Next(now), first)
	}
}
