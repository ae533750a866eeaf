package ids

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestTimestampsGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Clock
		now, last := time.Unix(1_000_000, 0), int64(0)
		for range rapid.IntRange(1, 100).Draw(t, "n") {
			// A clock that stands still, goes on, and goes back.
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 1000, -1000}).Draw(t, "passed")))
			next := c.Next(now)
			require.Greater(t, next, last)
			require.Equal(t, max(now.UnixNano(), last+1), next)
			last = next
		}
	})
}

func TestTimestampsOfManyCallersDiffer(t *testing.T) {
	var c Clock
	var mu sync.Mutex
	var callers sync.WaitGroup
	seen := map[int64]bool{}
	for range 4 {
		callers.Go(func() {
			for range 500 {
				next := c.Next(time.Unix(1, 0))
				mu.Lock()
				seen[next] = true
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	require.Len(t, seen, 2000)
}
