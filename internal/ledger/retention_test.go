package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// history writes runs of a resource that have ended one hour apart, the last one an hour ago, with all that belongs to them, and their generations.
func history(b *book, runs int, now time.Time) *record.Resource {
	h := head(int64(runs))
	h.Status.Run = fmt.Sprint("r", runs)
	h.LastRun = int64(max(runs-b.old, 0))
	b.put(record.ResourceKey(app), h)
	for i := 1; i <= runs; i++ {
		run := ended(record.TimeOf(now.Add(-time.Duration(runs-i+1) * time.Hour)))
		run.Generation = int64(i)
		run.Number = int64(max(i-b.old, 0))
		b.putRun(fmt.Sprint("r", i), run)
		b.put(record.RevisionKey(app, int64(i)), &record.Revision{Version: int64(i)})
	}
	return h
}

func (b *book) putRun(id string, run *record.Run) {
	b.put(record.RunKey(id), run, record.PlanKey(id), []byte(`{}`))
	b.putRest(run.Number, id)
}

// putRest writes what removing the record of a run leaves.
func (b *book) putRest(number int64, id string) {
	b.put(record.RunIndexKey(app, number, id), []byte(nil), record.StepKey(id, "1"), []byte(`{}`), record.AttemptKey(id, "1", 1), []byte(`{}`),
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
			if id := parts[len(parts)-1]; !strings.Contains(strings.Join(b.keys(), " "), record.RunKey(id)) {
				rest = append(rest, id)
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
	// begin adds an unfinished run with the next number to the history.
	begin := func(b *book, h *record.Resource, generation int64, of string) {
		run := ended(0)
		run.State, run.Generation, run.Of = plan.Running, generation, of
		h.LastRun++
		run.Number = h.LastRun
		h.Active = "r5"
		b.put(record.ResourceKey(app), h)
		b.putRun("r5", run)
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
		{"a run that another one repeats is kept", Keep{Runs: 1}, func(b *book, h *record.Resource) {
			begin(b, h, 4, "r2")
		}, []string{"r2", "r4", "r5"}, []string{"1", "2", "3", "4"}},
		{"the generation of an unfinished run is kept", Keep{Revisions: 1}, func(b *book, h *record.Resource) {
			begin(b, h, 2, "")
		}, []string{"r1", "r2", "r3", "r4", "r5"}, []string{"2", "4"}},
		{"the generation that a pending run keeps is kept", Keep{Revisions: 1}, func(b *book, h *record.Resource) {
			h.FixedGeneration = 3
			b.put(record.ResourceKey(app), h)
		}, []string{"r1", "r2", "r3", "r4"}, []string{"3", "4"}},
		{"the generations of the runs that are pending are kept", Keep{Revisions: 1}, func(b *book, h *record.Resource) {
			h.Pending, h.FixedGeneration, h.Queued = "p", 2, 1
			b.put(record.ResourceKey(app), h, record.PendingKey(app, 1), &record.Pending{Run: "q", Generation: 3, Cause: record.Updated})
		}, []string{"r1", "r2", "r3", "r4"}, []string{"2", "3", "4"}},
		{"an unfinished run is never removed", Keep{Runs: 1, Age: 1}, func(b *book, h *record.Resource) {
			begin(b, h, 1, "")
			h.Status.Run = "r5"
			b.put(record.ResourceKey(app), h)
		}, []string{"r4", "r5"}, []string{"1", "2", "3", "4"}},
		{"the newest run that has begun is kept, and the newest of all", Keep{Runs: 1, Age: 1}, func(b *book, h *record.Resource) {
			for _, id := range []string{"r5", "r6"} { // they were canceled before they began
				run := ended(1)
				run.State, run.Started, run.Number = plan.Canceled, 0, h.LastRun+1
				h.LastRun, h.Status.Run = run.Number, id
				b.putRun(id, run)
			}
			b.put(record.ResourceKey(app), h)
		}, []string{"r4", "r6"}, []string{"1", "2", "3", "4"}},
		{"the newest run that has had steps is kept, and the newest of all", Keep{Runs: 1, Age: 1}, func(b *book, h *record.Resource) {
			for _, id := range []string{"r5", "r6"} { // their Planner failed
				run := ended(1)
				run.State, run.Number = plan.Failed, h.LastRun+1
				h.LastRun, h.Status.Run = run.Number, id
				b.putRun(id, run)
				b.put(record.PlanKey(id), (&plan.Plan{}).Unplanned("p"))
			}
			b.put(record.ResourceKey(app), h)
		}, []string{"r4", "r6"}, []string{"1", "2", "3", "4"}},
		{"the rest of a run without a record is removed", Keep{}, func(b *book, _ *record.Resource) {
			b.putRest(0, "r0")
		}, []string{"r1", "r2", "r3", "r4"}, []string{"1", "2", "3", "4"}},
		{"a damaged run is left alone, and the others are not", Keep{Runs: 1}, func(b *book, _ *record.Resource) {
			b.put(record.RunKey("r1"), []byte("damaged"))
		}, []string{"r1", "r4"}, []string{"1", "2", "3", "4"}},
		{"of a deleted resource the newest run is removed too", Keep{Age: 1, Revisions: 1}, func(b *book, _ *record.Resource) {
			b.remove(record.ResourceKey(app))
		}, nil, []string{"1", "2", "3", "4"}},
		{"of a deleted resource the newest runs are kept", Keep{Runs: 2}, func(b *book, h *record.Resource) {
			b.remove(record.ResourceKey(app))
			b.put(record.TombstoneKey(app), &record.Tombstone{Generation: 4, LastRun: h.LastRun})
		}, []string{"r3", "r4"}, []string{"1", "2", "3", "4"}},
	} {
		for _, old := range []int{0, 2, 9} {
			t.Run(fmt.Sprintf("%s, and %d runs have no number", c.name, min(old, 4)), func(t *testing.T) {
				b := newBook(t)
				b.old = old
				h := history(b, 4, now)
				if c.also != nil {
					c.also(b, h)
				}
				before := b.keys()
				removed := b.prune(c.keep, now)
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
				gone := map[string]int{}
				for _, key := range before {
					gone[key[:3]]++
				}
				for _, key := range b.keys() {
					gone[key[:3]]--
				}
				require.Equal(t, Removed{Runs: gone["run"], Revisions: gone["rev"]}, removed)
				before = b.keys()
				b.prune(c.keep, now)
				require.Equal(t, before, b.keys(), "a second look removes more")
			})
		}
	}
}

// prune prunes the resource. Damaged records are no failure.
func (b *book) prune(keep Keep, now time.Time) Removed {
	b.t.Helper()
	p := b.NewPruner(keep, now)
	if err := p.Prune(b.t.Context(), app); err != nil {
		require.ErrorIs(b.t, err, store.ErrCorrupt)
	}
	require.NoError(b.t, p.Flush(b.t.Context()))
	return p.Removed
}

// counting is a store that counts its calls.
type counting struct {
	store.Store
	commits, reads, records int
}

func (c *counting) Get(ctx context.Context, key string) (store.Record, error) {
	c.reads++
	return c.Store.Get(ctx, key)
}

func (c *counting) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	c.reads++
	return func(yield func(store.Record, error) bool) {
		for r, err := range c.Store.List(ctx, q) {
			c.records++
			if !yield(r, err) {
				return
			}
		}
	}
}

func (c *counting) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	c.commits++
	return c.Store.Commit(ctx, ops...)
}

