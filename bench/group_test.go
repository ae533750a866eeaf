package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGroupsCarryOutEveryRequestOnce(t *testing.T) {
	var got atomic.Int64
	broken := errors.New("broken")
	g := groupCommit[int]{commit: func(values []int) error {
		got.Add(int64(len(values)))
		if values[0] < 0 {
			return broken
		}
		return nil
	}}
	require.NoError(t, concurrently(t.Context(), 50, 1000, func(context.Context, int) error { return g.do(1) }))
	require.EqualValues(t, 1000, got.Load())
	require.ErrorIs(t, g.do(-1), broken)
}
