package conveyor

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
)

// State is how far a run or a step is. The zero value means unset: a step that has not begun.
type State uint8

const (
	StateUnset      State = iota // not begun
	StateQueued                  // waits for its turn: for a run before it, for a worker, or for a slot of its driver
	StateRunning                 // an attempt is under way
	StateRetrying                // an attempt failed and the next one has a due time
	StateWaiting                 // the driver asked to be called again later
	StateBlocked                 // cannot go on until something is mended, such as a driver that is not registered
	StateSucceeded               // final
	StateFailed                  // final
	StateSkipped                 // final: not needed, or nobody was there to do it
	StateCanceled                // final: ended by Cancel
	StateSuperseded              // final: ended by a newer generation

	numStates // how many there are
)

var stateNames = enum[State]{what: "state", names: []string{"", "queued", "running", "retrying", "waiting", "blocked",
	"succeeded", "failed", "skipped", "canceled", "superseded"}}

// String gives the name that documents use, and "unset" for the zero value.
func (s State) String() string { return stateNames.text(s) }

// MarshalText gives the name that documents use, and nothing for the zero value.
func (s State) MarshalText() ([]byte, error) { return stateNames.marshal(s) }

// UnmarshalText reads what MarshalText writes, and nothing else.
func (s *State) UnmarshalText(b []byte) error { return stateNames.unmarshal(b, s) }

// Final reports whether nothing more will happen to a run or step in this state.
func (s State) Final() bool { return s >= StateSucceeded }

// Cause is why a run exists.
type Cause uint8

const (
	CauseCreated   Cause = iota + 1 // the resource is new
	CauseUpdated                    // its spec or pipeline changed
	CauseDeleted                    // it is to be removed
	CauseResync                     // the pipeline asks for it, some time after a success
	CauseTriggered                  // the program asked for it
	CauseRetried                    // it repeats an earlier run
)

var causeNames = enum[Cause]{what: "cause", names: []string{"", "created", "updated", "deleted", "resync", "triggered", "retried"}}

// String gives the name that documents use, and "unset" for the zero value.
func (c Cause) String() string { return causeNames.text(c) }

// MarshalText gives the name that documents use, and nothing for the zero value.
func (c Cause) MarshalText() ([]byte, error) { return causeNames.marshal(c) }

// UnmarshalText reads what MarshalText writes, and nothing else.
func (c *Cause) UnmarshalText(b []byte) error { return causeNames.unmarshal(b, c) }

// Run is one journey of one generation of a resource along its pipeline: a plain value, as it was when it was read.
type Run struct {
	ID         string `json:"id"` // sorts by CreatedAt
	Resource   Key    `json:"resource"`
	ResourceID string `json:"resourceId"` // the incarnation of the name
	Generation int64  `json:"generation"` // a queued run takes up a newer one that comes before it starts
	Pipeline   string `json:"pipeline,omitempty"`
	Cause      Cause  `json:"cause"`
	State      State  `json:"state"`
	Reason     string `json:"reason,omitempty"` // why it is in this state, where the state does not say all
	// Steps are those pinned when the run started, in order, and then those of Finally; none before that.
	Steps     []StepRun `json:"steps,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	EndedAt   time.Time `json:"endedAt,omitzero"`
	Deadline  time.Time `json:"deadline,omitzero"` // from the pipeline's Timeout; zero when there is none
	Of        string    `json:"of,omitempty"`      // the run that this one repeats (see [Engine.Retry])

	stop   stopKind
	failed int // position of the step that made it fail, or -1
}

// StepRun is one step of a run.
type StepRun struct {
	Step
	// Finally tells that the step is one of the pipeline's Finally.
	Finally bool   `json:"finally,omitempty"`
	State   State  `json:"state"`
	Reason  string `json:"reason,omitempty"` // of a skip, a halt, a block; or the last error
	// Attempt is the number of the newest attempt; 0 before the first.
	Attempt int `json:"attempt,omitempty"`
	// Attempts are the ended ones, the oldest first, at most [Limits].Attempts of them, the newest. Calls that ended
	// in a requeue or were interrupted are only counted.
	Attempts      []Attempt       `json:"attempts,omitempty"`
	Requeues      int             `json:"requeues,omitempty"`
	Interruptions int             `json:"interruptions,omitempty"` // by crashes, shutdowns and newer generations
	Output        json.RawMessage `json:"output,omitempty"`        // what the driver gave to DoneWith
	StartedAt     time.Time       `json:"startedAt,omitzero"`      // of the newest attempt
	EndedAt       time.Time       `json:"endedAt,omitzero"`        // when the step reached a final state
	Due           time.Time       `json:"due,omitzero"`            // when it is called again, for retrying and waiting
	Awaiting      string          `json:"awaiting,omitempty"`      // the signal that a waiting step waits for
	// Waits are the waits for signals, the oldest first, at most 32 of them, the newest.
	Waits []Wait `json:"waits,omitempty"`
}

// Wait is a time in which a step waited for a signal.
type Wait struct {
	Signal   string    `json:"signal"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to,omitzero"` // zero while it lasts
	TimedOut bool      `json:"timedOut,omitempty"`
}

// Attempt is one ended call of a driver.
type Attempt struct {
	Number    int       `json:"number"`
	StartedAt time.Time `json:"startedAt"`
	EndedAt   time.Time `json:"endedAt"`
	Error     string    `json:"error,omitempty"` // empty for a success; cut to [Limits].ErrorText
	Stack     string    `json:"stack,omitempty"` // of a panic; cut to [Limits].ErrorText

	kind fault.Kind
}

