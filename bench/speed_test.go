package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fake is a contender whose runs return err.
type fake struct {
	runs   atomic.Int64
	closed atomic.Int64
	err    error
}

func (f *fake) run(context.Context, string) error { f.runs.Add(1); return f.err }

func (f *fake) close(context.Context) error { f.closed.Add(1); return nil }

func (f *fake) contender(name string) contender {
	return contender{name: name, class: memory, open: func(context.Context, site) (session, error) { return f, nil }}
}

func testBench(t *testing.T) *bench { return &bench{dir: t.TempDir(), logf: t.Logf} }

func TestSpeedMeasuresAllInTurnAndLeavesOutWhatFails(t *testing.T) {
	good, bad := &fake{}, &fake{err: errors.New("no")}
	plan := speedPlan{
		contenders: []contender{good.contender("good"), bad.contender("bad")},
		flights:    []int{1, 3}, repetitions: 5, duration: time.Millisecond, allowed: time.Minute,
	}
	results, err := testBench(t).speed(t.Context(), plan)
	require.NoError(t, err)
	require.Len(t, results, 4)
	require.Equal(t, []int{1, 3}, flightsOf(results))
	for _, r := range results {
		if r.name == "good" {
			require.Len(t, r.samples, 5)
			require.Empty(t, r.leftOut)
			continue
		}
		require.Empty(t, r.samples)
		require.Contains(t, r.leftOut, "no")
	}
	require.EqualValues(t, 10, good.closed.Load())
	require.EqualValues(t, 2, bad.closed.Load(), "what failed is not tried again")
}

func TestSpeedLeavesOutWhatWouldTakeTooLong(t *testing.T) {
	slow := measured(riverSQLite, 1, 10)
	plan := speedPlan{contenders: []contender{riverSQLite}, repetitions: 5, allowed: 9 * time.Second}
	at := plan.newResults(100, []*result{slow})
	require.Contains(t, at[0].leftOut, "100 runs would take 10s")
	require.False(t, plan.repeats(at[0], 0))

	at = plan.newResults(50, []*result{slow})
	require.True(t, plan.repeats(at[0], 0))
	at[0].spent = 5 * time.Second
	require.False(t, plan.repeats(at[0], 1))
	require.Contains(t, at[0].leftOut, "1 of 5 repetitions")
}

// measured returns a result with the given rates.
func measured(c contender, flight int, rates ...float64) *result {
	r := &result{contender: c, flight: flight}
	for _, rate := range rates {
		r.samples = append(r.samples, sample{rate: rate, p50: 0.001, p99: 0.002, allocs: 100, syncs: unknown, written: unknown})
	}
	return r
}
