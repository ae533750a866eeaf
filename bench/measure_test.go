package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

// fake is a contender whose runs end as they are told.
type fake struct {
	runs   atomic.Int64
	closed atomic.Int64
	err    error
}

func (f *fake) run(context.Context, string) error { f.runs.Add(1); return f.err }
func (f *fake) close(context.Context) error       { f.closed.Add(1); return nil }

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
	at := plan.begin(100, []*result{slow})
	require.Contains(t, at[0].leftOut, "100 runs would take 10s")
	require.False(t, plan.wants(at[0], 0))

	at = plan.begin(50, []*result{slow})
	require.True(t, plan.wants(at[0], 0))
	at[0].spent = 5 * time.Second
	require.False(t, plan.wants(at[0], 1))
	require.Contains(t, at[0].leftOut, "1 of 5 repetitions")
}

func TestLoadBeginsAtLeastOneRunForEachCaller(t *testing.T) {
	f := &fake{}
	out, err := (&load{session: f}).keep(t.Context(), 7, 0)
	require.NoError(t, err)
	require.Equal(t, 7, out.runs)
	require.Len(t, out.latencies, 7)
}

func TestBoltSyncsAreTwoForEachTransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bolt.db")
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	before, err := boltSyncs(path)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists([]byte("b"))
			return err
		}))
	}
	after, err := boltSyncs(path)
	require.NoError(t, err)
	require.EqualValues(t, 6, after-before)
	require.NoError(t, db.Close())

	require.NoError(t, os.WriteFile(path, make([]byte, 3*os.Getpagesize()), 0o600))
	_, err = boltSyncs(path)
	require.Error(t, err)
}

func TestRecordedRunHasACommitMoreThanSteps(t *testing.T) {
	commits, err := recordCommits(t.Context())
	require.NoError(t, err)
	require.Len(t, commits, steps+1)
	for _, ops := range commits {
		require.NotEmpty(t, ops)
		for _, op := range ops {
			require.Greater(t, len(op.key), 1, "the key %q has no name of the run or its resource in it", op.key)
		}
	}
}

func TestGroupsCarryOutEveryRequestOnce(t *testing.T) {
	var got atomic.Int64
	broken := errors.New("broken")
	g := groups[int]{carryOut: func(values []int) error {
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

func TestGrowthMeasuresBothStores(t *testing.T) {
	plan := growthPlan{sizes: []int{50, 100}, waiting: 20, unfinished: 20, pipelines: []int{2, 4}, stepsBlock: 8}
	g, err := testBench(t).growth(t.Context(), plan)
	require.NoError(t, err)
	require.Len(t, g.sizes, 4)
	require.Len(t, g.turns, 2)
	require.Len(t, g.waiting, 2)
	require.Len(t, g.starts, 2)
	require.Len(t, g.pipelines, 4)
	for _, r := range g.starts {
		require.Equal(t, 100+growthBlocks*10, r.finished, "those measured in turn are there too")
		require.Equal(t, 20, r.unfinished)
		require.Equal(t, 2, r.queued)
	}
}

func TestOptionsChooseParts(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-only", "speed,budgets"})
	require.NoError(t, err)
	require.True(t, o.has(partSpeed))
	require.False(t, o.has(partGrowth))
	require.Empty(t, o.out, "a part is not the result of all")

	_, err = parseOptions([]string{"-only", "speed,sped"})
	require.ErrorContains(t, err, `"sped"`)

	o, err = parseOptions(nil)
	require.NoError(t, err)
	require.Equal(t, "RESULTS.md", o.out)
}
