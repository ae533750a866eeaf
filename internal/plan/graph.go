package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// CheckGraph adds a fault to f for each id in After that names no step, names its own step, or comes twice, and a fault if
// steps wait for each other in a cycle.
func CheckGraph(steps []Step, f *fault.Fields) {
	if !isGraph(steps) {
		return
	}
	positions := map[string]int{}
	for i, step := range slices.Backward(steps) { // the first of several steps with an equal id counts; that is another fault
		positions[step.ID] = i
	}
	open := make([]int, len(steps)) // for each step, how many of its predecessors are not sorted yet
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
	if cycle := cycleOf(steps, open, next); len(cycle) > 0 {
		f.Add(fault.Invalidf("steps", "the steps %s wait for each other", strings.Join(cycle, ", ")))
	}
}

// isGraph reports whether a step has an After. If so, the order of the list has no meaning.
func isGraph(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return len(s.After) > 0 })
}

// cycleOf returns the quoted ids of the steps that lie on a cycle or between two cycles, and nil if there is no cycle. It
// first removes the steps without predecessors, repeatedly. The steps that remain lie on a cycle or after one. Then it
// removes the steps without successors, repeatedly.
func cycleOf(steps []Step, open []int, next [][]int) (cycle []string) {
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
			cycle = append(cycle, strconv.Quote(step.ID))
		}
	}
	return cycle
}

// SpreadToFollowing marks each of Steps that comes after a marked step, directly or through other steps.
func (p *Plan) SpreadToFollowing(marked []bool) {
	for again := true; again; { // one more pass for each predecessor that stands later in the list; most lists have none
		again = false
		for k := range p.Steps {
			if !marked[k] && slices.ContainsFunc(p.Before(k), func(b int) bool { return marked[b] }) {
				marked[k], again = true, true
			}
		}
	}
}

// Last returns the positions of those of Steps that are no predecessor of another step.
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

// Backwards returns the plan of a deletion. The steps are finalized one at a time, and the last step first. In a graph,
// each step is finalized before each of its predecessors. A step that fails stops the steps after it.
func (p *Plan) Backwards() *Plan {
	b := &Plan{Retry: p.Retry, Finalize: true, Planned: p.Planned}
	placed := make([]bool, len(p.Steps))
	var place func(i int)
	place = func(i int) { // the predecessors first; the graph has no cycle
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
