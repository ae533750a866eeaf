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

// steps returns steps from texts such as "c:a,b": c comes after a and b. "c:" has an After that names none, and "c" has no
// After.
func steps(texts ...string) (steps []Step) {
	for _, text := range texts {
		id, after, written := strings.Cut(text, ":")
		s := Step{ID: id, Driver: "d"}
		switch {
		case after != "":
			s.After = strings.Split(after, ",")
		case written:
			s.After = []string{}
		}
		steps = append(steps, s)
	}
	return steps
}

func ids(p *Plan, positions []int) (names []string) {
	for _, i := range positions {
		names = append(names, p.Step(i).ID)
	}
	return names
}

func TestCheckGraph(t *testing.T) {
	for _, c := range []struct {
		name   string
		steps  []Step
		faults []string // path and problem
	}{
		{"no steps", nil, nil},
		{"a list", steps("a", "b", "c"), nil},
		{"a diamond", steps("a", "b:a", "c:a", "d:b,c"), nil},
		{"in any order", steps("d:b,c", "b:a", "c:a", "a:"), nil},
		{"two parts", steps("a", "b:a", "c", "d:c"), nil},
		{"an unknown step", steps("a", "b:a,x"), []string{`steps[1].after[1] no step has the id "x"`}},
		{"itself", steps("a", "b:b"), []string{`steps[1].after[0] step "b" comes after itself`}},
		{"twice", steps("a", "b:a,a"), []string{`steps[1].after[1] "a" comes twice`}},
		{"a cycle of two", steps("a:b", "b:a"), []string{`steps the steps "a", "b" wait for each other`}},
		{"only those on the cycle are named", steps("x:", "a:x,c", "b:a", "c:b", "y:c", "z:y"), []string{`steps the steps "a", "b", "c" wait for each other`}},
		{"two cycles", steps("a:b", "b:a", "c:d", "d:c"), []string{`steps the steps "a", "b" wait for each other`, `steps the steps "c", "d" wait for each other`}},
		{"what lies between two cycles is on none", steps("a:b", "b:a", "x:b", "c:d,x", "d:c"), []string{`steps the steps "a", "b" wait for each other`, `steps the steps "c", "d" wait for each other`}},
		{"several faults", steps("a:x", "b:c", "c:b"), []string{`steps[0].after[0] no step has the id "x"`, `steps the steps "b", "c" wait for each other`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f fault.Fields
			CheckGraph(c.steps, &f)
			var got []string
			for _, one := range f.List() {
				got = append(got, one.Path+" "+one.Problem)
			}
			require.Equal(t, c.faults, got)
		})
	}
}

// arrows draws steps with any dependencies among them, all of them written, without repetitions; up to is the number of the steps from which a
// step can depend on, by its position.
func arrows(t *rapid.T, upTo func(i, n int) int) []Step {
	n := rapid.IntRange(1, 8).Draw(t, "steps")
	var all []Step
	for i := range n {
		s := Step{ID: fmt.Sprint("s", i), Driver: "d", After: []string{}, ContinueOnError: rapid.Bool().Draw(t, "tolerated"), With: []byte("1")}
		for k := range upTo(i, n) {
			if k != i && rapid.IntRange(0, 3).Draw(t, "arrow") == 0 {
				s.After = append(s.After, fmt.Sprint("s", k))
			}
		}
		all = append(all, s)
	}
	return all
}

// reaches returns whether a step comes after another one, found step by step.
func reaches(p *Plan, from, to int, seen map[int]bool) bool {
	for _, before := range p.Before(from) {
		if before == to || !seen[before] && func() bool { seen[before] = true; return reaches(p, before, to, seen) }() {
			return true
		}
	}
	return false
}

func TestCheckGraphFindsExactlyTheCycles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &Plan{Rule: PresentRule, Steps: arrows(t, func(_, n int) int { return n })}
		var f fault.Fields
		CheckGraph(p.Steps, &f)
		p.Ready()
		cycle := false
		for i := range p.Steps {
			cycle = cycle || reaches(p, i, i, map[int]bool{})
		}
		require.Equal(t, cycle, f.Any())
	})
}

