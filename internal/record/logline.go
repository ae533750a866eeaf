package record

import (
	"encoding/json"
	"log/slog"
	"time"
)

// LogLine is one log line that a driver wrote during a call.
type LogLine struct {
	Seq     int64      `json:"seq"` // grows within the run; see [FirstLine]
	Time    time.Time  `json:"time"`
	Step    string     `json:"step"`
	Attempt int        `json:"attempt"`
	Level   slog.Level `json:"level"`
	Message string     `json:"message"`
	// Attrs are the attributes of the line as a JSON object, with groups nested. Attrs is empty if there are none.
	Attrs json.RawMessage `json:"attrs,omitempty"`
	// Dropped, if not 0, is the number of lines of the step that are not kept and for which this line stands. Its Seq is
	// that of the last of them.
	Dropped int64 `json:"dropped,omitempty"`
}

// FirstLine returns the number after which the lines of a run are numbered. last is the number of the last line on
// record. A process shows lines before it writes them, so that a number that is not on record can have been given to a
// line that was lost in a crash. The lines after the crash get numbers that no process before has reached: they begin at
// the next multiple of 2^40.
func FirstLine(last int64, epoch int) int64 { return max(last, int64(epoch)<<40) }

// String returns the line in readable form: the level, the message, and the attributes as JSON.
func (l LogLine) String() string {
	if len(l.Attrs) == 0 {
		return l.Level.String() + " " + l.Message
	}
	return l.Level.String() + " " + l.Message + " " + string(l.Attrs)
}
