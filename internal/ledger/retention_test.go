package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
)

// history writes runs of a resource that have ended one hour apart, the last one an hour ago, with all that belongs to them, and their generations.
func history(b *book, runs int, now time.Time) *record.Resource {
	h := head(int64(runs))
	h.Status.Run = fmt.Sprint("r", runs)
	b.put(record.ResourceKey(app), h)
	for i := 1; i <= runs; i++ {
		run := ended(record.TimeOf(now.Add(-time.Duration(runs-i+1) * time.Hour)))
		run.Generation = int64(i)
		b.putRun(fmt.Sprint("r", i), run)
		b.put(record.RevisionKey(app, int64(i)), &record.Revision{Version: int64(i)})
	}
	return h
}

func (b *book) putRun(id string, run *record.Run) {
	b.put(record.RunKey(id), run, record.RunsOf(app)+id, []byte(nil), record.PlanKey(id), []byte(`{}`))
	b.putRest(id)
}

// putRest writes what removing the record of a run leaves.
func (b *book) putRest(id string) {
	b.put(record.RunsOf(app)+id, []byte(nil), record.StepKey(id, "1"), []byte(`{}`), record.AttemptKey(id, "1", 1), []byte(`{}`),
		record.LogKey(id, 1), []byte(`[]`), record.CheckpointKey(id, "1"), []byte(`1`), record.SignalsOf(id, "go")+"1", []byte(`1`))
}

// runs returns the runs of which anything is left, the ones with a record first.
func (b *book) runs() (whole, rest []string) {
	seen := map[string]bool{}
	for _, key := range b.keys() {
		parts := strings.Split(key, "/")
		switch parts[0] {
		case "run":
			whole = append(whole, parts[1])
			seen[parts[1]] = true
		case "rix":
			if !strings.Contains(strings.Join(b.keys(), " "), record.RunKey(parts[3])) {
				rest = append(rest, parts[3])
			}
		}
	}
	return whole, rest
}

func (b *book) generations() (kept []string) {
	for _, key := range b.keys() {
		if n, ok := strings.CutPrefix(key, record.RevisionsOf(app)); ok {
			kept = append(kept, strings.TrimLeft(n, "0"))
		}
	}
	return kept
}

func TestPrune(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	unfinished := func(generation int64, of string) *record.Run {
		run := ended(0)
		run.State, run.Generation, run.Of = plan.Running, generation, of
		return run
	}
	for _, c := range []struct {
		name        string
		keep        Keep
		also        func(*book, *record.Resource)
		runs        []string
		generations []string
	}{
		{"nothing without a limit", Keep{}, nil, []string{"r1", "r2", "r3", "r4"}, []string{"1", "2", "3", "4"}},
		{"the newest runs are kept", Keep{Runs: 2}, nil, []string{"r3", "r4"}, []string{"1", "2", "3", "4"}},
		{"more runs than there are", Keep{Runs: 9}, nil, []string{"r1", "r2", "r3", "r4"}, []string{"1", "2", "3", "4"}},
		{"young runs are kept", Keep{Age: 3 * time.Hour}, nil, []string{"r2", "r3", "r4"}, []string{"1", "2", "3", "4"}},
		{"the newest run is kept however old", Keep{Age: 1}, nil, []string{"r4"}, []string{"1", "2", "3", "4"}},
		{"either limit counts", Keep{Runs: 3, Age: 150 * time.Minute}, nil, []string{"r3", "r4"}, []string{"1", "2", "3", "4"}},
		{"the newest generations are kept", Keep{Revisions: 1}, nil, []string{"r1", "r2", "r3", "r4"}, []string{"4"}},
		{"two generations", Keep{Revisions: 2}, nil, []string{"r1", "r2", "r3", "r4"}, []string{"3", "4"}},
		{"a run that another one repeats is kept", Keep{Runs: 1}, func(b *book, _ *record.Resource) {
			b.putRun("r5", unfinished(4, "r2"))
		}, []string{"r2", "r4", "r5"}, []string{"1", "2", "3", "4"}},
		{"the generation of an unfinished run is kept", Keep{Revisions: 1}, func(b *book, _ *record.Resource) {
			b.putRun("r5", unfinished(2, ""))
		}, []string{"r1", "r2", "r3", "r4", "r5"}, []string{"2", "4"}},
		{"the generation that a pending run keeps is kept", Keep{Revisions: 1}, func(b *book, h *record.Resource) {
			h.FixedGeneration = 3
			b.put(record.ResourceKey(app), h)
		}, []string{"r1", "r2", "r3", "r4"}, []string{"3", "4"}},
		{"an unfinished run is never removed", Keep{Runs: 1, Age: 1}, func(b *book, _ *record.Resource) {
			b.putRun("r0", unfinished(1, ""))
		}, []string{"r0", "r4"}, []string{"1", "2", "3", "4"}},
		{"the rest of a run without a record is removed", Keep{}, func(b *book, _ *record.Resource) {
			b.putRest("r0")
		}, []string{"r1", "r2", "r3", "r4"}, []string{"1", "2", "3", "4"}},
		{"the newest run of a deleted resource is removed too", Keep{Age: 1, Revisions: 1}, func(b *book, _ *record.Resource) {
			b.remove(record.ResourceKey(app))
		}, nil, []string{"1", "2", "3", "4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(t)
			h := history(b, 4, now)
			if c.also != nil {
				c.also(b, h)
			}
			require.NoError(t, b.Prune(t.Context(), app, c.keep, now))
			runs, rest := b.runs()
			require.Equal(t, c.runs, runs)
			require.Empty(t, rest)
			require.Equal(t, c.generations, b.generations())
			for _, key := range b.keys() { // nothing is left of a removed run
				parts := strings.Split(key, "/")
				if strings.Contains("stp att log ckp sig pln", parts[0]) {
					require.Contains(t, c.runs, parts[1], key)
				}
			}
			before := b.keys()
			require.NoError(t, b.Prune(t.Context(), app, c.keep, now))
			require.Equal(t, before, b.keys(), "a second look removes more")
		})
	}
}

