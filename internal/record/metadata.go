package record

import "encoding/json"

// Metadata is the metadata of a resource: JSON by name, as compact as [document.Marshal] writes it. Nearly all values are
// texts. A program of the first version knows texts only, and refuses a record with any other value.
type Metadata map[string]json.RawMessage
