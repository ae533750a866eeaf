package document

import (
	"fmt"
	"time"
)

// Duration is a [time.Duration] that documents write as text, such as "1m30s" (see [time.ParseDuration]).
type Duration time.Duration

// String returns the same text as [time.Duration].
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns a text that UnmarshalText accepts.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts what [time.ParseDuration] accepts.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration such as \"1m30s\"", text)
	}
	*d = Duration(parsed)
	return nil
}
