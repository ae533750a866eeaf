package main

import "fmt"

// The budgets apply at these sizes.
const (
	budgetFew        = 10_000
	budgetSize       = 1_000_000
	budgetWaiting    = 100_000
	budgetUnfinished = 100_000
)

func growthBudgets(g *growth) (list []budget) {
	for _, kind := range storeKinds {
		list = append(list, waitingBudgets(g, kind.name)...)
	}
	for _, kind := range storeKinds {
		list = append(list, stepBudget(g, kind.name))
	}
	for _, kind := range storeKinds {
		list = append(list, startBudget(g, kind.name))
	}
	return list
}

// waitingBudgets returns the budgets for runs that wait for a signal with Await. A store in memory keeps the records of
// the runs on the heap. They do not count as heap of the engine.
func waitingBudgets(g *growth, store string) []budget {
	more := budget{what: store + ", goroutines more when runs wait", bound: 8, format: number}
	heap := budget{what: store + ", heap for a waiting run", bound: 1 << 10, format: size}
	for _, r := range g.waiting {
		if r.store != store {
			continue
		}
		more.measured = float64(max(r.goroutines[1]-r.goroutines[0], 0))
		more.note = atSize(r.waiting, budgetWaiting, "waiting")
		heap.measured = max(r.heap, r.engine)
		heap.note = more.note + ", engine and store"
		if store == storeKinds[0].name {
			heap.measured = r.engine
			heap.note = fmt.Sprintf("%s, the engine's part of %s", more.note, size(r.heap))
		}
		return []budget{more, heap}
	}
	const why = "growth was not measured"
	return []budget{more.notMeasured(why), heap.notMeasured(why)}
}

// stepBudget returns the budget for the cost of a step among many resources, divided by the cost among few resources.
func stepBudget(g *growth, store string) budget {
	b := budget{what: store + ", a step among many resources by one among few", bound: 1.5, format: times}
	for _, r := range g.interleaved {
		if r.store == store {
			b.measured = r.manyStep.median / r.fewStep.median
			b.note = fmt.Sprintf("%s among %s, and %s among %s", duration(r.manyStep.median),
				atSize(r.many, budgetSize, "resources"), duration(r.fewStep.median), grouped(int64(r.few)))
			return b
		}
	}
	return b.notMeasured("growth was not measured")
}

func startBudget(g *growth, store string) budget {
	b := budget{what: store + ", Start among many finished runs", bound: 5, format: duration}
	for _, r := range g.starts {
		if r.store == store {
			b.measured = r.start
			b.note = fmt.Sprintf("%s among %s", atSize(r.unfinished, budgetUnfinished, "unfinished"),
				atSize(r.finished, budgetSize, "finished"))
			return b
		}
	}
	return b.notMeasured("growth was not measured")
}

// atSize returns the size at which something was measured. It adds the size of the budget if the measured size is smaller.
func atSize(got, want int, of string) string {
	if got >= want {
		return fmt.Sprintf("%s %s", grouped(int64(got)), of)
	}
	return fmt.Sprintf("only %s of %s %s", grouped(int64(got)), grouped(int64(want)), of)
}
