package main

import (
	"fmt"
	"io"
)

func reportGrowth(w io.Writer, g *growth) {
	fmt.Fprintf(w, "\n## Growth\n\n### Resources\n\nEach resource has a finished run of five steps. A step's cost is the "+
		"time that all took, with %d runs in flight, by the number of steps. Pages are of %d, the deep ones with nine "+
		"tenths passed over.\n\n", growthFlight, pageSize)
	sizes := &table{header: []string{
		"", "resources", "a step", "heap each", "disk each", "Get", "List, first", "List, deep", "Runs, first", "Runs, deep",
		"Runs, newest, deep",
	}}
	for _, r := range g.sizes {
		sizes.add(r.store, grouped(int64(r.size)), r.step.ranged(duration), size(r.heap), size(r.disk),
			duration(r.get.median), duration(r.listFirst.median), duration(r.listDeep.median),
			duration(r.runsFirst.median), duration(r.runsDeep.median), duration(r.runsNewest.median))
	}
	fmt.Fprint(w, sizes)
	reportInterleaved(w, g)
	reportWaiting(w, g)
	reportStarts(w, g)
	reportPipelines(w, g)
}

func reportInterleaved(w io.Writer, g *growth) {
	fmt.Fprint(w, "\n### Few and many resources in turn\n\nThe same work on two stores of a kind, block by block.\n\n")
	t := &table{header: []string{"", "resources", "a step", "resources", "a step", "by the first"}}
	for _, r := range g.interleaved {
		t.add(r.store, grouped(int64(r.few)), r.fewStep.ranged(duration), grouped(int64(r.many)), r.manyStep.ranged(duration),
			times(r.manyStep.median/r.fewStep.median))
	}
	fmt.Fprint(w, t)
}

func reportWaiting(w io.Writer, g *growth) {
	fmt.Fprint(w, "\n### Waiting runs\n\nParked with Await. The engine's heap is what is free again when it is gone; the "+
		"rest is the store's, which in memory is the records themselves.\n\n")
	t := &table{header: []string{"", "waiting", "heap each", "of that the engine's", "goroutines before", "and then"}}
	for _, r := range g.waiting {
		t.add(r.store, grouped(int64(r.waiting)), size(r.heap), size(r.engine),
			fmt.Sprint(r.goroutines[0]), fmt.Sprint(r.goroutines[1]))
	}
	fmt.Fprint(w, t)
}

func reportStarts(w io.Writer, g *growth) {
	fmt.Fprint(w, "\n### Start\n\nOf the unfinished runs, nine in ten await a signal and one in ten was queued by an "+
		"engine that was never started.\n\n")
	t := &table{header: []string{
		"", "finished", "unfinished", "opening the store", "Start", "until the queued ones had ended",
	}}
	for _, r := range g.starts {
		t.add(r.store, grouped(int64(r.finished)), grouped(int64(r.unfinished)),
			duration(r.open), duration(r.start), duration(r.drained))
	}
	fmt.Fprint(w, t)
}

func reportPipelines(w io.Writer, g *growth) {
	if len(g.pipelines) == 0 {
		return
	}
	fmt.Fprint(w, "\n### Length of the pipeline\n\n")
	t := &table{header: []string{"", "steps", "runs in flight", "a step"}}
	for _, r := range g.pipelines {
		t.add(r.store, fmt.Sprint(r.steps), fmt.Sprint(r.flight), r.step.ranged(duration))
	}
	fmt.Fprint(w, t)
}
