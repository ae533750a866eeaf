package conveyor

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Mermaid writes the pipeline as a Mermaid flowchart, which GitHub and many editors can draw. Each step is a box. An
// arrow leads to each step from the steps that must come before it, except from those that come before another one of
// them: the picture is the transitive reduction of the order. Mermaid draws the definition as it is, even if it is not
// valid. It returns the error of w.
func (s PipelineSpec) Mermaid(w io.Writer) error {
	s = s.normalized()
	c := chart{plan: toPlan(s)}
	return c.write(w)
}

// Mermaid writes the run as a Mermaid flowchart of its pinned steps, coloured by their states. A run that has not
// started has no steps to draw. Mermaid returns the error of w.
func (r *Run) Mermaid(w io.Writer) error {
	c := chart{plan: &plan.Plan{Rule: plan.PresentRule, Independent: r.Pipeline == ""}, run: r}
	for i := range r.Steps {
		if r.Steps[i].Finally {
			c.plan.Finally = append(c.plan.Finally, toStep(r.Steps[i].Step))
		} else {
			c.plan.Steps = append(c.plan.Steps, toStep(r.Steps[i].Step))
		}
	}
	c.plan.Planned = len(c.plan.Steps) > 0 && c.plan.Steps[0].ID == PlanStep
	c.plan.Ready()
	return c.write(w)
}

// chart is the flowchart of a pipeline or of a run.
type chart struct {
	plan *plan.Plan
	run  *Run // nil for a pipeline
}

// stateColors are the colors of the states. They are light enough for black text.
var stateColors = map[State]string{
	StatePending: "#ffffff", StateQueued: "#eeeeee", StateRunning: "#9ecbff", StateRetrying: "#ffe08a", StateWaiting: "#fff3c4",
	StateBlocked: "#ffc69e", StateSucceeded: "#a6e9b5", StateFailed: "#ff9e9e", StateSkipped: "#e0e0e0",
	StateCanceled: "#d5c4f7", StateSuperseded: "#d5c4f7",
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
	if c.run != nil {
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
	if c.run == nil {
		return text
	}
	s := &c.run.Steps[i]
	text += "<br/>" + s.State.String()
	if s.Attempt > 1 {
		text += ", attempt " + strconv.Itoa(s.Attempt)
	}
	return text
}

// color writes a class for each state that a step has, and the nodes of the class.
func (c *chart) color(b *strings.Builder) {
	for state := StatePending; state <= StateSuperseded; state++ {
		var nodes []string
		for i := range c.run.Steps {
			if c.run.Steps[i].State == state {
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
