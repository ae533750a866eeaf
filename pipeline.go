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
)

// Pipeline is anything that can say what its steps are. [PipelineSpec] is the ready-made one.
type Pipeline interface {
	// Spec returns the definition. The engine calls it once in [Engine.SavePipeline] and keeps a copy.
	Spec() PipelineSpec
}

// PipelineSpec is the JSON document of a pipeline, and itself a [Pipeline].
//
// Finally, Resync, and an OnChange other than coalesce are part of the document but not carried out yet; so are a
// step's After and ContinueOnError. [PipelineSpec.Validate] refuses them, rather than running something else than
// what was written.
type PipelineSpec struct {
	Name        string `json:"name"`
	Resource    string `json:"resource"` // the type of the resources it reconciles
	Description string `json:"description,omitempty"`
	// Version is the author's own label and is kept as it is.
	Version string `json:"version,omitempty"`
	// Steps are run in this order, each after the one before it succeeded. At least 1, at most [Limits].Steps.
	Steps   []Step `json:"steps"`
	Finally []Step `json:"finally,omitempty"`
	// OnChange says what happens to a change that comes during a run. Unset means coalesce: when the run has ended,
	// the resource is reconciled once more, with the newest generation.
	OnChange ChangePolicy `json:"onChange,omitzero"`
	// Timeout limits a whole run, its waits included. 0 means no limit.
	Timeout Duration `json:"timeout,omitzero"`
	Resync  Duration `json:"resync,omitzero"`
	// Retry is the policy of the steps, field by field, where they do not say otherwise.
	Retry    *RetryPolicy      `json:"retry,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Step is one station of a pipeline.
type Step struct {
	// ID is unique in the pipeline and is what a run's progress is kept under. Empty means its position: "1", "2", …
	ID string `json:"id"`
	// Name is for people.
	Name string `json:"name,omitempty"`
	// Driver names the driver that carries the step out. One driver may serve several steps.
	Driver string   `json:"driver"`
	After  []string `json:"after,omitempty"`
	// With is any JSON: settings for this use of the driver (see [Request.Settings]).
	With  json.RawMessage `json:"with,omitempty"`
	Retry *RetryPolicy    `json:"retry,omitempty"`
	// Timeout limits one attempt. 0 means the driver's (see [Timeout]), or else [Options].StepTimeout.
	Timeout         Duration `json:"timeout,omitzero"`
	ContinueOnError bool     `json:"continueOnError,omitempty"`
}

// ChangePolicy says what happens when a resource changes during its run.
type ChangePolicy uint8

const (
	// Coalesce lets the run end and then reconciles the newest generation, once.
	Coalesce ChangePolicy = iota + 1
	// Supersede cancels the run first.
	Supersede
	// Queue reconciles every generation, one after the other.
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
	err := readDocument(r, &s, limits, func() error {
		s = s.normalized()
		return s.validate(limits)
	})
	if err != nil {
		return PipelineSpec{}, err
	}
	return s, nil
}

// Validate reports every fault at once, joined; each is a [FieldError]. It uses the default [Limits].
func (s PipelineSpec) Validate() error {
	return s.normalized().validate(Limits{}.withDefaults())
}

// normalized returns a copy that shares nothing with s, with the ids filled in.
func (s PipelineSpec) normalized() PipelineSpec {
	s.Steps = cloneSteps(s.Steps)
	s.Finally = cloneSteps(s.Finally)
	s.Metadata = maps.Clone(s.Metadata)
	s.Retry = clonePtr(s.Retry)
	for i := range s.Steps {
		if s.Steps[i].ID == "" {
			s.Steps[i].ID = strconv.Itoa(i + 1)
		}
	}
	return s
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

func (s PipelineSpec) validate(limits Limits) error {
	var f faults
	f.name("name", s.Name)
	f.name("resource", s.Resource)
	if len(s.Steps) == 0 {
		f.add(invalid("steps", "has none; a pipeline needs at least one"))
	}
	if len(s.Steps) > limits.Steps {
		f.add(tooLarge("steps", len(s.Steps), limits.Steps, "steps"))
	}
	positions := map[string]int{}
	for i, step := range s.Steps[:min(len(s.Steps), limits.Steps)] {
		field := fmt.Sprintf("steps[%d]", i)
		step.validate(field, &f, limits)
		if first, taken := positions[step.ID]; taken {
			f.add(invalid(field+".id", "%q is the id of steps[%d] too", cut(step.ID, maxName), first))
		} else {
			positions[step.ID] = i
		}
	}
	if s.Timeout < 0 {
		f.add(invalid("timeout", "%s is negative", s.Timeout))
	}
	if s.Retry != nil {
		s.Retry.validate("retry", &f)
	}
	s.refuseUnsupported(&f)
	if doc, err := marshal(s); err != nil {
		if len(f.errs) == 0 { // or else that is why
			f.add(invalid("", "cannot be written as JSON: %v", err))
		}
	} else if len(doc) > limits.Document {
		f.add(tooLarge("", len(doc), limits.Document, "bytes as a document"))
	}
	return f.join()
}

func (s PipelineSpec) refuseUnsupported(f *faults) {
	const later = "is not supported yet"
	if len(s.Finally) > 0 {
		f.add(invalid("finally", later))
	}
	if s.Resync != 0 {
		f.add(invalid("resync", later))
	}
	if s.OnChange > Coalesce {
		f.add(invalid("onChange", "%q %s", s.OnChange, later))
	}
	for i, step := range s.Steps {
		if len(step.After) > 0 {
			f.add(invalid(fmt.Sprintf("steps[%d].after", i), later))
		}
		if step.ContinueOnError {
			f.add(invalid(fmt.Sprintf("steps[%d].continueOnError", i), later))
		}
	}
}

func (s Step) validate(field string, f *faults, limits Limits) {
	f.name(field+".id", s.ID)
	f.name(field+".driver", s.Driver)
	if s.Timeout < 0 {
		f.add(invalid(field+".timeout", "%s is negative", s.Timeout))
	}
	if s.Retry != nil {
		s.Retry.validate(field+".retry", f)
	}
	if len(s.With) > 0 {
		f.add(checkJSON(field+".with", s.With, limits))
	}
}

// A plan is what a run pins when it starts: its steps, and what must be done before each. A plan never changes, and
// is shared by the runs of one pipeline.
type plan struct {
	Steps   []Step       `json:"steps"`
	Timeout Duration     `json:"timeout,omitzero"`
	Retry   *RetryPolicy `json:"retry,omitempty"`
	// Independent steps start at once, and one that fails holds up no other: the drivers that listen to a type.
	Independent bool `json:"independent,omitempty"`
}

func (s PipelineSpec) plan() *plan {
	return &plan{Steps: s.Steps, Timeout: s.Timeout, Retry: s.Retry}
}

// listenersPlan is the plan of a resource without a pipeline: a step for each driver, named after it.
func listenersPlan(drivers []string) *plan {
	p := &plan{Independent: true}
	for _, d := range drivers {
		p.Steps = append(p.Steps, Step{ID: d, Driver: d})
	}
	return p
}

// index returns the position of the step with the id, or -1.
func (p *plan) index(id string) int {
	return slices.IndexFunc(p.Steps, func(s Step) bool { return s.ID == id })
}

// next decides: it returns the steps that may start now, in order, and whether the run is over. The states are what
// is recorded of the steps, by position; a retry or a wait that has come due is given as queued. A run that is to
// stop starts nothing and is over as soon as nothing runs.
//
// Invariant: a step is never returned before each of the steps it depends on has a recorded success or skip.
func (p *plan) next(states []State, stop bool) (start []int, over bool) {
	active := false // something still runs, or shall run again
	failed := false
	for _, s := range states {
		switch s {
		case StateRunning:
			active = true
		case StateRetrying, StateWaiting:
			active = active || !stop
		case StateFailed:
			failed = true
		}
	}
	if stop || failed && !p.Independent {
		return nil, !active
	}
	for i, s := range states {
		if s == StateSucceeded || s == StateSkipped {
			continue
		}
		if s.startable() {
			start = append(start, i)
		}
		if !p.Independent {
			break // strict order: nothing after the first unfinished step
		}
	}
	return start, !active && len(start) == 0
}

// startable says that a step waits for nothing but its turn: it never began, or shall begin again.
func (s State) startable() bool {
	return s == StateUnset || s == StateQueued || s == StateBlocked
}

// outcome decides how a run that is over has ended. The step is the one that made it fail, or -1.
func (p *plan) outcome(states []State, stop stopKind) (end State, step int) {
	failed := slices.Index(states, StateFailed)
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

// stopKind says why a run shall end before its steps are done.
type stopKind string

const (
	stopNone      stopKind = ""
	stopHalt      stopKind = "halt"
	stopCancel    stopKind = "cancel"
	stopTimeout   stopKind = "timeout"
	stopSupersede stopKind = "supersede"
)