func TestPruneReadsNoMoreThanItRemovesHoweverMuchIsKept(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, keep := range []Keep{
		{Runs: 1000}, {Age: 1000*time.Hour + 1}, {Revisions: 1000}, {Runs: 1000, Age: 1000*time.Hour + 1, Revisions: 1000},
	} {
		var took [2]counting
		for i, runs := range []int{1001, 1003} {
			b := newBook(t)
			history(b, runs, now)
			c := &counting{Store: b.Store}
			b.Store = c
			removed := b.prune(keep, now)
			require.Equal(t, runs-1000, max(removed.Runs, removed.Revisions))
			took[i] = *c
			require.Equal(t, 1, c.commits, "removals are grouped")
		}
		require.Less(t, took[0].reads, 20)
		require.Less(t, took[0].records, 20)
		require.Less(t, took[1].reads-took[0].reads, 20, "two more are removed")
	}
}

func TestPruneGroupsTheRemovalsOfManyResources(t *testing.T) {
	b := newBook(t)
	c := &counting{Store: b.Store}
	b.Store = c
	const many = 100
	for i := range many {
		k := record.Key{Type: "build", Name: fmt.Sprint(i)}
		h := head(1)
		h.LastRun, h.Status.Run = 2, fmt.Sprint(i, "-2")
		b.put(record.ResourceKey(k), h)
		for n := range int64(2) {
			run := ended(1)
			run.Name, run.Number, run.Hash, run.Pipeline = k.Name, n+1, "h", "p"
			id := fmt.Sprint(i, "-", n+1)
			b.put(record.RunKey(id), run, record.RunIndexKey(k, n+1, id), []byte(`{}`), record.StepKey(id, "1"), []byte(`{}`))
		}
	}
	c.commits = 0
	p := b.NewPruner(Keep{Runs: 1}, time.Now())
	pauses := 0
	require.NoError(t, p.PruneAll(t.Context(), func() { pauses++ }))
	require.Equal(t, Removed{Runs: many}, p.Removed)
	require.Equal(t, (many*3+RemoveBatch-1)/RemoveBatch, c.commits)
	require.Zero(t, pauses)
}

