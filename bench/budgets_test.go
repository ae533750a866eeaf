package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBudgetsAreMetOrMissedByTheirRatio(t *testing.T) {
	found := findings{
		speed: []*result{
			measured(conveyorMemory, 100, 4000), measured(workqueueSteps, 100, 10000),
			measured(appendLoop, 1, 1000), measured(conveyorFile, 1, 50), measured(dbosSQLite, 1, 60),
			measured(conveyorFile, 100, 3000), measured(dbosSQLite, 100, 100), measured(riverSQLite, 100, 90),
		},
		growth: &growth{
			interleaved: []interleavedRow{{
				store: "store/file", few: 10_000, many: 1_000_000, fewStep: spread{median: 10}, manyStep: spread{median: 16},
			}},
			waiting: []waitingRow{{store: "store/file", waiting: 100_000, heap: 512, goroutines: [2]int{4, 4}}},
			starts:  []startRow{{store: "store/file", finished: 1_000_000, unfinished: 100_000, start: 2.5}},
		},
	}
	verdicts := map[string]string{}
	for _, b := range budgets(found) {
		verdicts[b.what] = b.verdict() + " " + number(b.ratio())
	}
	require.Equal(t, "met 1.20", verdicts["memory store, runs/s by those of a workqueue loop with a pass per step, 100 in flight"])
	require.Equal(t, "missed 0.83", verdicts["file store, runs/s by those of the best durable peer, 1 in flight"])
	require.Equal(t, "met 1.20", verdicts["file store, runs/s by those of the best durable peer, 100 in flight"])
	require.Equal(t, "not measured 0", verdicts["file store, runs/s by those of the best durable peer, 1000 in flight"])
	require.Equal(t, "met 0.67", verdicts["memory store, allocations per step"])
	require.Equal(t, "missed 1.07", verdicts["store/file, a step among many resources by one among few"])
	require.Equal(t, "met 0.5", verdicts["store/file, heap for a waiting run"])
	require.Equal(t, "met 0.5", verdicts["store/file, Start among many finished runs"])
	require.Equal(t, "not measured 0", verdicts["store/memory, Start among many finished runs"])
}
