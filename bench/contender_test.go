package main

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// calls records the steps that a contender calls for each run.
type calls struct {
	mu  sync.Mutex // guards got
	got map[string][]int
}

func (c *calls) do(id string, number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got[id] = append(c.got[id], number)
}

func TestEveryContenderCallsFiveStepsInOrderBeforeARunEnds(t *testing.T) {
	for _, c := range contenders() {
		if c.unit != "" {
			continue // it does no runs
		}
		t.Run(c.name, func(t *testing.T) {
			got := &calls{got: map[string][]int{}}
			s, err := c.open(t.Context(), site{dir: t.TempDir(), flight: 8, do: got.do})
			require.NoError(t, err)
			runAll(t, s, 24, 8)
			require.NoError(t, s.close(context.Background()))
			require.Len(t, got.got, 24)
			for id, numbers := range got.got {
				require.Equal(t, []int{1, 2, 3, 4, 5}, numbers, id)
			}
		})
	}
}

// runAll does n runs, at most flight of them at once.
func runAll(t *testing.T, s session, n int64, flight int) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(flight)
	for i := range n {
		group.Go(func() error { return s.run(t.Context(), runName(i)) })
	}
	require.NoError(t, group.Wait())
}