// Step returns the step with the id, or nil.
func (r *Run) Step(id string) *StepRun {
	i := slices.IndexFunc(r.Steps, func(s StepRun) bool { return s.ID == id })
	if i < 0 {
		return nil
	}
	return &r.Steps[i]
}

// Err returns nil for a run that succeeded, was skipped, or has not ended. For one that failed it is a [*StepError]
// with the attempt's error inside, or an [ErrTimeout] for a run that took too long, or else an error that gives the
// reason. For the others it is an [ErrCanceled] or an [ErrSuperseded].
func (r *Run) Err() error {
	switch r.State {
	case StateCanceled:
		return fmt.Errorf("run %s: %w: %s", r.ID, ErrCanceled, r.Reason)
	case StateSuperseded:
		return fmt.Errorf("run %s: %w: %s", r.ID, ErrSuperseded, r.Reason)
	case StateFailed:
		if r.stop == stopTimeout {
			return fmt.Errorf("run %s: %w: %s", r.ID, ErrTimeout, r.Reason)
		}
		if r.failed >= 0 && r.failed < len(r.Steps) {
			return r.Steps[r.failed].err(r.ID)
		}
		return fmt.Errorf("conveyor: run %s: %w", r.ID, errors.New(r.Reason))
	default:
		return nil
	}
}

func (s *StepRun) err(run string) error {
	e := &StepError{Run: run, Step: s.ID, Driver: s.Driver, Attempt: s.Attempt, Err: errors.New(s.Reason)}
	if n := len(s.Attempts); n > 0 && s.Attempts[n-1].Error == s.Reason {
		last := s.Attempts[n-1]
		e.Err = rebuildError(last.kind, last.Error, last.Stack)
	}
	return e
}

// Event tells of one thing that happened, after it was recorded.
type Event struct {
	// Cursor is the place of the event in the stream; give it to [WatchOptions].Since to go on after it.
	Cursor   Cursor    `json:"cursor"`
	Time     time.Time `json:"time"`
	Kind     EventKind `json:"kind"`
	Resource Key       `json:"resource,omitzero"`
	Pipeline string    `json:"pipeline,omitempty"` // EventPipeline only
	Run      string    `json:"run,omitempty"`
	Step     string    `json:"step,omitempty"` // its id, for EventStep
	State    State     `json:"state,omitzero"` // that the run or the step has now
	Attempt  int       `json:"attempt,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// Cursor is a place in the stream of an engine's events. It is opaque, and means nothing to another engine.
type Cursor string

// EventKind says what an event is about.
type EventKind uint8

const (
	EventResource EventKind = iota + 1 // a resource was created or changed, or is gone
	EventPipeline                      // a pipeline was saved or deleted
	EventRun                           // a run was queued, started or ended
	EventStep                          // a step changed its state; the end of a run settles the steps that it leaves, without events
	EventGap                           // an [Observer] has missed events that are no longer kept
)

var eventKindNames = enum[EventKind]{what: "event kind", names: []string{"", "resource", "pipeline", "run", "step", "gap"}}

// String gives the name that documents use, and "unset" for the zero value.
func (k EventKind) String() string { return eventKindNames.text(k) }

// MarshalText gives the name that documents use, and nothing for the zero value.
func (k EventKind) MarshalText() ([]byte, error) { return eventKindNames.marshal(k) }

// UnmarshalText reads what MarshalText writes, and nothing else.
func (k *EventKind) UnmarshalText(b []byte) error { return eventKindNames.unmarshal(b, k) }

// LogLine is one line that a driver wrote to [Request.Log].
type LogLine struct {
	Seq     int64      `json:"seq"` // counts from 1 in the run; grows, and may skip numbers after a crash
	Time    time.Time  `json:"time"`
	Step    string     `json:"step"`
	Attempt int        `json:"attempt"`
	Level   slog.Level `json:"level"`
	Message string     `json:"message"`
	// Attrs are the line's attributes as a JSON object, groups nested; empty without any.
	Attrs json.RawMessage `json:"attrs,omitempty"`
}

// String gives the line as a person would read it: the level, the message, and the attributes as JSON.
func (l LogLine) String() string {
	if len(l.Attrs) == 0 {
		return l.Level.String() + " " + l.Message
	}
	return l.Level.String() + " " + l.Message + " " + string(l.Attrs)
}

// enum gives an enumeration its names. The zero value has the empty name.
type enum[T ~uint8] struct {
	what  string
	names []string
}

func (e enum[T]) text(v T) string {
	if int(v) >= len(e.names) {
		return fmt.Sprintf("%s(%d)", e.what, v)
	}
	if v == 0 {
		return "unset"
	}
	return e.names[v]
}

func (e enum[T]) marshal(v T) ([]byte, error) {
	if int(v) >= len(e.names) {
		return nil, fmt.Errorf("%w: %s %d", ErrInvalid, e.what, v)
	}
	return []byte(e.names[v]), nil
}

func (e enum[T]) unmarshal(text []byte, into *T) error {
	i := slices.Index(e.names, string(text))
	if i < 0 {
		return fmt.Errorf("%q is no %s", text, e.what)
	}
	*into = T(i)
	return nil
}
