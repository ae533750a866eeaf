package record

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
)

func TestEnqueuePending(t *testing.T) {
	k := Key{"build", "app"}
	for _, c := range []struct {
		name   string
		before Resource
		keep   bool
		after  Resource
		fixed  bool
		place  int64
	}{
		{"the first takes the newest generation", Resource{LastPosition: 4, FixedGeneration: 2}, false,
			Resource{LastPosition: 4, Pending: "r", Cause: Updated}, false, 0},
		{"the first keeps its generation", Resource{}, true,
			Resource{Pending: "r", Cause: Updated, FixedGeneration: 7}, true, 0},
		{"the second, behind one that was to take the newest", Resource{Pending: "q", Cause: Created}, false,
			Resource{Pending: "q", Cause: Created, FixedGeneration: 6, Queued: 1, LastPosition: 1}, true, 1},
		{"the second, behind one that keeps its generation", Resource{Pending: "q", Cause: Created, FixedGeneration: 3, LastPosition: 8}, true,
			Resource{Pending: "q", Cause: Created, FixedGeneration: 3, Queued: 1, LastPosition: 9}, true, 9},
		{"the third", Resource{Pending: "q", Cause: Created, FixedGeneration: 3, Queued: 1, LastPosition: 9}, true,
			Resource{Pending: "q", Cause: Created, FixedGeneration: 3, Queued: 2, LastPosition: 10}, true, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, run := c.before, &Run{Generation: 7, Cause: Updated}
			ops := r.EnqueuePending(k, "r", run, c.keep, "")
			require.Equal(t, c.after, r)
			require.Equal(t, c.fixed, r.FixesGeneration())
			require.Equal(t, c.place, run.Position)
			if c.place == 0 {
				require.Empty(t, ops)
				return
			}
			require.Len(t, ops, 1)
			require.Equal(t, PendingKey(k, c.place), ops[0].Key())
			require.True(t, ops[0].Holds(0), "a place is given once")
			require.False(t, ops[0].Holds(1))
			var written Pending
			require.NoError(t, Decode(store.Record{Value: ops[0].Value()}, &written))
			require.Equal(t, Pending{Run: "r", Generation: 7, Cause: Updated}, written)
		})
	}
}

func TestCancelResync(t *testing.T) {
	k := Key{"build", "app"}
	r := &Resource{}
	require.Empty(t, r.CancelResync(k))
	r.Resync = 5
	ops := r.CancelResync(k)
	require.Zero(t, r.Resync)
	require.Len(t, ops, 1)
	require.True(t, ops[0].Removes())
	require.Equal(t, ResyncKey(5, k), ops[0].Key())
}
