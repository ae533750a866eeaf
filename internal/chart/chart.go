// Package chart draws the steps of a plan as a Mermaid flowchart. It must not know what a pipeline or a run is.
package chart

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Step is how far a run is with a step.
type Step struct {
	State   plan.State
	Attempt int
}

// Write writes the flowchart of a plan. If steps is not nil, it has an element for each step of the plan, and the boxes have
// the colors of the states. Write returns the error of w.
func Write(w io.Writer, p *plan.Plan, steps []Step) error {
	c := chart{p, steps}
	return c.write(w)
}

// chart is a flowchart.
type chart struct {
	plan  *plan.Plan
	steps []Step // nil for the chart of a pipeline
}

// stateColors are the colors of the states. They are light enough for black text.
var stateColors = map[plan.State]string{
	plan.Pending: "#ffffff", plan.Queued: "#eeeeee", plan.Running: "#9ecbff", plan.Retrying: "#ffe08a", plan.Waiting: "#fff3c4",
	plan.Blocked: "#ffc69e", plan.Succeeded: "#a6e9b5", plan.Failed: "#ff9e9e", plan.Skipped: "#e0e0e0",
	plan.Canceled: "#d5c4f7", plan.Superseded: "#d5c4f7",
}

func (c *chart) write(w io.Writer) error {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for i := range c.plan.Len() {
		fmt.Fprintf(&b, "  %s[\"%s\"]\n", node(i), c.label(i, c.plan.Step(i)))
	}
	for i, arrows := range c.plan.Arrows() {
		if i == len(c.plan.Steps) {
			for _, last := range c.plan.Last() {
				fmt.Fprintf(&b, "  %s -. finally .-> %s\n", node(last), node(i))
			}
		}
		for _, before := range arrows {
			fmt.Fprintf(&b, "  %s --> %s\n", node(before), node(i))
		}
	}
	if c.steps != nil {
		c.color(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func node(i int) string { return "s" + strconv.Itoa(i+1) }

// label returns the text in the box of a step.
func (c *chart) label(i int, step *plan.Step) string {
	name := step.Name
	if name == "" {
		name = step.ID
	}
	text := escapeLabel(name)
	if !c.plan.Plans(i) {
		text += "<br/>" + escapeLabel(step.Driver)
	}
	if c.steps == nil {
		return text
	}
	s := &c.steps[i]
	text += "<br/>" + s.State.String()
	if s.Attempt > 1 {
		text += ", attempt " + strconv.Itoa(s.Attempt)
	}
	return text
}

// color writes a class for each state that a step has, and the nodes of the class.
func (c *chart) color(b *strings.Builder) {
	for state := plan.Pending; state <= plan.Superseded; state++ {
		var nodes []string
		for i := range c.steps {
			if c.steps[i].State == state {
				nodes = append(nodes, node(i))
			}
		}
		if len(nodes) > 0 {
			fmt.Fprintf(b, "  classDef %s fill:%s,color:#000\n", state, stateColors[state])
			fmt.Fprintf(b, "  class %s %s\n", strings.Join(nodes, ","), state)
		}
	}
}

// escapeLabel returns a text that Mermaid does not read as markup. Each character that can have a meaning in Mermaid, or
// that is not printed, is replaced by its entity code.
func escapeLabel(label string) string {
	var b strings.Builder
	for _, r := range text.Truncate(label, text.MaxName) {
		if r == ' ' || text.IsNameRune(r) || r > 0x7F && strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
