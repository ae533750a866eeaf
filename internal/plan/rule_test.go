package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// TestRuleOfAfter lists for each step the steps that must be done before it can start, and tries all combinations of steps
// that are done.
func TestRuleOfAfter(t *testing.T) {
	for _, c := range []struct {
		name  string
		plan  Plan
		needs string // of each step
	}{
		{"a list", Plan{Rule: PresentRule, Steps: steps("a", "b", "c", "d")}, "- a ab abc"},
		{"one step of a list names another", Plan{Rule: PresentRule, Steps: steps("a", "b", "c:a", "d")}, "- a a abc"},
		{"two steps of a list name others, and what is behind them stays behind all", Plan{Rule: PresentRule, Steps: steps("a", "b", "c:a", "d:b", "e")}, "- a a b abcd"},
		{"the first step of a list starts at once anyway", Plan{Rule: PresentRule, Steps: steps("a:", "b", "c")}, "- a ab"},
		{"a step that starts at once in a list", Plan{Rule: PresentRule, Steps: steps("a", "b:", "c")}, "- - ab"},
		{"all steps start at once", Plan{Rule: PresentRule, Steps: steps("a:", "b:", "c:")}, "- - -"},
		{"steps side by side between two of a list", Plan{Rule: PresentRule, Steps: steps("a", "b:a", "c:a", "d", "e")}, "- a a abc abcd"},
		{"a step that names one listed behind it", Plan{Rule: PresentRule, Steps: steps("a:b", "b:", "c")}, "b - ab"},
		{"every step has an After, in any order", Plan{Rule: PresentRule, Steps: steps("d:b,c", "b:a", "c:a", "a:")}, "bc a a -"},
		{"two parts", Plan{Rule: PresentRule, Steps: steps("a", "b:a", "c:", "d:c")}, "- a - c"},
		{"a planned list", Plan{Rule: PresentRule, Planned: true, Steps: steps("p", "a", "b")}, "- p pa"},
		{"a planned graph", Plan{Rule: PresentRule, Planned: true, Steps: steps("p", "a", "b:", "c:a", "d")}, "- p p a pabc"},
		{"unmarked: a list", Plan{Steps: steps("a", "b", "c")}, "- a ab"},
		{"unmarked: a graph", Plan{Steps: steps("a", "b:a", "c", "d:c")}, "- a - c"},
		{"unmarked: a graph whose first step names another", Plan{Steps: steps("a:c", "b", "c")}, "c - -"},
		{"unmarked: a list with an After that names none", Plan{Steps: steps("a", "b:", "c")}, "- a ab"},
		{"unmarked: a planned graph", Plan{Planned: true, Steps: steps("p", "a", "b", "c:a")}, "- p p a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Empty(t, c.plan.Check())
			p := c.plan.Ready()
			needs := strings.Fields(c.needs)
			for done := range 1 << p.Len() {
				states := make([]State, p.Len())
				for i := range states {
					if done>>i&1 == 1 {
						states[i] = Succeeded
					}
				}
				var want []int
				for i := range states {
					if states[i] == Unset && !slices.ContainsFunc(strings.Split(strings.Trim(needs[i], "-"), ""), func(id string) bool {
						return states[p.Index(id)] == Unset
					}) {
						want = append(want, i)
					}
				}
				start, _ := p.Next(states, false, false)
				require.Equal(t, want, start, "%b", done)
			}
		})
	}
}

func TestStepsOfAnOlderRuleAreTranslatedOnce(t *testing.T) {
	p := &Plan{Steps: steps("a", "b", "c:a")}
	require.Equal(t, steps("a", "b:", "c:a"), p.Ready().Steps)
	require.Equal(t, PresentRule, p.Rule)
	again := *p
	require.Equal(t, p, again.Ready())
	require.Equal(t, p.Ready(), p)

	list := (&Plan{Steps: steps("a", "b")}).Ready()
	require.Equal(t, &Plan{Steps: steps("a", "b")}, list, "a list means the same by both rules")

	read := &Plan{Steps: steps("a", "b", "c:a")}
	require.Empty(t, read.Check())
	require.Equal(t, &Plan{Steps: steps("a", "b", "c:a")}, read, "a check changes nothing")
	require.Equal(t, UnknownRule, (&Plan{Rule: PresentRule + 1, Steps: steps("a")}).Check())
}

// anySteps draws steps that name any others, or none, or have no After.
func anySteps(t *rapid.T, upTo func(i, n int) int) []Step {
	all := arrows(t, upTo)
	for i := range all {
		if rapid.Bool().Draw(t, "not written") {
			all[i].After = nil
		}
	}
	return all
}

// before returns the steps that must be done before a step, by the words of the rule.
func before(steps []Step, i int) (all []int) {
	for k, other := range steps {
		if steps[i].After == nil && k < i || slices.Contains(steps[i].After, other.ID) {
			all = append(all, k)
		}
	}
	return all
}

