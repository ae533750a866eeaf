package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSampleIsPerRun(t *testing.T) {
	out := outcome{runs: 10, elapsed: 2e9, latencies: []time.Duration{1e6, 2e6, 3e6}}
	before := counters{allocs: 100, bytes: 1000, written: 50, disk: 4096, syncs: 7}
	after := counters{allocs: 300, bytes: 3000, written: 150, disk: 8192, syncs: 37}
	s := newSample(out, before, after)
	require.Equal(t, sample{
		rate: 5, p50: 0.002, p99: 0.003, allocs: 20, bytes: 200, written: 10, disk: 409.6, syncs: 3,
	}, s)

	after.written, after.syncs = unknown, unknown
	s = newSample(out, before, after)
	require.EqualValues(t, unknown, s.written)
	require.EqualValues(t, unknown, s.syncs)
}
