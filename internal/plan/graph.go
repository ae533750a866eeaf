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

// isGraph says that some step names the ones it comes after. Then the order of the list means nothing.
func isGraph(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return len(s.After) > 0 })
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

// Follows tells of each step whether it comes after the one at a position, by whatever way; that one itself does too.
func (p *Plan) Follows(i int) []bool {
	after := make([]bool, p.Len())
	after[i] = true
	for again := true; again; { // once more for each arrow that leads back in the list, and there are none in most
		again = false
		for k := range p.Steps {
			if !after[k] && slices.ContainsFunc(p.Before(k), func(b int) bool { return after[b] }) {
				after[k], again = true, true
			}
		}
	}
	return after
}

// Last returns the positions of the steps that no other comes after.
func (p *Plan) Last() (last []int) {
	followed := make([]bool, len(p.Steps))
	for i := range p.Steps {
		for _, before := range p.Before(i) {
			followed[before] = true
		}
	}
	for i := range followed {
		if !followed[i] {
			last = append(last, i)
		}
	}
	return last
}

// Backwards is the plan of a deletion: what came last is finalized first, one step at a time, and one that fails stops
// the rest. Of a graph, each step comes before all that it was after.
func (p *Plan) Backwards() *Plan {
	b := &Plan{Retry: p.Retry, Finalize: true, Planned: p.Planned}
	placed := make([]bool, len(p.Steps))
	var place func(i int)
	place = func(i int) { // those before it first; there are no rings
		if placed[i] {
			return
		}
		placed[i] = true
		for _, before := range p.Before(i) {
			place(before)
		}
		step := p.Steps[i].Clone()
		step.After, step.ContinueOnError = nil, false
		b.Steps = append(b.Steps, step)
	}
	for i := range p.Steps {
		place(i)
	}
	slices.Reverse(b.Steps)
	return b
}