// TestNextKeepsTheRule compares what starts with the words of the rule, whatever is on record, and also when a step is done
// before those in front of it.
func TestNextKeepsTheRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := (&Plan{Rule: PresentRule, Steps: anySteps(t, func(i, _ int) int { return i })}).Ready()
		some := rapid.SampledFrom([]State{Unset, Unset, Succeeded, Succeeded, Succeeded, Skipped, Running, Queued, Failed})
		states := rapid.SliceOfN(some, p.Len(), p.Len()).Draw(t, "states")
		var want []int
		for i := range p.Steps {
			if states[i].startable() && !slices.ContainsFunc(before(p.Steps, i), func(k int) bool { return !p.passed(states, k) }) {
				want = append(want, i)
			}
		}
		if _, _, failed := p.survey(states); failed {
			want = nil
		}
		start, _ := p.Next(states, false, false)
		require.Equal(t, want, start)
	})
}

// TestAListIsAsStrictAsItsGraph: a plan without an After behaves like one in which each step names all the steps before it,
// and like one in which each names the step in front of it.
func TestAListIsAsStrictAsItsGraph(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		states := rapid.SliceOfN(anyState, 1, 12).Draw(t, "states")
		list := planOf(len(states), false)
		graph := planOf(len(states), false)
		graph.Rule = PresentRule
		for i := range graph.Steps {
			graph.Steps[i].After = []string{}
			for k := range i {
				graph.Steps[i].After = append(graph.Steps[i].After, graph.Steps[k].ID)
			}
		}
		marked := planOf(len(states), false)
		marked.Rule = PresentRule
		stop := rapid.Bool().Draw(t, "stop")
		start, over := list.Ready().Next(states, stop, false)
		require.LessOrEqual(t, len(start), 1)
		for _, p := range []*Plan{graph.Ready(), marked.Ready()} {
			s, o := p.Next(states, stop, false)
			require.Equal(t, start, s)
			require.Equal(t, over, o)
		}
		require.Equal(t, list.Backwards(nil), marked.Backwards(nil).unmarked())
		require.Equal(t, list.Arrows(), graph.Arrows())
	})
}

func (p *Plan) unmarked() *Plan {
	p.Rule = RuleUnmarked
	return p
}

// TestPredecessorsLeadToAllThatComesBefore: the few direct predecessors, and the fewer arrows, stand for the same order.
func TestPredecessorsLeadToAllThatComesBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := anySteps(t, func(i, _ int) int { return i })
		p := (&Plan{Rule: PresentRule, Steps: all}).Ready()
		n := len(all)
		closure := func(direct func(i int) []int) [][]bool {
			reach := make([][]bool, n)
			for i := range reach { // no step names one behind it
				reach[i] = make([]bool, n)
				for _, k := range direct(i) {
					reach[i][k] = true
					for x := range n {
						reach[i][x] = reach[i][x] || reach[k][x]
					}
				}
			}
			return reach
		}
		want := closure(func(i int) []int { return before(all, i) })
		arrows := p.Arrows()
		require.Equal(t, want, closure(p.Before))
		require.Equal(t, want, closure(func(i int) []int { return arrows[i] }))
		for i := range all {
			for _, k := range arrows[i] {
				for _, other := range arrows[i] {
					require.False(t, want[other][k], "the arrow from %d to %d is not needed", k, i)
				}
			}
			marked := make([]bool, p.Len())
			marked[i] = true
			p.SpreadToFollowing(marked)
			for k, follows := range marked {
				require.Equal(t, k == i || want[k][i], follows)
			}
		}
		back := p.Backwards(nil)
		for i := range all {
			for _, k := range before(all, i) {
				require.Less(t, back.Index(all[i].ID), back.Index(all[k].ID), "%d is finalized after its predecessor %d", i, k)
			}
		}
	})
}

func TestRingsOfWhatNobodyWrote(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []Step
		want  []string
	}{
		{"two steps", steps("a:c", "b:", "c"), []string{`the steps "a", "c" wait for each other: "c" has no after, so it comes after "a"`}},
		{"with a bystander", steps("a:c", "b", "c"), []string{`the steps "a", "b", "c" wait for each other: "c" has no after, so it comes after "a"`}},
		{"through a step between", steps("a:d", "b", "c", "d:c"), []string{`the steps "a", "b", "c", "d" wait for each other: "c" has no after, so it comes after "a"`}},
		{"two of them", steps("a:c", "b:d", "c", "d"), []string{`the steps "a", "b", "c", "d" wait for each other: "c" has no after, so it comes after "a"; "d" has no after, so it comes after "b"`}},
		{"two parts that do not touch", steps("a:b", "b", "c:d", "d:c"), []string{
			`the steps "a", "b" wait for each other: "b" has no after, so it comes after "a"`, `the steps "c", "d" wait for each other`}},
		{"only what was written", steps("a", "b:c", "c:b"), []string{`the steps "b", "c" wait for each other`}},
		{"none", steps("a:b", "b:", "c"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f fault.Fields
			CheckGraph(c.steps, &f)
			var got []string
			for _, one := range f.List() {
				require.Equal(t, "steps", one.Path)
				got = append(got, one.Problem)
			}
			require.Equal(t, c.want, got)
		})
	}
}

