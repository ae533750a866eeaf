package record

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
)

// Step is the record of the present state of a step. Failed attempts that have ended have records of their own; see
// [Attempt].
type Step struct {
	State   plan.State `json:"state"`
	Attempt int        `json:"attempt,omitempty"`
	Settled int        `json:"settled,omitempty"` // attempts that count no longer, because an answer without an error came after them
	Started Time       `json:"started,omitempty"` // start of the newest attempt
	Ended   Time       `json:"ended,omitempty"`
	Due     Time       `json:"due,omitempty"`
	// Delay is how long the step was to wait when Due was recorded. Files of earlier versions do not have it.
	Delay  time.Duration `json:"delay,omitempty"`
	Reason string        `json:"reason,omitempty"`
	// Resumed means that an earlier call of this attempt began and has no outcome.
	Resumed bool `json:"resumed,omitempty"`
	// Again means that the next call belongs to this attempt, because of a requeue, a wait or an interruption.
	Again bool `json:"again,omitempty"`
	// Refused means that the host had no capacity for the call, so that the step waits to be called and not for something
	// of its own.
	Refused bool `json:"refused,omitempty"`
	// Halted means that the step has ended the run by a halt.
	Halted        bool `json:"halted,omitempty"`
	Requeues      int  `json:"requeues,omitempty"`
	Interruptions int  `json:"interruptions,omitempty"` // of all attempts of the step
	// Crashes counts the deaths of the process since the step made progress while the step was the only one at work.
	Crashes int `json:"crashes,omitempty"`
	Lines   int `json:"lines,omitempty"` // log lines that are kept of the step
	// LogEpoch is RunState.LogEpoch as it was when the newest call began.
	LogEpoch int             `json:"logEpoch,omitempty"`
	Output   json.RawMessage `json:"output,omitempty"`
	Await    string          `json:"await,omitempty"` // the signal that a waiting step waits for
	// Signal is the payload that ended the last wait. TimedOut means that the last wait ended without a signal. Both stay
	// until the step has an outcome, so that a repeated call receives them too.
	Signal     json.RawMessage `json:"signal,omitempty"`
	SignalFrom *Origin         `json:"signalFrom,omitempty"` // of Signal; nil if it names nobody and carries nothing
	TimedOut   bool            `json:"timedOut,omitempty"`
	Waits      []Wait          `json:"waits,omitempty"`
	Failure                    // of the newest attempt that has an outcome
}

// Wait is one wait of a step for a signal.
type Wait struct {
	Signal   string `json:"signal"`
	From     Time   `json:"from"`
	To       Time   `json:"to,omitempty"` // 0 until the wait has ended
	TimedOut bool   `json:"timedOut,omitempty"`
	By       string `json:"by,omitempty"` // who has sent the signal
}

// Why says why the step has not succeeded, as events tell it. It is empty of a step that goes on, whose failure is that of an
// earlier attempt.
func (s *Step) Why() Failure {
	switch {
	case s.State == plan.Skipped:
		return Failure{Class: fault.ClassSkip}
	case s.State == plan.Retrying, s.State.Final():
		return s.Failure
	}
	return Failure{}
}

// Begin records that a call is about to be made. The call gets a new attempt number unless Again is set.
func (s *Step) Begin(now Time) {
	if !s.Again {
		s.Attempt++
	}
	s.State, s.Started, s.Reason, s.Refused = plan.Running, now, "", false
	s.WaitFor(0, 0)
}

// ClockTolerance is by how much a recorded time can seem to lie in the future before the clock counts as set back.
const ClockTolerance = Time(time.Second)

// WaitsFromLater reports whether the step waits for a time, and the wait was recorded at a time that has not come: the
// clock was set back.
func (s *Step) WaitsFromLater(now Time) bool {
	return (s.State == plan.Retrying || s.State == plan.Waiting) && s.Delay > 0 && s.Due.Add(-s.Delay) > now+ClockTolerance
}

// WaitFor records that the step waits for a time, from now on. A delay of 0 means that it waits for no time.
func (s *Step) WaitFor(now Time, delay time.Duration) {
	s.Due, s.Delay = 0, delay
	if delay > 0 {
		s.Due = now.Add(delay)
	}
}

// Called reports whether the driver may have been called. It was not while the host has refused the first call.
func (s *Step) Called() bool {
	refused := s.Attempt == 1 && s.Refused && s.Requeues == 0 && s.Interruptions == 0 && len(s.Waits) == 0
	return s.Attempt > 0 && !refused
}

// Interrupt records that the call of the step ended without an outcome. The next call has the same attempt number.
func (s *Step) Interrupt() {
	s.State, s.Resumed, s.Again = plan.Queued, true, true
	s.Interruptions++
}

// WakeUp records the end of a wait by a signal; nil means that the wait has timed out.
func (s *Step) WakeUp(now Time, by *Signal) {
	s.State, s.Await, s.Reason = plan.Queued, "", ""
	s.WaitFor(0, 0)
	s.Signal, s.SignalFrom, s.TimedOut = nil, nil, by == nil
	if by != nil {
		s.Signal = by.Payload
		if by.By != "" || len(by.Carried) > 0 {
			s.SignalFrom = &by.Origin
		}
	}
	s.Waits = slices.Clone(s.Waits)
	if n := len(s.Waits); n > 0 {
		s.Waits[n-1].To, s.Waits[n-1].TimedOut = now, s.TimedOut
		if by != nil {
			s.Waits[n-1].By = by.By
		}
	}
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (s *Step) Check() string {
	return unless(s.State > plan.Pending && s.Attempt >= 0, "is a step that has not begun")
}

// AppendJSON appends the JSON of the record to b.
func (s *Step) AppendJSON(b []byte) []byte {
	w := writer{append(b, '{')}
	w.text("state", plan.StateNames.Names[s.State], true)
	w.int("attempt", int64(s.Attempt), false)
	w.int("settled", int64(s.Settled), false)
	w.int("started", int64(s.Started), false)
	w.int("ended", int64(s.Ended), false)
	w.int("due", int64(s.Due), false)
	w.int("delay", int64(s.Delay), false)
	w.text("reason", s.Reason, false)
	w.bool("resumed", s.Resumed)
	w.bool("again", s.Again)
	w.bool("refused", s.Refused)
	w.bool("halted", s.Halted)
	w.int("requeues", int64(s.Requeues), false)
	w.int("interruptions", int64(s.Interruptions), false)
	w.int("crashes", int64(s.Crashes), false)
	w.int("lines", int64(s.Lines), false)
	w.int("logEpoch", int64(s.LogEpoch), false)
	w.raw("output", s.Output)
	w.text("await", s.Await, false)
	w.raw("signal", s.Signal)
	if s.SignalFrom != nil {
		w.Key("signalFrom")
		w.b = s.SignalFrom.appendObject(w.b)
	}
	w.bool("timedOut", s.TimedOut)
	if len(s.Waits) > 0 {
		w.raw("waits", Encode(s.Waits))
	}
	s.Failure.append(&w)
	return append(w.b, '}')
}