// graphs draws a plan without cycles, whose steps are in any order.
func graphs(t *rapid.T) *Plan {
	all := arrows(t, func(i, _ int) int { return i })
	return (&Plan{Rule: PresentRule, Steps: rapid.Permutation(all).Draw(t, "order")}).Ready()
}

func TestBackwardsPutsEveryStepBeforeItsPredecessors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := graphs(t)
		before := fmt.Sprint(p.Steps)
		b := p.Backwards(nil).Ready()
		require.True(t, b.Finalize)
		require.Equal(t, before, fmt.Sprint(p.Steps), "the plan itself has changed")
		var want, got []string
		for i, s := range b.Steps {
			require.Empty(t, s.After)
			require.False(t, s.ContinueOnError)
			require.Equal(t, i, b.Index(s.ID))
			got = append(got, s.ID)
		}
		for i, s := range p.Steps {
			want = append(want, s.ID)
			for _, k := range p.Before(i) {
				require.Less(t, b.Index(s.ID), b.Index(p.Step(k).ID), "%s is finalized after its predecessor", s.ID)
			}
		}
		require.ElementsMatch(t, want, got)
		b.Steps[0].With[0] = '2'
		require.Equal(t, before, fmt.Sprint(p.Steps), "the two share memory")
	})
}

func TestFollowingStepsAndLastAgreeWithTheArrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := graphs(t)
		for i := range p.Steps {
			marked := make([]bool, p.Len())
			marked[i] = true
			p.SpreadToFollowing(marked)
			for k, follows := range marked {
				require.Equal(t, k == i || reaches(p, k, i, map[int]bool{}), follows, "%d after %d", k, i)
			}
			last := slices.Contains(p.Last(), i)
			require.Equal(t, !slices.ContainsFunc(p.Steps, func(s Step) bool {
				return slices.Contains(p.Before(p.Index(s.ID)), i)
			}), last)
		}
		require.NotEmpty(t, p.Last())
	})
}

func TestOrderOfPlans(t *testing.T) {
	listed := &Plan{Steps: steps("a", "b", "c"), Finally: steps("x", "y")}
	graph := (&Plan{Steps: steps("a", "b:a", "c:a", "d:b,c")}).Ready()
	listeners := Listeners([]string{"p", "q"})
	planned := (&Plan{Planned: true, Steps: steps(".plan", "a", "b:a")}).Ready()
	for _, c := range []struct {
		name   string
		plan   *Plan
		before [][]int
		last   []string
		back   []string
	}{
		{"a list", listed.Ready(), [][]int{nil, {0}, {1}, nil, {3}}, []string{"c"}, []string{"c", "b", "a"}},
		{"a graph", graph, [][]int{nil, {0}, {0}, {1, 2}}, []string{"d"}, []string{"d", "c", "b", "a"}},
		{"listeners", listeners.Ready(), [][]int{nil, nil}, []string{"p", "q"}, []string{"q", "p"}},
		{"a planned graph", planned, [][]int{nil, {0}, {1}}, []string{"b"}, []string{"b", "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, want := range c.before {
				require.Equal(t, want, c.plan.Before(i), "step %d", i)
			}
			require.Equal(t, c.last, ids(c.plan, c.plan.Last()))
			back := c.plan.Backwards(nil)
			require.Equal(t, c.back, ids(back, positions[:len(back.Steps)]))
			require.Empty(t, back.Finally)
		})
	}
	require.Equal(t, 5, listed.Len())
	require.Equal(t, "x", listed.Step(3).ID)
	require.Equal(t, 4, listed.Index("y"))
	require.Equal(t, -1, listed.Index("z"))
}

func TestNextFollowsTheArrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := graphs(t)
		states := make([]State, p.Len())
		for turn := 0; ; turn++ {
			require.LessOrEqual(t, turn, 2*p.Len(), "no end")
			start, over := p.Next(states, false, false)
			if over {
				require.NotContains(t, states, Unset)
				return
			}
			for _, i := range start {
				for _, k := range p.Before(i) {
					require.Equal(t, Succeeded, states[k])
				}
			}
			i := rapid.SampledFrom(start).Draw(t, "step")
			states[i] = Succeeded
		}
	})
}
