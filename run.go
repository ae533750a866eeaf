package conveyor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/chart"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/text"
)

// State is the state of a run or of a step. The zero value means unset. No run and no step that the engine returns has it.
type State uint8

const (
	StateUnset      State = iota // no state; a field of an event or a request that has no meaning there
	StatePending                 // of a step: not begun
	StateQueued                  // waits for an earlier run, for a worker, or for a slot of its driver
	StateRunning                 // an attempt is running
	StateRetrying                // an attempt failed, and the next one has a due time
	StateWaiting                 // the driver asked to be called again later
	StateBlocked                 // cannot continue until something is corrected; for example, a missing driver is registered
	StateSucceeded               // final
	StateFailed                  // final
	StateSkipped                 // final: not needed, or no driver was there to do it
	StateCanceled                // final: ended by Cancel
	StateSuperseded              // final: ended by a newer generation
)

// String returns the name that documents use, and "unset" for the zero value.
func (s State) String() string { return plan.State(s).String() }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (s State) MarshalText() ([]byte, error) { return plan.State(s).MarshalText() }

// UnmarshalText accepts exactly what MarshalText returns.
func (s *State) UnmarshalText(b []byte) error { return (*plan.State)(s).UnmarshalText(b) }

// Final reports whether s is final: a run or a step in a final state does not change any more.
func (s State) Final() bool { return plan.State(s).Final() }

// Cause is the reason why a run exists.
type Cause uint8

const (
	CauseCreated   Cause = iota + 1 // the resource is new
	CauseUpdated                    // the spec or the pipeline of the resource changed
	CauseDeleted                    // the resource is to be deleted
	CauseResync                     // the pipeline's Resync asked for it, some time after a success
	CauseTriggered                  // the program asked for it
	CauseRetried                    // the run repeats an earlier run
)

// String returns the name that documents use, and "unset" for the zero value.
func (c Cause) String() string { return record.Cause(c).String() }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (c Cause) MarshalText() ([]byte, error) { return record.Cause(c).MarshalText() }

// UnmarshalText accepts exactly what MarshalText returns.
func (c *Cause) UnmarshalText(b []byte) error { return (*record.Cause)(c).UnmarshalText(b) }

// ErrorKind is the kind of a failure of an attempt, a step or a run. There are few kinds, so that they can be the labels of a
// metric. They have the names that OpenTelemetry uses for the results of pipeline runs. The zero value, an empty text, means
// that there is no failure.
type ErrorKind string

const (
	KindFailure      ErrorKind = "failure"      // a driver has returned an error: the work has failed
	KindError        ErrorKind = "error"        // what carries out the work has failed: a panic, a store, too many interruptions, the steps of a Planner
	KindTimeout      ErrorKind = "timeout"      // an attempt or a run took too long
	KindCancellation ErrorKind = "cancellation" // canceled or superseded
	KindSkip         ErrorKind = "skip"         // not needed, or no driver was there to do it
)

// Run is the work on one generation of a resource along its pipeline. It is a plain value: the run as it was when it
// was read.
type Run struct {
	ID       string `json:"id"` // sorts by CreatedAt
	Resource Key    `json:"resource"`
	// Number counts the runs of the resource from 1, in the order of their creation. It goes on when the resource is
	// deleted and its name is used again. It is 0 for a run that was made before runs had numbers.
	Number     int64  `json:"number,omitempty"`
	ResourceID string `json:"resourceId"` // the ID of the resource, which identifies the incarnation of the name
	Generation int64  `json:"generation"` // what the run reconciles; a queued run can take up a newer generation
	Pipeline   string `json:"pipeline,omitempty"`
	Cause      Cause  `json:"cause"`
	State      State  `json:"state"`
	Reason     string `json:"reason,omitempty"` // the reason for the state, if the state alone does not explain it
	// ErrorKind and ErrorReason say why an ended run has not succeeded, in values of which there are few. ErrorReason is what
	// the driver of the failed step gave to [Reason].
	ErrorKind   ErrorKind `json:"errorKind,omitempty"`
	ErrorReason string    `json:"errorReason,omitempty"`
	// By is the actor who asked for the run, and "conveyor" if the engine made it by itself. If the run has taken up a later
	// change, it is the actor of that change. StoppedBy is the actor who canceled the run, or whose change superseded it, or who
	// deleted the resource. Both are empty if nobody was named (see [As]).
	By        string `json:"by,omitempty"`
	StoppedBy string `json:"stoppedBy,omitempty"`
	// Carried is what [Options].Carry returned when the run was asked for.
	Carried map[string]string `json:"carried,omitempty"`
	// WaitsFor is what the run waits for in the engine that was asked, at the moment and in words: "a worker",
	// `a slot of driver "name"`, `room in pipeline "name"` (see [PipelineSpec].MaxRuns), or "the return of an abandoned
	// call" of a driver for the same resource. The run gets all of them without anybody's help. WaitsFor is not recorded.
	// [Engine.GetRun] and [Engine.Runs] alone fill it in, for an unfinished run of a started engine.
	WaitsFor []string `json:"waitsFor,omitempty"`
	// Steps are the steps that were pinned when the run started, in order, followed by the Finally steps. A run that
	// has not started has no Steps.
	Steps     []StepRun `json:"steps,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	EndedAt   time.Time `json:"endedAt,omitzero"`
	Deadline  time.Time `json:"deadline,omitzero"` // from the Timeout of the pipeline; zero if there is none; it moves while Finally waits to be called
	Of        string    `json:"of,omitempty"`      // the run that this one repeats (see [Engine.Retry]); it can be gone once this one has ended

	stop   plan.Stop
	failed int // position of the step that made the run fail, or -1
}

// StepRun is one step of a run.
type StepRun struct {
	Step
	// Finally reports whether the step is one of the pipeline's Finally steps.
	Finally bool   `json:"finally,omitempty"`
	State   State  `json:"state"`
	Reason  string `json:"reason,omitempty"` // the reason of a skip, a halt or a block; or the last error
	// ErrorKind and ErrorReason are those of the newest failed attempt, until an attempt does not fail.
	ErrorKind   ErrorKind `json:"errorKind,omitempty"`
	ErrorReason string    `json:"errorReason,omitempty"`
	// Attempt is the number of the newest attempt; 0 before the first one, and for a step that ended without a call of its
	// driver.
	Attempt int `json:"attempt,omitempty"`
	// Attempts are the ended attempts, the oldest first. Only the newest [Limits].Attempts of them are kept. Calls
	// that ended in a requeue or were interrupted are counted only.
	Attempts      []Attempt       `json:"attempts,omitempty"`
	Requeues      int             `json:"requeues,omitempty"`      // number of requeues
	Interruptions int             `json:"interruptions,omitempty"` // number of interruptions by crashes, shutdowns and newer generations
	Output        json.RawMessage `json:"output,omitempty"`        // the value that the driver passed to DoneWith
	StartedAt     time.Time       `json:"startedAt,omitzero"`      // start of the newest attempt
	EndedAt       time.Time       `json:"endedAt,omitzero"`        // time at which the step reached a final state
	Due           time.Time       `json:"due,omitzero"`            // time of the next call, for the states retrying and waiting
	Awaiting      string          `json:"awaiting,omitempty"`      // the signal for which a waiting step waits
	// Waits are the waits for signals, the oldest first. Only the newest 32 of them are kept.
	Waits []Wait `json:"waits,omitempty"`
}

// Wait is a period in which a step waited for a signal.
type Wait struct {
	Signal   string    `json:"signal"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to,omitzero"` // zero while the wait lasts
	TimedOut bool      `json:"timedOut,omitempty"`
	By       string    `json:"by,omitempty"` // the actor who sent the signal; see [As]
}

