package plan

import "github.com/conveyor-go/conveyor/internal/document"

// State is the state of a run or of a step. The zero value means unset. In a record, and while a decision is made, a step
// that has not begun is unset.
type State uint8

const (
	Unset      State = iota
	Pending          // a step that has not begun, as a program sees it; no record has this state
	Queued           // waits for an earlier run, for a worker, or for a slot of its driver
	Running          // an attempt is running
	Retrying         // an attempt failed, and the next one has a due time
	Waiting          // the driver asked to be called again later
	Blocked          // cannot continue until something is corrected; for example, a missing driver is registered
	Succeeded        // final
	Failed           // final
	Skipped          // final: not needed, or no driver was there to do it
	Canceled         // final: ended by Cancel
	Superseded       // final: ended by a newer generation

	NumStates // the number of states
)

// StateNames holds the names of the states in documents and records.
var StateNames = document.Enum[State]{What: "state", Names: []string{"", "pending", "queued", "running", "retrying", "waiting", "blocked",
	"succeeded", "failed", "skipped", "canceled", "superseded"}}

// String returns the name that documents use, and "unset" for the zero value.
func (s State) String() string { return StateNames.Text(s) }

// MarshalText returns the name that documents use, and an empty text for the zero value.
func (s State) MarshalText() ([]byte, error) { return StateNames.Marshal(s) }

// UnmarshalText accepts exactly what MarshalText returns.
func (s *State) UnmarshalText(b []byte) error { return StateNames.Unmarshal(b, s) }

// Final reports whether s is final: a run or a step in a final state does not change any more.
func (s State) Final() bool { return s >= Succeeded }

// startable reports whether a step waits for nothing but its turn: it has not begun, or is to begin again.
func (s State) startable() bool {
	return s == Unset || s == Queued || s == Blocked
}