// TestRingsAreNamedByAnEdgeThatNobodyWrote: a fault is reported exactly if a step comes after itself, and it names an edge
// that follows from a missing After exactly if such an edge is part of a ring.
func TestRingsAreNamedByAnEdgeThatNobodyWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := anySteps(t, func(_, n int) int { return n })
		n := len(all)
		reach := make([][]bool, n)
		for i := range reach {
			reach[i] = make([]bool, n)
			for _, k := range before(all, i) {
				reach[i][k] = true
			}
		}
		for k := range n {
			for i := range n {
				for x := range n {
					reach[i][x] = reach[i][x] || reach[i][k] && reach[k][x]
				}
			}
		}
		ring, unwritten := false, map[string]bool{}
		for i := range all {
			ring = ring || reach[i][i]
			for k := range i {
				if all[i].After == nil && reach[k][i] {
					unwritten[fmt.Sprintf("%q has no after, so it comes after %q", all[i].ID, all[k].ID)] = true
				}
			}
		}
		var f fault.Fields
		CheckGraph(all, &f)
		require.Equal(t, ring, f.Any())
		named := 0
		for _, one := range f.List() {
			if _, edges, found := strings.Cut(one.Problem, ": "); found {
				for edge := range strings.SplitSeq(edges, "; ") {
					require.True(t, unwritten[edge], one.Problem)
					named++
				}
			}
		}
		require.Equal(t, len(unwritten) > 0, named > 0)
	})
}

// TestArrowsOfWhatIsNotValid: a picture shows what there is.
func TestArrowsOfWhatIsNotValid(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []Step
		want  [][]int
	}{
		{"a ring", steps("a:b", "b:a", "c:a,b"), [][]int{{1}, {0}, {0, 1}}},
		{"a step after itself", steps("a:a", "b:a"), [][]int{{0}, {0}}},
		{"an unknown step", steps("a:x", "b:a,x"), [][]int{nil, {0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := (&Plan{Rule: PresentRule, Steps: c.steps, Finally: steps("f")}).Ready()
			require.Equal(t, append(c.want, nil), p.Arrows())
			p.Last()
		})
	}
}

// The largest plan, in the shapes that have the most edges.
func largePlans(n int) map[string]*Plan {
	plans := map[string]*Plan{"a list": {}, "two side by side": {}, "all written": {}, "half at once": {}}
	for i := range n {
		s := Step{ID: fmt.Sprint("step-", i), Driver: "d"}
		plans["a list"].Steps = append(plans["a list"].Steps, s)
		at, all, side := s, s, s
		if i < n/2 {
			at.After = []string{}
		}
		plans["half at once"].Steps = append(plans["half at once"].Steps, at)
		all.After = []string{}
		for k := range i {
			all.After = append(all.After, fmt.Sprint("step-", k))
		}
		plans["all written"].Steps = append(plans["all written"].Steps, all)
		if i%3 == 2 {
			side.After = []string{fmt.Sprint("step-", i-2)}
		}
		plans["two side by side"].Steps = append(plans["two side by side"].Steps, side)
	}
	for _, p := range plans {
		p.Rule = PresentRule
	}
	return plans
}

func TestALargePlanHasFewPredecessors(t *testing.T) {
	const n = 300
	for _, name := range []string{"half at once", "two side by side"} {
		p := largePlans(n)[name].Ready()
		edges := 0
		for i := range p.Len() {
			edges += len(p.Before(i))
		}
		require.LessOrEqual(t, edges, 2*n, name)
	}
}

func BenchmarkLargePlan(b *testing.B) {
	for name, p := range largePlans(256) {
		b.Run("validate/"+name, func(b *testing.B) {
			for b.Loop() {
				var f fault.Fields
				if CheckGraph(p.Steps, &f); f.Any() {
					b.Fatal(f.List())
				}
			}
		})
		ready := *p
		ready.Ready()
		states := make([]State, p.Len())
		for i := range p.Len() / 2 {
			states[i] = Succeeded
		}
		b.Run("next/"+name, func(b *testing.B) {
			for b.Loop() {
				ready.Next(states, false, false)
			}
		})
		b.Run("arrows/"+name, func(b *testing.B) {
			for b.Loop() {
				ready.Arrows()
			}
		})
	}
}