// A run with more records than one commit removes goes in several commits, in an order in which a process that dies in
// between leaves what the next one finds.
func TestARemovalThatIsCutShortAtAnyCommitIsFinished(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for dies := 0; ; dies++ {
		b := newBook(t)
		history(b, 3, now)
		for i := range 2 * RemoveBatch {
			b.put(record.StepKey("r1", fmt.Sprint("s", i)), []byte(`{}`))
		}
		m := &mortal{Store: b.Store, left: dies}
		b.Store = m
		p := b.NewPruner(Keep{Runs: 1, Revisions: 1}, now)
		err := p.Prune(t.Context(), app)
		if err == nil {
			err = p.Flush(t.Context())
		}
		_, _, whole := Load[record.Run](t.Context(), b.Ledger, record.RunKey("r1"))
		if whole == nil { // as long as the record of a run is there, all that belongs to it is
			require.Contains(t, b.keys(), record.StepKey("r1", fmt.Sprint("s", 2*RemoveBatch-1)))
			require.Contains(t, b.keys(), record.StepKey("r1", "s0"))
		}
		b.Store = m.Store
		b.prune(Keep{Runs: 1, Revisions: 1}, now)
		for _, key := range b.keys() {
			require.False(t, strings.Contains(key, "/r1") || strings.Contains(key, "/r2"), "%s is left when commit %d fails", key, dies+1)
		}
		if err == nil {
			require.Greater(t, dies, 3)
			return
		}
	}
}

// mortal is a store that makes a number of commits and no more.
type mortal struct {
	store.Store
	left int
}

func (m *mortal) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if m.left--; m.left < 0 {
		return 0, errors.New("dead")
	}
	return m.Store.Commit(ctx, ops...)
}

// meddling is a store that does something before its first commit.
type meddling struct {
	store.Store
	before func()
}

func (m *meddling) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if before := m.before; before != nil {
		m.before = nil
		before()
	}
	return m.Store.Commit(ctx, ops...)
}

