package record

import (
	"encoding/json"
	"slices"

	"github.com/conveyor-go/conveyor/internal/plan"
)

// Step is where a step is now. Its ended attempts that failed have records of their own.
type Step struct {
	State   plan.State `json:"state"`
	Attempt int        `json:"attempt,omitempty"`
	Started Time       `json:"started,omitempty"` // of the newest attempt
	Ended   Time       `json:"ended,omitempty"`
	Due     Time       `json:"due,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	// Resumed is set when a call of this attempt began and has no outcome.
	Resumed bool `json:"resumed,omitempty"`
	// Again is set when the next call has the number of this attempt: after a requeue or an interruption.
	Again         bool            `json:"again,omitempty"`
	Requeues      int             `json:"requeues,omitempty"`
	Interruptions int             `json:"interruptions,omitempty"` // of all its attempts
	Crashes       int             `json:"crashes,omitempty"`       // interruptions by the death of the process
	Lines         int             `json:"lines,omitempty"`         // of log, kept
	Output        json.RawMessage `json:"output,omitempty"`
	Await         string          `json:"await,omitempty"` // the signal that a waiting step waits for
	// Signal is what the step has waited for and got; TimedOut tells that it came to nothing. They stay until the step
	// has an outcome, so that a repeated attempt sees them too.
	Signal   json.RawMessage `json:"signal,omitempty"`
	TimedOut bool            `json:"timedOut,omitempty"`
	Waits    []Wait          `json:"waits,omitempty"`
}

type Wait struct {
	Signal   string `json:"signal"`
	From     Time   `json:"from"`
	To       Time   `json:"to,omitempty"` // 0 while it lasts
	TimedOut bool   `json:"timedOut,omitempty"`
}

// Begin makes the record say that a call is about to be made.
func (s *Step) Begin(now Time) {
	if !s.Again {
		s.Attempt++
	}
	s.State, s.Started, s.Due, s.Reason = plan.Running, now, 0, ""
}

// Interrupt makes a step whose call was cut short ready to be called again, with the same number.
func (s *Step) Interrupt() {
	s.State, s.Resumed, s.Again = plan.Queued, true, true
	s.Interruptions++
}

// WakeUp ends a wait: with the payload of the signal, or in vain.
func (s *Step) WakeUp(now Time, payload json.RawMessage) {
	s.State, s.Await, s.Due, s.Reason = plan.Queued, "", 0, ""
	s.Signal, s.TimedOut = payload, payload == nil
	s.Waits = slices.Clone(s.Waits)
	if n := len(s.Waits); n > 0 {
		s.Waits[n-1].To, s.Waits[n-1].TimedOut = now, s.TimedOut
	}
}

func (s *Step) Check() string {
	return unless(s.State != plan.Unset && s.Attempt >= 0, "is a step that has not begun")
}

func (s *Step) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("state", plan.StateNames.Names[s.State], true)
	w.int("attempt", int64(s.Attempt), false)
	w.int("started", int64(s.Started), false)
	w.int("ended", int64(s.Ended), false)
	w.int("due", int64(s.Due), false)
	w.text("reason", s.Reason, false)
	w.bool("resumed", s.Resumed)
	w.bool("again", s.Again)
	w.int("requeues", int64(s.Requeues), false)
	w.int("interruptions", int64(s.Interruptions), false)
	w.int("crashes", int64(s.Crashes), false)
	w.int("lines", int64(s.Lines), false)
	w.raw("output", s.Output)
	w.text("await", s.Await, false)
	w.raw("signal", s.Signal)
	w.bool("timedOut", s.TimedOut)
	if len(s.Waits) > 0 {
		w.raw("waits", Encode(s.Waits))
	}
	return append(w.b, '}')
}
