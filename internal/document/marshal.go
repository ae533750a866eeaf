package document

import (
	"bytes"
	"encoding/json"
	"sync"
)

// Marshal returns the JSON of v as [json.Marshal] does, but does not escape <, > and &.
func Marshal(v any) ([]byte, error) {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.buffer.Reset()
	if err := e.json.Encode(v); err != nil {
		return nil, err
	}
	return bytes.Clone(bytes.TrimSuffix(e.buffer.Bytes(), []byte("\n"))), nil
}

type encoder struct {
	buffer bytes.Buffer
	json   *json.Encoder // writes to buffer
}

// encoders keeps encoders for reuse, because every transition of a run encodes a few small records.
var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.json = json.NewEncoder(&e.buffer)
	e.json.SetEscapeHTML(false)
	return e
}}
