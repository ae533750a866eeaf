package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

func TestAnErrorKeepsItsKinds(t *testing.T) {
	for _, c := range []struct {
		name      string
		err       error
		isPanic   bool
		kind      Kind
		others    []Kind
		sentinels []error
	}{
		{"too large", TooLarge, false, KindTooLarge, nil, []error{TooLarge}},
		{"invalid", Invalid, false, KindInvalid, nil, []error{Invalid}},
		{"timed out", Timeout, false, KindTimeout, nil, []error{Timeout}},
		{"canceled", Canceled, false, KindCanceled, nil, []error{Canceled}},
		{"not found", NotFound, false, KindNotFound, nil, []error{NotFound}},
		{"of a context", context.DeadlineExceeded, false, "context-deadline", nil, []error{context.DeadlineExceeded}},
		{"of a store", store.ErrUnknown, false, "store-unknown", nil, []error{store.ErrUnknown}},
		{"an ordinary error", errors.New("boom"), false, KindPlain, nil, nil},
		{"no error", nil, false, KindPlain, nil, nil},
		{"a panic", errors.New("boom"), true, KindPanic, nil, nil},
		{"a panic with a sentinel", TooLarge, true, KindPanic, []Kind{KindTooLarge}, []error{TooLarge}},
		{"two sentinels", errors.Join(NotFound, TooLarge), false, KindTooLarge, []Kind{KindNotFound}, []error{TooLarge, NotFound}},
		{"three sentinels", errors.Join(Conflict, Timeout, Invalid), false, KindInvalid, []Kind{KindTimeout, "conflict"}, []error{Invalid, Timeout, Conflict}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range []error{c.err, fmt.Errorf("step 1: %w", c.err)} {
				kind, others := KindsOf(err, c.isPanic)
				require.Equal(t, c.kind, kind)
				require.Equal(t, c.others, others)
				require.Equal(t, c.sentinels, Sentinels(kind, others))
				if c.err == nil {
					break
				}
			}
		})
	}
	require.NoError(t, Sentinel(KindInterrupt))
	require.Empty(t, Sentinels("a kind of a later version", []Kind{"another one"}))
}

func TestEachSentinelHasAKindOfItsOwn(t *testing.T) {
	seen := map[Kind]bool{}
	for _, k := range kinds {
		kind, others := KindsOf(k.sentinel, false)
		require.Equal(t, k.kind, kind)
		require.Empty(t, others)
		require.False(t, seen[k.kind])
		seen[k.kind] = true
	}
	for _, sentinel := range []error{NotFound, Exists, Conflict, Invalid, TooLarge, Closed, Canceled, Superseded, Timeout, Gap, Shutdown, LeaseLost} {
		kind, _ := KindsOf(sentinel, false)
		require.NotEqual(t, KindPlain, kind, "%v", sentinel)
	}
}
