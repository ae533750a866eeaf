package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// CheckGraph checks the arrows: each comes from a step there is, and none leads back.
func CheckGraph(steps []Step, f *fault.Fields) {
	if !isGraph(steps) {
		return
	}
	positions := map[string]int{}
	for i, step := range slices.Backward(steps) { // of equal ids, a fault of its own, the first counts
		positions[step.ID] = i
	}
	open := make([]int, len(steps)) // arrows to each step from steps that are not sorted yet
	next := make([][]int, len(steps))
	for i, step := range steps {
		seen := map[string]bool{}
		for k, id := range step.After {
			field := fmt.Sprintf("steps[%d].after[%d]", i, k)
			from, known := positions[id]
			switch {
			case !known:
				f.Add(fault.Invalidf(field, "no step has the id %q", text.Truncate(id, text.MaxName)))
			case from == i:
				f.Add(fault.Invalidf(field, "step %q comes after itself", id))
			case seen[id]:
				f.Add(fault.Invalidf(field, "%q comes twice", id))
			default:
				open[i]++
				next[from] = append(next[from], i)
			}
			seen[id] = true
		}
	}
	if ring := ringOf(steps, open, next); len(ring) > 0 {
		f.Add(fault.Invalidf("steps", "the steps %s wait for each other", strings.Join(ring, ", ")))
	}
}

// ringOf takes away, again and again, the steps that wait for nothing. What is left lies on a ring, or behind one;
// the steps behind are taken away from the other end.
func ringOf(steps []Step, open []int, next [][]int) (ring []string) {
	var free []int
	for i := range steps {
		if open[i] == 0 {
			free = append(free, i)
		}
	}
	left := len(steps)
	for ; len(free) > 0; left-- {
		i := free[0]
		free = free[1:]
		for _, k := range next[i] {
			if open[k]--; open[k] == 0 {
				free = append(free, k)
			}
		}
	}
	if left == 0 {
		return nil
	}
	for again := true; again; {
		again = false
		for i := range steps {
			if open[i] > 0 && !slices.ContainsFunc(next[i], func(k int) bool { return open[k] > 0 }) {
				open[i], again = 0, true
			}
		}
	}
	for i, step := range steps {
		if open[i] > 0 {
			ring = append(ring, strconv.Quote(step.ID))
		}
	}
	return ring
}

// isGraph says that some step names the ones it comes after. Then the order of the list means nothing.
func isGraph(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return len(s.After) > 0 })
}