func TestRemoveAllRemovesInBatchesAndNothingElse(t *testing.T) {
	b := newBook(t)
	for i := range 2*RemoveBatch + 1 {
		b.put(record.LogKey("r1", int64(i)), []byte(`[]`))
	}
	b.put(record.LogKey("r10", 1), []byte(`[]`), record.CheckpointKey("r1", "1"), []byte(`1`))
	require.NoError(t, b.RemoveAll(t.Context(), append(Leftovers("r1"), record.LogsOf("r1"))...))
	require.Equal(t, []string{record.LogKey("r10", 1)}, b.keys())
}

func TestManyGenerationsAreRemovedInBatches(t *testing.T) {
	b := newBook(t)
	generations := RemoveBatch + 10
	b.put(record.ResourceKey(app), head(int64(generations)))
	for i := range generations {
		b.put(record.RevisionKey(app, int64(i+1)), &record.Revision{Version: 1})
	}
	require.NoError(t, b.Prune(t.Context(), app, Keep{Revisions: 2}, time.Now()))
	require.Len(t, b.generations(), 2)
}

func TestLog(t *testing.T) {
	b := newBook(t)
	last, err := b.LastLine(t.Context(), "r1")
	require.NoError(t, err)
	require.Zero(t, last)
	for _, lines := range [][]int64{{1, 2, 3}, {4}, {7, 8}, {9, 10, 11}} { // 5 and 6 were lost in a crash
		var rec []record.LogLine
		for _, n := range lines {
			rec = append(rec, record.LogLine{Seq: n, Message: "m"})
		}
		b.put(record.LogKey("r1", lines[0]), rec)
	}
	b.put(record.LogKey("r2", 1), []record.LogLine{{Seq: 1}})
	all := []int64{1, 2, 3, 4, 7, 8, 9, 10, 11}
	for after := range int64(13) {
		var got []int64
		passed := 0
		require.NoError(t, b.Log(t.Context(), "r1", after, func(line record.LogLine) {
			passed++
			if line.Seq > after {
				got = append(got, line.Seq)
			}
		}))
		var want []int64
		for _, n := range all {
			if n > after {
				want = append(want, n)
			}
		}
		require.Equal(t, want, got, "after %d", after)
		require.LessOrEqual(t, passed, len(want)+3, "more is read than one record before")
	}
	last, err = b.LastLine(t.Context(), "r1")
	require.NoError(t, err)
	require.Equal(t, int64(11), last)
}
