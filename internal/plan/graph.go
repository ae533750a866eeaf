package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// CheckGraph adds a fault to f for each id in After that names no step, names its own step, or comes twice, and a fault for
// each set of steps that wait for each other. The steps must be written by the present rule.
func CheckGraph(steps []Step, f *fault.Fields) {
	if !isGraph(steps) {
		return
	}
	positions := positionsOf(steps)
	named := make([]int, len(steps)) // for each step, the last step that names it, counted from 1
	for i, step := range steps {
		for k, id := range step.After {
			from, known := positions[id]
			problem := ""
			switch {
			case !known:
				problem = fmt.Sprintf("no step has the id %s", text.Quote(id))
			case from == i:
				problem = fmt.Sprintf("step %s comes after itself", text.Quote(id))
			case named[from] == i+1:
				problem = fmt.Sprintf("%s comes twice", text.Quote(id))
			default:
				named[from] = i + 1
			}
			if problem != "" {
				f.Add(fault.Invalidf(fmt.Sprintf("steps[%d].after[%d]", i, k), "%s", problem))
			}
		}
	}
	p := (&Plan{Rule: PresentRule, Steps: steps}).Ready()
	for _, ring := range components(p.after) {
		if len(ring) > 1 {
			slices.Sort(ring)
			f.Add(fault.Invalidf("steps", "%s", p.describeRing(ring)))
		}
	}
}

// isGraph reports whether a step has an After, even an empty one. If none has, the steps run in the order of the list.
func isGraph(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.After != nil })
}

// components divides the steps, of which the predecessors are given, so that two steps are together if each of them comes
// after the other one, directly or through other steps. In a graph without a ring, each step is alone. The components
// come in an order in which each one follows those that it comes after.
func components(before [][]int) (all [][]int) {
	const placed = math.MaxInt
	number := make([]int, len(before)) // counts the visits from 1; 0 before the visit; placed when its component is known
	lowest := make([]int, len(before)) // the lowest number of an open step that is known to come before the step
	var open []int
	visits := 0
	var visit func(i int)
	visit = func(i int) { // this is Tarjan's algorithm
		visits++
		number[i], lowest[i] = visits, visits
		open = append(open, i)
		for _, b := range before[i] {
			if number[b] == 0 {
				visit(b)
				lowest[i] = min(lowest[i], lowest[b])
			} else {
				lowest[i] = min(lowest[i], number[b])
			}
		}
		if lowest[i] < number[i] {
			return
		}
		first := len(open) - 1
		for open[first] != i {
			first--
		}
		component := slices.Clone(open[first:])
		open = open[:first]
		for _, k := range component {
			number[k], lowest[k] = placed, placed
		}
		all = append(all, component)
	}
	for i := range before {
		if number[i] == 0 {
			visit(i)
		}
	}
	return all
}

// describeRing returns what is wrong with steps that wait for each other, given in the order of the list. If nobody wrote a
// part of the ring, because it follows from a missing After, the text names that part.
func (p *Plan) describeRing(ring []int) string {
	ids := make([]string, len(ring))
	for k, i := range ring {
		ids[k] = text.Quote(p.Steps[i].ID)
	}
	problem := fmt.Sprintf("the steps %s wait for each other", strings.Join(ids, ", "))
	joint := ": "
	for _, edge := range p.unwritten(ring) {
		problem += fmt.Sprintf("%s%s has no after, so it comes after %s", joint, text.Quote(p.Steps[edge.step].ID), text.Quote(p.Steps[edge.before].ID))
		joint = "; "
	}
	return problem
}

// edge says that a step comes after another one.
type edge struct{ step, before int }

// unwritten returns edges that follow from a missing After, each of which closes a ring of edges that somebody wrote. It
// returns at least one if any ring among these steps has an edge that nobody wrote. Of the steps without After on such a
// ring, the one that is listed last comes after all the steps before it. The ring can be cut short there, until it has no
// other edge that nobody wrote.
func (p *Plan) unwritten(ring []int) (edges []edge) {
	next := map[int][]int{} // the steps of the ring that name a step
	for _, i := range ring {
		if p.Steps[i].After == nil {
			continue
		}
		for _, b := range p.after[i] {
			next[b] = append(next[b], i)
		}
	}
	last := map[int]int{} // the last step without After that a step comes after, through what was written
	for _, barrier := range slices.Backward(ring) {
		if p.Steps[barrier].After != nil {
			continue
		}
		for follow := []int{barrier}; len(follow) > 0; {
			i := follow[len(follow)-1]
			follow = follow[:len(follow)-1]
			for _, k := range next[i] {
				if _, known := last[k]; !known {
					last[k] = barrier
					follow = append(follow, k)
				}
			}
		}
	}
	for _, i := range ring {
		barrier, known := last[i]
		if known && barrier > i && !slices.ContainsFunc(edges, func(e edge) bool { return e.step == barrier }) {
			edges = append(edges, edge{barrier, i})
		}
	}
	return edges
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

// Precedes reports whether a step comes before another one, directly or through other steps. All of Steps come before Finally.
func (p *Plan) Precedes(step, other int) bool {
	if other >= len(p.Steps) {
		return step < other
	}
	if step >= len(p.Steps) {
		return false
	}
	marked := make([]bool, len(p.Steps))
	marked[step] = true
	p.SpreadToFollowing(marked)
	return marked[other] && step != other
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

// Backwards returns the plan of a deletion that finalizes those steps of p for which called is set, or all steps if called
// is nil. The step that plans the others needs no finalizing. The steps are finalized one at a time, and the last step
// first. In a graph, each step is finalized before each of its predecessors. A step that fails stops the steps after it.
func (p *Plan) Backwards(called []bool) *Plan {
	b := &Plan{Rule: p.Rule, Retry: p.Retry, Finalize: true}
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
		if p.Plans(i) || called != nil && !called[i] {
			return
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

// Arrows returns, for each step, the predecessors that a picture shows: those that do not come before another one of its
// predecessors. If steps wait for each other, these are all direct predecessors.
func (p *Plan) Arrows() [][]int {
	arrows := make([][]int, p.Len())
	for i := range arrows {
		arrows[i] = p.Before(i)
	}
	order := components(arrows)
	rank := make([]int, len(arrows))
	for r, c := range order {
		if len(c) > 1 || slices.Contains(arrows[c[0]], c[0]) {
			return arrows
		}
		rank[c[0]] = r
	}
	passed := make([]int, len(arrows))
	for _, c := range order {
		i := c[0]
		arrows[i] = p.reduce(i, arrows, rank, passed)
	}
	return arrows
}

// reduce returns the predecessors of a step without those that come before another one of them. The arrows to the steps in
// front of it, by rank, are reduced already. The elements of passed are marks, which hold i+1 of the step that set them.
func (p *Plan) reduce(i int, arrows [][]int, rank, passed []int) []int {
	if len(arrows[i]) < 2 {
		return arrows[i]
	}
	before := slices.SortedFunc(slices.Values(arrows[i]), func(a, b int) int { return cmp.Compare(rank[b], rank[a]) })
	lowest := rank[before[len(before)-1]]
	for _, b := range before { // what comes before b has a lower rank, and follows
		if passed[b] == i+1 {
			continue
		}
		for follow := []int{b}; len(follow) > 0; {
			k := follow[len(follow)-1]
			follow = follow[:len(follow)-1]
			for _, earlier := range arrows[k] {
				if passed[earlier] != i+1 && rank[earlier] >= lowest {
					passed[earlier] = i + 1
					follow = append(follow, earlier)
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(arrows[i]), func(b int) bool { return passed[b] == i+1 })
}
