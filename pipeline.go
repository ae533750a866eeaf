package conveyor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/conveyor-go/conveyor/internal/document"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Pipeline is anything that can say what its steps are. [PipelineSpec] is the ready-made one.
type Pipeline interface {
	// Spec returns the definition. The engine calls it once in [Engine.SavePipeline] and keeps a copy. A pipeline that is
	// a [Planner] too defines no steps.
	Spec() PipelineSpec
}

// PipelineSpec is the JSON document of a pipeline, and itself a [Pipeline].
type PipelineSpec struct {
	Name        string `json:"name"`
	Resource    string `json:"resource"` // the type of the resources it reconciles
	Description string `json:"description,omitempty"`
	// Version is the author's own label and is kept as it is.
	Version string `json:"version,omitempty"`
	// Steps are run in this order, each after the one before it succeeded; or, if any of them has an After, each as
	// soon as those it names have. At least 1, and with Finally at most [Limits].Steps.
	Steps []Step `json:"steps"`
	// Finally are run in this order when Steps are through, whether they succeeded, failed, timed out or were canceled
	// (see [Request].Outcome). All of them are run, even if one fails; that makes a run that had succeeded fail.
	// Canceling the run while they run ends them too, and so does the end of their time: a run that had succeeded is
	// then canceled, or fails.
	Finally []Step `json:"finally,omitempty"`
	// OnChange says what happens to a change that comes during a run. Unset means coalesce: when the run has ended,
	// the resource is reconciled once more, with the newest generation. Supersede does not wait for the end: the attempts
	// under way are canceled first, with the cause [ErrSuperseded], and Finally is run. Queue gives each generation a run of
	// its own, one after the other.
	OnChange ChangePolicy `json:"onChange,omitzero"`
	// MaxRuns is how many runs of the pipeline may be at work at once; 0 means any number. A run is at work from its first
	// step to its end, while it waits or is blocked too, and so is a deletion. Others stay queued, and begin about in the
	// order in which they came. A driver that waits for another run of its own pipeline may so wait for ever.
	MaxRuns int `json:"maxRuns,omitempty"`
	// Timeout limits the Steps of a run as a whole, its waits included, and then once more its Finally. 0 means no
	// limit.
	Timeout Duration `json:"timeout,omitzero"`
	// Resync runs a resource again, with the cause resync, so long after a run of it that succeeded, unless another run
	// comes first: what has drifted is put right. 0 means never. The time counts from the end of the run, and survives a
	// restart; what was due meanwhile is run at once. Only a success plans the next run: after one that failed or was
	// canceled, it takes an Apply or a Trigger to begin anew. A pipeline that no longer has a Resync, or is gone, has none of
	// its resources run again; one that gets a Resync has it for each resource from the next run on.
	Resync Duration `json:"resync,omitzero"`
	// Retry is the policy of the steps, field by field, where they do not say otherwise.
	Retry    *RetryPolicy      `json:"retry,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Step is one station of a pipeline.
type Step struct {
	// ID is unique in the pipeline and is what a run's progress is kept under. Empty means its position: "1", "2", …, or
	// "finally-1", … in the Finally of a pipeline whose steps are planned (see [Planner]).
	ID string `json:"id"`
	// Name is for people.
	Name string `json:"name,omitempty"`
	// Driver names the driver that carries the step out. One driver may serve several steps.
	Driver string `json:"driver"`
	// After are the ids of the steps that this one comes after. If no step of the pipeline has any, they run in the
	// order of the list. If some have, a step without After starts at once.
	After []string `json:"after,omitempty"`
	// With is any JSON: settings for this use of the driver (see [Request.Settings]).
	With  json.RawMessage `json:"with,omitempty"`
	Retry *RetryPolicy    `json:"retry,omitempty"`
	// Timeout limits one attempt. 0 means the driver's (see [Timeout]), or else [Options].StepTimeout.
	Timeout Duration `json:"timeout,omitzero"`
	// ContinueOnError lets those after this step go on when it has failed, and the run succeed.
	ContinueOnError bool `json:"continueOnError,omitempty"`
}

// ChangePolicy says what happens when a resource changes during its run.
type ChangePolicy uint8

const (
	// Coalesce lets the run end and then reconciles the newest generation, once.
	Coalesce ChangePolicy = iota + 1
	// Supersede cancels the run first.
	Supersede
	// Queue reconciles every generation, each in a run of its own, one after the other, in order. A run that fails
	// holds up none of those behind it. The line is at most [Limits].Queue long; Apply answers [ErrTooLarge] beyond
	// that. When a pipeline takes up another policy, the runs that are queued already, and what is applied before they
	// have all started, still keep their generations.
	Queue
)

var changePolicyNames = enum[ChangePolicy]{what: "change policy", names: []string{"", "coalesce", "supersede", "queue"}}

// String gives the name that documents use, and "unset" for the zero value.
func (c ChangePolicy) String() string { return changePolicyNames.text(c) }

// MarshalText gives the name that documents use, and nothing for the zero value.
func (c ChangePolicy) MarshalText() ([]byte, error) { return changePolicyNames.marshal(c) }

// UnmarshalText reads what MarshalText writes, and nothing else.
func (c *ChangePolicy) UnmarshalText(b []byte) error { return changePolicyNames.unmarshal(b, c) }

// Duration is a [time.Duration] that documents write as text, such as "1m30s" (see [time.ParseDuration]).
type Duration time.Duration

// String gives what [time.Duration] does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the form that UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what [time.ParseDuration] does.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration such as \"1m30s\"", text)
	}
	*d = Duration(parsed)
	return nil
}

// Spec returns s.
func (s PipelineSpec) Spec() PipelineSpec { return s }

// ParsePipeline reads one pipeline document, strictly: an unknown, repeated or differently-cased field, trailing
// data, anything over the default [Limits], and all that [PipelineSpec.Validate] refuses is an error that gives the
// position. Every fault is reported at once, but of a text that is no JSON only the first. It returns an [ErrInvalid]
// or [ErrTooLarge], or the error of r. Steps without an id have got their position as one.
func ParsePipeline(r io.Reader) (PipelineSpec, error) {
	limits := Limits{}.withDefaults()
	var s PipelineSpec
	err := readDocument(r, &s, limits, func() []fault.Field {
		s = s.normalized()
		return s.validate(limits, false)
	})
	if err != nil {
		return PipelineSpec{}, err
	}
	return s, nil
}

// Validate reports every fault at once, joined; each is a [FieldError]. It uses the default [Limits].
func (s PipelineSpec) Validate() error {
	return fieldErrors(s.normalized().validate(Limits{}.withDefaults(), false))
}

// normalized returns a copy that shares nothing with s, with the ids filled in.
func (s PipelineSpec) normalized() PipelineSpec {
	s.Steps = cloneSteps(s.Steps)
	s.Finally = cloneSteps(s.Finally)
	s.Metadata = maps.Clone(s.Metadata)
	s.Retry = clonePtr(s.Retry)
	giveIDs(s.Steps, 0)
	if len(s.Steps) == 0 {
		for i := range s.Finally { // the positions are for the steps that will be planned
			if s.Finally[i].ID == "" {
				s.Finally[i].ID = "finally-" + strconv.Itoa(i+1)
			}
		}
	}
	giveIDs(s.Finally, len(s.Steps))
	return s
}

// giveIDs names the steps without an id after their position, which for Finally counts on from Steps.
func giveIDs(steps []Step, before int) {
	for i := range steps {
		if steps[i].ID == "" {
			steps[i].ID = strconv.Itoa(before + i + 1)
		}
	}
}

func cloneSteps(steps []Step) []Step {
	steps = slices.Clone(steps)
	for i := range steps {
		steps[i] = steps[i].clone()
	}
	return steps
}

func (s Step) clone() Step {
	s.After = slices.Clone(s.After)
	s.With = bytes.Clone(s.With)
	s.Retry = clonePtr(s.Retry)
	return s
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func (s PipelineSpec) validate(limits Limits, planned bool) []fault.Field {
	var f fault.Fields
	f.Name("name", s.Name)
	f.Name("resource", s.Resource)
	f.Text("description", s.Description)
	f.Text("version", s.Version)
	f.Labels("metadata", s.Metadata)
	switch n := len(s.Steps); {
	case planned && n > 0:
		f.Add(fault.Invalidf("steps", "has %d; the steps of a pipeline with a Planner are those that Plan returns", n))
	case !planned && n == 0:
		f.Add(fault.Invalidf("steps", "has none; a pipeline needs at least one"))
	}
	validateStepLists(s.Steps, s.Finally, &f, limits)
	if s.Timeout < 0 {
		f.Add(fault.Invalidf("timeout", "%s is negative", s.Timeout))
	}
	if s.Resync < 0 {
		f.Add(fault.Invalidf("resync", "%s is negative", s.Resync))
	}
	if s.MaxRuns < 0 {
		f.Add(fault.Invalidf("maxRuns", "%d is negative", s.MaxRuns))
	}
	if s.OnChange > Queue {
		f.Add(fault.Invalidf("onChange", "%d is no change policy", s.OnChange))
	}
	if s.Retry != nil {
		s.Retry.validate("retry", &f)
	}
	if doc, err := document.Marshal(s); err != nil {
		if !f.Any() { // or else that is why
			f.Add(fault.Invalidf("", "cannot be written as JSON: %v", err))
		}
	} else if len(doc) > limits.Document {
		f.Add(fault.Larger("", len(doc), limits.Document, "bytes as a document"))
	}
	return f.List()
}

// validateStepLists checks all the steps of a pipeline.
func validateStepLists(steps, finally []Step, f *fault.Fields, limits Limits) {
	if n := len(steps) + len(finally); n > limits.Steps {
		f.Add(fault.Larger("steps", n, limits.Steps, "steps"))
	}
	positions := map[string]string{}
	validateSteps("steps", steps, positions, f, limits)
	validateSteps("finally", finally, positions, f, limits)
	validateGraph(steps, f)
	for i, step := range finally {
		if len(step.After) > 0 {
			f.Add(fault.Invalidf(fmt.Sprintf("finally[%d].after", i), "has no meaning here; these steps run in order"))
		}
	}
}

// validateSteps checks steps one by one. Ids are unique in the whole pipeline; positions remembers where each stands.
func validateSteps(list string, steps []Step, positions map[string]string, f *fault.Fields, limits Limits) {
	for i, step := range steps[:min(len(steps), limits.Steps)] {
		field := fmt.Sprintf("%s[%d]", list, i)
		step.validate(field, f, limits)
		if first, taken := positions[step.ID]; taken {
			f.Add(fault.Invalidf(field+".id", "%q is the id of %s too", text.Truncate(step.ID, text.MaxName), first))
		} else {
			positions[step.ID] = field
		}
	}
}

func (s Step) validate(field string, f *fault.Fields, limits Limits) {
	f.Name(field+".id", s.ID)
	f.Text(field+".name", s.Name)
	f.Name(field+".driver", s.Driver)
	if s.Timeout < 0 {
		f.Add(fault.Invalidf(field+".timeout", "%s is negative", s.Timeout))
	}
	if s.Retry != nil {
		s.Retry.validate(field+".retry", f)
	}
	if len(s.With) > 0 {
		f.Add(document.Check(field+".with", s.With, limits.document(), 3)...)
	}
}

// A plan is what a run pins when it starts: its steps, and what must be done before each. A plan never changes once it
// is made ready, and is shared by the runs of one pipeline. A step's position counts through Steps and then Finally.
type plan struct {
	Steps   []Step       `json:"steps"`
	Finally []Step       `json:"finally,omitempty"`
	Timeout Duration     `json:"timeout,omitzero"`
	Resync  Duration     `json:"resync,omitzero"`
	Retry   *RetryPolicy `json:"retry,omitempty"`
	// Independent steps start at once, and one that fails holds up no other: the drivers that listen to a type.
	Independent bool `json:"independent,omitempty"`
	// Finalize has the drivers' Finalize called in place of Reconcile.
	Finalize bool `json:"finalize,omitempty"`
	// Planned plans have a first step that plans the others, and the others once it has succeeded.
	Planned bool `json:"planned,omitempty"`

	after [][]int // of a graph: the positions of each step's predecessors; nil for any other plan
}

func (s PipelineSpec) plan() *plan {
	return (&plan{Steps: s.Steps, Finally: s.Finally, Timeout: s.Timeout, Resync: s.Resync, Retry: s.Retry}).ready()
}

// listenersPlan is the plan of a resource without a pipeline: a step for each driver, named after it.
func listenersPlan(drivers []string) *plan {
	p := &plan{Independent: true}
	for _, d := range drivers {
		p.Steps = append(p.Steps, Step{ID: d, Driver: d})
	}
	return p
}

// ready works out the arrows of a graph. Ids that name no step were refused when the plan was made.
func (p *plan) ready() *plan {
	if !isGraph(p.Steps) {
		return p
	}
	p.after = make([][]int, len(p.Steps))
	for i, step := range p.Steps {
		for _, id := range step.After {
			p.after[i] = append(p.after[i], p.index(id))
		}
		if p.Planned && i > 0 && len(step.After) == 0 {
			p.after[i] = []int{0}
		}
	}
	return p
}

func (p *plan) len() int { return len(p.Steps) + len(p.Finally) }

// step returns the step at a position, not to be changed.
func (p *plan) step(i int) *Step {
	if i < len(p.Steps) {
		return &p.Steps[i]
	}
	return &p.Finally[i-len(p.Steps)]
}

// index returns the position of the step with the id, or -1.
func (p *plan) index(id string) int {
	for i := range p.len() {
		if p.step(i).ID == id {
			return i
		}
	}
	return -1
}

// before returns the positions of the steps that must be done before the one at a position may start. What comes
// before the first of Finally is all of Steps, however they went.
func (p *plan) before(i int) []int {
	switch {
	case i < len(p.Steps) && p.after != nil:
		return p.after[i]
	case i == 0 || i == len(p.Steps) || i < len(p.Steps) && p.Independent:
		return nil
	default:
		return []int{i - 1}
	}
}

// next decides: it returns the steps that may start now, in order, and whether the run is over. The states are what
// is recorded of the steps, by position; a retry or a wait that has come due is given as queued. Steps that are to
// stop start nothing more, and are over as soon as none of them runs; then comes Finally, unless that is to stop too.
//
// Invariant: a step is never returned before each of the steps it depends on has a recorded success, skip, or failure
// that is tolerated; and none of Finally before nothing of Steps can run any more.
func (p *plan) next(states []State, stop, stopFinally bool) (start []int, over bool) {
	start, over = p.nextOfSteps(states[:len(p.Steps)], stop)
	if !over {
		return start, false
	}
	return p.nextOfFinally(states, stopFinally)
}

func (p *plan) nextOfSteps(states []State, stop bool) (start []int, over bool) {
	running, waiting, failed := p.survey(states)
	stop = stop || failed && !p.Independent
	if stop {
		return nil, !running
	}
	if p.Independent || p.after != nil {
		start = p.startableSteps(states)
	} else {
		start = p.nextInOrder(states)
	}
	return start, !running && !waiting && len(start) == 0
}

// survey looks for what keeps a run from being over, and for a failure that is not tolerated.
func (p *plan) survey(states []State) (running, waiting, failed bool) {
	for i, s := range states {
		switch s {
		case StateRunning:
			running = true
		case StateRetrying, StateWaiting:
			waiting = true
		case StateFailed:
			failed = failed || !p.step(i).ContinueOnError
		}
	}
	return running, waiting, failed
}

// nextInOrder returns the first step that is not done, if it may start.
func (p *plan) nextInOrder(states []State) []int {
	for i := range states {
		if !p.passed(states, i) {
			if states[i].startable() {
				return only(i)
			}
			return nil
		}
	}
	return nil
}

// only returns a slice of one position, not to be changed.
func only(i int) []int {
	if i < len(positions) {
		return positions[i : i+1]
	}
	return []int{i}
}

// positions are in their places, so that the usual plan needs no memory to say what comes next.
var positions = func() (p [defaultSteps]int) {
	for i := range p {
		p[i] = i
	}
	return p
}()

// startableSteps returns every step that may start and whose predecessors are done.
func (p *plan) startableSteps(states []State) (start []int) {
	for i, s := range states {
		if s.startable() && !slices.ContainsFunc(p.before(i), func(b int) bool { return !p.passed(states, b) }) {
			start = append(start, i)
		}
	}
	return start
}

// passed says that a step is done, as far as those after it are concerned.
func (p *plan) passed(states []State, i int) bool {
	return states[i] == StateSucceeded || states[i] == StateSkipped || states[i] == StateFailed && p.step(i).ContinueOnError
}

// nextOfFinally goes through Finally in order. A step of it that fails holds up none of the others, for each may be
// the one that puts something back.
func (p *plan) nextOfFinally(states []State, stop bool) (start []int, over bool) {
	for i := len(p.Steps); i < len(states); i++ {
		switch s := states[i]; {
		case s == StateRunning:
			return nil, false
		case s.Final() || stop:
			continue
		case s.startable():
			return only(i), false
		default:
			return nil, false
		}
	}
	return nil, true
}

// through says that nothing of Steps can run any more, so that what is left is Finally.
func (p *plan) through(states []State, stop bool) bool {
	_, over := p.nextOfSteps(states[:len(p.Steps)], stop)
	return over
}

// startable says that a step waits for nothing but its turn: it never began, or shall begin again.
func (s State) startable() bool {
	return s == StateUnset || s == StateQueued || s == StateBlocked
}

// succeeded says that the steps are through and none of them stands in the way of a success.
func (p *plan) succeeded(states []State) bool {
	end, _ := p.outcome(states, stopNone)
	return p.through(states, false) && end == StateSucceeded
}

// outcome decides how the steps of a run that is through with them have ended. The step is the one that made it fail,
// or -1.
func (p *plan) outcome(states []State, stop stopKind) (end State, step int) {
	failed := -1
	for i, s := range states[:len(p.Steps)] {
		if s == StateFailed && !p.Steps[i].ContinueOnError {
			failed = i
			break
		}
	}
	switch stop {
	case stopCancel:
		return StateCanceled, -1
	case stopSupersede:
		return StateSuperseded, -1
	case stopTimeout:
		return StateFailed, failed
	}
	if failed >= 0 {
		return StateFailed, failed
	}
	return StateSucceeded, -1
}

// failedCleanup returns the first step of Finally whose failure is not tolerated, or -1. It turns a success into a
// failure.
func (p *plan) failedCleanup(states []State) int {
	for i := len(p.Steps); i < len(states); i++ {
		if states[i] == StateFailed && !p.step(i).ContinueOnError {
			return i
		}
	}
	return -1
}

// stopKind says why a run shall end before its steps are done.
type stopKind string

const (
	stopNone      stopKind = ""
	stopHalt      stopKind = "halt"
	stopCancel    stopKind = "cancel"
	stopTimeout   stopKind = "timeout"
	stopSupersede stopKind = "supersede"
)
