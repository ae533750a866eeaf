package record

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTime(t *testing.T) {
	require.Zero(t, TimeOf(time.Time{}))
	require.True(t, Time(0).Time().IsZero())
	now := time.Now()
	require.True(t, now.Equal(TimeOf(now).Time()))
	require.Equal(t, Time(3), Time(1).Add(2))
	require.Equal(t, Time(-1), Time(1).Add(-2))
	require.Equal(t, Time(math.MaxInt64), Time(1).Add(math.MaxInt64))
	require.Equal(t, Time(math.MaxInt64), Time(1).Add(math.MaxInt64-1))
	require.Equal(t, Time(math.MaxInt64-1), Time(1).Add(math.MaxInt64-2))
}
