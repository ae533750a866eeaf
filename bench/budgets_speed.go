package main

import "fmt"

func speedBudgets(results []*result) []budget {
	const loop, bolt = "memory store, runs/s by those of a workqueue loop", "file store, runs/s by those of a bare bbolt loop"
	return []budget{
		compareRates(results, loop+" with a recorded pass per step", conveyorMemory, workqueueRecorded, 100, 1./3),
		compareRates(results, loop+" with a pass per step", conveyorMemory, workqueueSteps, 100, 1./3),
		compareRates(results, loop+" with a pass per run", conveyorMemory, workqueueRuns, 100, 1./3),
		latencyBudget(results),
		compareWithPeers(results, 1, 1),
		compareWithPeers(results, 100, 25),
		compareWithPeers(results, 1000, 60),
		compareRates(results, bolt, conveyorFile, boltLoop, 100, 0.5),
		compareRates(results, bolt, conveyorFile, boltLoop, 1000, 0.5),
		allocationBudget(results),
	}
}

// compareRates returns the budget for the runs/s of ours, divided by the runs/s of theirs.
func compareRates(results []*result, what string, ours, theirs contender, flight int, bound float64) budget {
	b := budget{what: fmt.Sprintf("%s, %d in flight", what, flight), bound: bound, least: true, format: times}
	mine, other := find(results, ours.name, flight), find(results, theirs.name, flight)
	if mine == nil || other == nil {
		return b.notMeasured(fmt.Sprintf("%s or %s was not measured", ours.name, theirs.name))
	}
	b.measured = mine.rate().median / other.rate().median
	b.note = fmt.Sprintf("%s and %s runs/s", number(mine.rate().median), number(other.rate().median))
	return b
}

// compareWithPeers returns the budget for the runs/s of the file store, divided by those of the best durable peer.
func compareWithPeers(results []*result, flight int, bound float64) budget {
	b := budget{
		what:  fmt.Sprintf("file store, runs/s by those of the best durable peer, %d in flight", flight),
		bound: bound, least: true, format: times,
	}
	mine, best, others := find(results, conveyorFile.name, flight), (*result)(nil), 0
	for _, r := range results {
		if r.flight != flight || r.class != durable || r.name == conveyorFile.name || len(r.samples) == 0 {
			continue
		}
		others++
		if best == nil || r.rate().median > best.rate().median {
			best = r
		}
	}
	if mine == nil || best == nil {
		return b.notMeasured("no two of them were measured")
	}
	b.measured = mine.rate().median / best.rate().median
	b.note = fmt.Sprintf("%s runs/s, and %s of %s, the best of %d",
		number(mine.rate().median), number(best.rate().median), best.name, others)
	return b
}

// latencyBudget returns the budget for the latency of a single run, divided by the time of the syncs that the run needs.
func latencyBudget(results []*result) budget {
	b := budget{
		what:  fmt.Sprintf("file store, a lone run by %d fdatasyncs", steps+1),
		bound: 2.5, format: times,
	}
	mine, sync := find(results, conveyorFile.name, 1), find(results, appendLoop.name, 1)
	if mine == nil || sync == nil {
		return b.notMeasured("it was not measured with 1 in flight")
	}
	b.measured = mine.p50().median / (float64(steps+1) * sync.p50().median)
	b.note = fmt.Sprintf("p50: %s, and %s for an append with its sync",
		duration(mine.p50().median), duration(sync.p50().median))
	return b
}

func allocationBudget(results []*result) budget {
	b := budget{what: "memory store, allocations per step", bound: 30, format: number}
	mine := find(results, conveyorMemory.name, 100)
	if mine == nil {
		return b.notMeasured("it was not measured with 100 in flight")
	}
	perRun := mine.spread(func(s sample) float64 { return s.allocs }).median
	b.measured = perRun / steps
	b.note = fmt.Sprintf("%s for a run of %d steps, the caller's included, 100 in flight", number(perRun), steps)
	return b
}
