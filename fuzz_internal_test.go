package conveyor

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

// storedTypes are what the values of a store are decoded into.
var storedTypes = []reflect.Type{
	reflect.TypeFor[formatRecord](), reflect.TypeFor[resourceRecord](), reflect.TypeFor[revisionRecord](),
	reflect.TypeFor[pipelineRecord](), reflect.TypeFor[PipelineSpec](), reflect.TypeFor[runRecord](), reflect.TypeFor[plan](),
	reflect.TypeFor[stepRecord](), reflect.TypeFor[attemptRecord](), reflect.TypeFor[[]LogLine](),
}

// Whatever a damaged store holds, it is either ErrCorrupt or a record that can be written again.
func FuzzStoredRecords(f *testing.F) {
	for _, record := range []any{
		formatRecord{Format: recordFormat},
		resourceRecord{ID: "x", Pipeline: "p", Metadata: map[string]string{"a": "b"}, Version: 2, Generation: 1, First: 1, Created: 1, Updated: 2,
			Status: Status{Phase: StateFailed, Run: "r", Message: "<m>"}, Active: "a", Pending: "b", Cause: CauseUpdated},
		revisionRecord{Pipeline: "p", Version: 1, At: 1, Spec: []byte(`{"a":[1,"\u2028"]}`)},
		pipelineRecord{Hash: "h", Resource: "r", Saved: 1},
		PipelineSpec{Name: "p", Resource: "r", Timeout: 1, Retry: &RetryPolicy{MaxAttempts: 1}, Steps: []Step{{ID: "1", Driver: "d", With: []byte(`null`)}}},
		runRecord{Type: "r", Name: "a", Cause: CauseCreated, State: StateRunning, Stop: stopHalt, FailedStep: "1"},
		plan{Steps: []Step{{ID: "1", Driver: "d"}}, Independent: true},
		stepRecord{State: StateRetrying, Attempt: 1, Due: 1, Resumed: true, Output: []byte(`1`)},
		attemptRecord{Started: 1, Ended: 2, Error: "boom", Kind: kindPanic, Stack: "s"},
		[]LogLine{{Seq: 1, Step: "1", Message: "m", Attrs: []byte(`{}`)}},
		struct{}{}, nil, 1, "",
	} {
		f.Add(encode(record))
	}
	f.Add([]byte("{\"id\":\"\xff\"}"))
	f.Add([]byte(`{"state":"unset"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, shape := range storedTypes {
			first := reflect.New(shape).Interface()
			if err := decode(store.Record{Key: "k", Value: data}, first); err != nil {
				require.ErrorIs(t, err, store.ErrCorrupt)
				continue
			}
			text := encode(first)
			second := reflect.New(shape).Interface()
			require.NoError(t, decode(store.Record{Key: "k", Value: text}, second))
			require.Equal(t, string(text), string(encode(second)), "%s", shape)
		}
	})
}
