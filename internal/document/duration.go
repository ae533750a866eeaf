package document

import (
	"time"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/text"
)

// Duration is a [time.Duration] that documents write as text, such as "1m30s" (see [time.ParseDuration]).
type Duration time.Duration

// String returns the same text as [time.Duration].
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns a text that UnmarshalText accepts.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts what [time.ParseDuration] accepts. For every other text, it returns a [fault.Text].
func (d *Duration) UnmarshalText(b []byte) error {
	parsed, err := time.ParseDuration(string(b))
	if err != nil {
		return &fault.Text{Problem: text.Quote(string(b)) + ` is no duration such as "1m30s"`}
	}
	*d = Duration(parsed)
	return nil
}
