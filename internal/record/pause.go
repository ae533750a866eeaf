package record

import (
	"strings"

	"github.com/conveyor-go/conveyor/internal/text"
)

// Pause is the record of a pause.
type Pause struct {
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
	At     Time   `json:"at"`
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (p *Pause) Check() string { return unless(p.At > 0, "has no time") }

// Text returns why something is held by the pause.
func (p *Pause) Text() string {
	held := "paused"
	if p.By != "" {
		held += " by " + p.By
	}
	if p.Reason != "" {
		held += ": " + p.Reason
	}
	return held
}

// Held is what a pause can hold. Exactly one of its fields is set.
type Held struct {
	All      bool
	Type     string
	Pipeline string
	Driver   string
	Resource Key
}

// The kinds in the keys of pauses.
const (
	pausedAll      = "all"
	pausedType     = "type/"
	pausedPipeline = "pipeline/"
	pausedDriver   = "driver/"
	pausedResource = "resource/"
)

// PauseKey returns the key of a [Pause]: pse/all, pse/type/NAME, pse/pipeline/NAME, pse/driver/NAME or
// pse/resource/TYPE/NAME.
func PauseKey(h Held) string {
	switch {
	case h.All:
		return PausePrefix + pausedAll
	case h.Type != "":
		return PausePrefix + pausedType + h.Type
	case h.Pipeline != "":
		return PausePrefix + pausedPipeline + h.Pipeline
	case h.Driver != "":
		return PausePrefix + pausedDriver + h.Driver
	}
	return PausePrefix + pausedResource + h.Resource.Type + "/" + h.Resource.Name
}

// ParsePauseKey returns what is paused by the record of a key that [PauseKey] has made. For any other key, it returns an error
// that wraps [store.ErrCorrupt].
func ParsePauseKey(key string) (h Held, err error) {
	rest, ok := strings.CutPrefix(key, PausePrefix)
	kind, name, _ := strings.Cut(rest, "/")
	switch kind + "/" {
	case pausedAll + "/":
		h.All = true
	case pausedType:
		h.Type = name
	case pausedPipeline:
		h.Pipeline = name
	case pausedDriver:
		h.Driver = name
	case pausedResource:
		h.Resource.Type, h.Resource.Name, _ = strings.Cut(name, "/")
	}
	for _, part := range strings.Split(name, "/") {
		ok = ok && (h.All || text.NameFault(part) == "")
	}
	if !ok || PauseKey(h) != key {
		return Held{}, BadKey(key)
	}
	return h, nil
}
