package plan

import "slices"

// Rule is a version of the rule by which the After of the steps orders a plan. It is recorded together with the steps, so
// that a run goes on by the rule under which its steps were pinned.
type Rule uint8

const (
	// RuleUnmarked is the rule of the plans that were recorded without a rule: if a step has an After that names a step,
	// each step without such an After starts at once.
	RuleUnmarked Rule = iota
	// RuleListed is the rule that [Step].After describes: a step without After comes after all the steps listed before it.
	RuleListed

	PresentRule = RuleListed
)

// UnknownRule is what is wrong with a plan that a newer program has recorded.
const UnknownRule = "has an order by a rule that this program does not know"

// translate gives the steps of a plan that was recorded under an older rule the After by which they mean the same under
// the present rule. It writes to the elements of p.Steps.
func (p *Plan) translate() {
	if p.Rule != RuleUnmarked {
		return
	}
	graph := slices.ContainsFunc(p.Steps, func(s Step) bool { return len(s.After) > 0 })
	for i := range p.Steps {
		switch s := &p.Steps[i]; {
		case !graph:
			s.After = nil
		case len(s.After) == 0 && i > 0: // nothing is listed before the first step
			s.After = []string{}
		}
	}
	if graph {
		p.Rule = PresentRule
	}
}
