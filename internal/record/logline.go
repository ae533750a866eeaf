package record

import (
	"encoding/json"
	"log/slog"
	"time"
)

// LogLine is one log line that a driver wrote during a call.
type LogLine struct {
	Seq     int64      `json:"seq"` // counts from 1 in the run; it grows, and can skip numbers after a crash
	Time    time.Time  `json:"time"`
	Step    string     `json:"step"`
	Attempt int        `json:"attempt"`
	Level   slog.Level `json:"level"`
	Message string     `json:"message"`
	// Attrs are the attributes of the line as a JSON object, with groups nested. Attrs is empty if there are none.
	Attrs json.RawMessage `json:"attrs,omitempty"`
}

// String returns the line in readable form: the level, the message, and the attributes as JSON.
func (l LogLine) String() string {
	if len(l.Attrs) == 0 {
		return l.Level.String() + " " + l.Message
	}
	return l.Level.String() + " " + l.Message + " " + string(l.Attrs)
}
