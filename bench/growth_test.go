package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGrowthMeasuresBothStores(t *testing.T) {
	plan := growthPlan{sizes: []int{50, 100}, waiting: 20, unfinished: 20, pipelines: []int{2, 4}, stepsBlock: 8}
	g, err := testBench(t).growth(t.Context(), plan)
	require.NoError(t, err)
	require.Len(t, g.sizes, 4)
	require.Len(t, g.interleaved, 2)
	require.Len(t, g.waiting, 2)
	require.Len(t, g.starts, 2)
	require.Len(t, g.pipelines, 4)
	for _, r := range g.starts {
		require.Equal(t, 100+growthBlocks*10, r.finished, "those measured in turn are there too")
		require.Equal(t, 20, r.unfinished)
		require.Equal(t, 2, r.queued)
	}
}