func TestARunThatIsHeldBeforeItsRemovalStays(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, steps := range []int{1, 2 * RemoveBatch} {
		t.Run(fmt.Sprint(steps, " steps"), func(t *testing.T) {
			b := newBook(t)
			h := history(b, 4, now)
			for i := range steps {
				b.put(record.StepKey("r2", fmt.Sprint("s", i)), []byte(`{}`))
			}
			m := &meddling{Store: b.Store}
			m.before = func() { // the commit of a run that repeats r2
				b.Store = m.Store
				hold, err := b.Hold(t.Context(), "r2")
				require.NoError(t, err)
				run := ended(0)
				run.State, run.Of, run.Number = plan.Running, "r2", 5
				h.LastRun, h.Active, h.Status.Run = 5, "r5", "r5"
				_, err = b.Commit(t.Context(), append(hold, store.Put(record.RunKey("r5"), record.Encode(run)),
					store.Put(record.RunIndexKey(app, 5, "r5"), nil), store.Put(record.ResourceKey(app), record.Encode(h))))
				require.NoError(t, err)
				b.Store = m
			}
			b.Store = m
			require.Equal(t, Removed{Runs: 2}, b.prune(Keep{Runs: 1}, now))
			runs, rest := b.runs()
			require.Equal(t, []string{"r2", "r4", "r5"}, runs)
			require.Empty(t, rest)
			require.Contains(t, b.keys(), record.StepKey("r2", fmt.Sprint("s", steps-1)))
			_, err := b.Hold(t.Context(), "r1")
			require.ErrorIs(t, err, store.ErrNotFound)
		})
	}
}

func TestLeftoversOfEndedRunsAreRemoved(t *testing.T) {
	b := newBook(t)
	running := ended(0)
	running.State = plan.Running
	b.put(record.RunKey("a"), running, record.RunKey("b"), ended(1), record.RunKey("b-"), running)
	want := []string{}
	for _, id := range []string{"a", "b", "b-", "b0", "c"} { // there is no run b0, nor c
		b.put(record.CheckpointKey(id, "1"), []byte(`1`), record.CheckpointKey(id, "2"), []byte(`1`), record.SignalsOf(id, "go")+"1", []byte(`1`))
		if id == "a" || id == "b-" {
			want = append(want, record.CheckpointKey(id, "1"), record.CheckpointKey(id, "2"))
		}
	}
	require.NoError(t, b.RemoveLeftovers(t.Context()))
	require.Equal(t, append(want, record.RunKey("a"), record.RunKey("b"), record.RunKey("b-"), record.SignalsOf("a", "go")+"1", record.SignalsOf("b-", "go")+"1"), b.keys())
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
	b.prune(Keep{Revisions: 2}, time.Now())
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

// strict is a store that states limits, and refuses what passes them.
type strict struct {
	store.Store
	limits store.Limits
	most   int // ops in a commit
}

func (s *strict) Limits() store.Limits { return s.limits }

func (s *strict) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := s.limits.Check(ops); err != nil {
		return 0, err
	}
	s.most = max(s.most, len(ops))
	return s.Store.Commit(ctx, ops...)
}

func TestRemovalsAreAsLargeAsTheStoreAccepts(t *testing.T) {
	cases := []struct {
		name   string
		limits store.Limits
		batch  int
	}{
		{"no limits", store.Limits{}, RemoveBatch},
		{"more ops than a batch", store.Limits{Ops: 1000}, RemoveBatch},
		{"fewer ops than a batch", store.Limits{Ops: 128}, 128},
		{"few bytes", store.Limits{Ops: 128, Bytes: 100 << 10}, 100},
		{"hardly any ops", store.Limits{Ops: 3}, 3},
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			wide := newBook(t)
			history(wide, 3, now)
			for i := range 2 * RemoveBatch {
				wide.put(record.StepKey("r1", fmt.Sprint("s", i)), []byte(`{}`), record.CheckpointKey("r2", fmt.Sprint("s", i)), []byte(`1`))
			}
			st := &strict{Store: wide.Store, limits: c.limits}
			b := &book{Ledger: New(st), t: t}
			require.Equal(t, c.batch, b.Batch)
			keys, more, err := b.View(t.Context()).Leftovers("r2")
			require.NoError(t, err)
			require.True(t, more)
			require.Len(t, keys, c.batch)

			b.prune(Keep{Runs: 1, Revisions: 1}, now)
			for _, key := range b.keys() {
				require.False(t, strings.Contains(key, "/r1") || strings.Contains(key, "/r2"), "%s is left", key)
			}
			require.Equal(t, c.batch, st.most)
		})
	}
}
