package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/conveyor-go/conveyor/store"
)

// Decode reads a record into a pointer. It returns an error that wraps [store.ErrCorrupt] and names the key if the value
// is no JSON, does not fit the type, or fails the check of the type.
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

// Unfit returns why a value does not fit a record, without any part of the value. The engine logs the text, and a
// misplaced value can be a spec with a secret.
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

// Damaged returns an error that wraps [store.ErrCorrupt] and err, and names the key of the record.
func Damaged(key string, err error) error {
	return fmt.Errorf("%w: record %q: %w", store.ErrCorrupt, key, err)
}
