package record

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/conveyor-go/conveyor/store"
)

// Origin says who has asked for something, and what the caller has given to be carried along with it. The zero value says
// that nobody was named and nothing was given.
type Origin struct {
	By      string            `json:"by,omitempty"`
	Carried map[string]string `json:"carried,omitempty"` // never changed, because runs share it
}

// append writes the members of an origin.
func (o *Origin) append(w *writer) {
	w.text("by", o.By, false)
	if len(o.Carried) > 0 {
		w.raw("carried", Encode(o.Carried))
	}
}

// appendObject appends the JSON of the origin to b.
func (o *Origin) appendObject(b []byte) []byte {
	w := writer{append(b, '{')}
	o.append(&w)
	return append(w.b, '}')
}

// Signal is the record of a signal that no step has taken.
type Signal struct {
	Payload json.RawMessage `json:"payload,omitempty"`
	Origin
}

// Check returns what is wrong with the record, and an empty text if nothing is.
func (s *Signal) Check() string { return unless(len(s.Payload) > 0, "has no payload") }

// withOrigin is the end of the key of a signal whose record is a [Signal]. The records of the first two formats have the
// payload alone, under a key without this end.
const withOrigin = "~"

// DecodeSignal reads the record of a signal.
func DecodeSignal(r store.Record) (*Signal, error) {
	s := new(Signal)
	if strings.HasSuffix(r.Key, withOrigin) {
		return s, Decode(r, s)
	}
	if !json.Valid(r.Value) {
		return nil, Damaged(r.Key, errors.New("is no JSON"))
	}
	return &Signal{Payload: r.Value}, nil
}
