package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/conveyor-go/conveyor/store"
)

// Decode reads a record. Damage is an error that names the key, and no other record.
func Decode(r store.Record, into any) error {
	if err := json.Unmarshal(r.Value, into); err != nil {
		return Damaged(r.Key, errors.New(Unfit(err)))
	}
	if string(bytes.TrimSpace(r.Value)) == "null" {
		return Damaged(r.Key, errors.New("is null"))
	}
	if c, ok := into.(checker); ok {
		if problem := c.Check(); problem != "" {
			return Damaged(r.Key, errors.New(problem))
		}
	}
	return nil
}

// Unfit says why a value is no record, in words that give away nothing of the value: the engine logs them, and what was
// mixed up may be a spec.
func Unfit(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("is no JSON, at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf("has a value at byte %d that is no %s", kind.Offset, kind.Type)
	}
	return "has a value that does not fit its field"
}

func Damaged(key string, err error) error {
	return fmt.Errorf("%w: record %s: %w", store.ErrCorrupt, key, err)
}