// Attempt is one ended call of a driver.
type Attempt struct {
	Number    int       `json:"number"`
	StartedAt time.Time `json:"startedAt"`
	EndedAt   time.Time `json:"endedAt"`
	Error     string    `json:"error,omitempty"` // empty for a success; cut to [Limits].ErrorText
	Stack     string    `json:"stack,omitempty"` // stack of a panic; cut to [Limits].ErrorText
	Frame     string    `json:"frame,omitempty"` // where the program panicked; see [PanicError]
	// ErrorKind is the kind of Error, and ErrorReason is what the driver gave to [Reason]. Both are empty for a success.
	ErrorKind   ErrorKind `json:"errorKind,omitempty"`
	ErrorReason string    `json:"errorReason,omitempty"`

	kinds *errorKinds // of Error; nil for a success
}

// errorKinds are what [errors.Is] and [errors.As] find in a recorded error.
type errorKinds struct {
	first  fault.Kind
	others []fault.Kind
	field  *fault.Field // the first FieldError; nil if there is none
}

// Step returns the step with the given id, or nil if there is none.
func (r *Run) Step(id string) *StepRun {
	i := slices.IndexFunc(r.Steps, func(s StepRun) bool { return s.ID == id })
	if i < 0 {
		return nil
	}
	return &r.Steps[i]
}

// Err returns nil if the run succeeded, was skipped, or has not ended. For a failed run it returns a [*StepError]
// that wraps the error of the attempt, or an [ErrTimeout] if the run took too long, or otherwise an error with the
// reason. For a canceled run it returns an [ErrCanceled], and for a superseded run an [ErrSuperseded].
func (r *Run) Err() error {
	switch r.State {
	case StateCanceled:
		return fmt.Errorf("run %s: %w: %s", r.ID, ErrCanceled, text.Plain(r.Reason))
	case StateSuperseded:
		return fmt.Errorf("run %s: %w: %s", r.ID, ErrSuperseded, text.Plain(r.Reason))
	case StateFailed:
		if r.stop == plan.StopTimeout {
			return fmt.Errorf("run %s: %w: %s", r.ID, ErrTimeout, text.Plain(r.Reason))
		}
		if r.failed >= 0 && r.failed < len(r.Steps) {
			return r.Steps[r.failed].err(r.ID)
		}
		return fmt.Errorf("conveyor: run %s: %s", r.ID, text.Plain(r.Reason))
	default:
		return nil
	}
}

// err returns the error of a step that made its run fail.
func (s *StepRun) err(run string) error {
	e := &StepError{Run: run, Step: s.ID, Driver: s.Driver, Attempt: s.Attempt, Err: errors.New(s.Reason)}
	if n := len(s.Attempts); n > 0 && s.Attempts[n-1].Error == s.Reason {
		e.Err = rebuildError(&s.Attempts[n-1])
	}
	return e
}

// Mermaid writes the run as a Mermaid flowchart of its pinned steps, coloured by their states. A run that has not
// started has no steps to draw. Mermaid returns the error of w.
func (r *Run) Mermaid(w io.Writer) error {
	p := &plan.Plan{Rule: plan.PresentRule, Independent: r.Pipeline == ""}
	steps := make([]chart.Step, len(r.Steps))
	for i := range r.Steps {
		steps[i] = chart.Step{State: plan.State(r.Steps[i].State), Attempt: r.Steps[i].Attempt}
		if r.Steps[i].Finally {
			p.Finally = append(p.Finally, toStep(r.Steps[i].Step))
		} else {
			p.Steps = append(p.Steps, toStep(r.Steps[i].Step))
		}
	}
	p.Planned = len(p.Steps) > 0 && p.Steps[0].ID == PlanStep
	return chart.Write(w, p.Ready(), steps)
}
