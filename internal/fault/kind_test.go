package fault

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnErrorKeepsItsKind(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      error
		isPanic  bool
		kind     Kind
		sentinel error
	}{
		{"too large", TooLarge, false, KindTooLarge, TooLarge},
		{"invalid", Invalid, false, KindInvalid, Invalid},
		{"timed out", Timeout, false, KindTimeout, Timeout},
		{"canceled", Canceled, false, KindCanceled, Canceled},
		{"not found", NotFound, false, KindNotFound, NotFound},
		{"another sentinel", Conflict, false, KindPlain, nil},
		{"an ordinary error", errors.New("boom"), false, KindPlain, nil},
		{"no error", nil, false, KindPlain, nil},
		{"a panic", errors.New("boom"), true, KindPanic, nil},
		{"a panic with a sentinel", TooLarge, true, KindPanic, nil},
		{"the first of two sentinels", errors.Join(NotFound, TooLarge), false, KindTooLarge, TooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.kind, KindOf(c.err, c.isPanic))
			require.Equal(t, c.sentinel, Sentinel(c.kind))
			if c.err != nil {
				require.Equal(t, c.kind, KindOf(fmt.Errorf("step 1: %w", c.err), c.isPanic))
			}
		})
	}
	require.NoError(t, Sentinel(KindInterrupt))
	require.NoError(t, Sentinel("a kind of a later version"))
}

func TestEachKindHasASentinelOfItsOwn(t *testing.T) {
	for _, k := range kinds {
		require.Equal(t, k.kind, KindOf(Sentinel(k.kind), false))
	}
}
