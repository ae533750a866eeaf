package handover

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// write commits ops to the store of a ledger.
func write(t *testing.T, l *ledger.Ledger, ops ...store.Op) store.Revision {
	t.Helper()
	rev, err := l.Commit(t.Context(), ops)
	require.NoError(t, err)
	return rev
}

// lookIn looks at these entries.
func lookIn(t *testing.T, n int, change func(s *Search), entries ...record.Ready) Result {
	t.Helper()
	l := ledger.New(memory.New())
	for _, e := range entries {
		write(t, l, store.Put(record.ReadyKey(e), nil))
	}
	s := Search{
		Ledger: l, Now: 100, Drivers: []string{"d"},
		Serves:  func(context.Context, string) (int, error) { return page, nil },
		Known:   func(string) (bool, bool) { return false, false },
		Damaged: func(err error) { require.ErrorIs(t, err, store.ErrCorrupt) },
	}
	change(&s)
	r, err := s.Look(t.Context(), n)
	require.NoError(t, err)
	return r
}

func runsOf(entries []Entry) (runs []string) {
	for _, e := range entries {
		runs = append(runs, e.Run)
	}
	return runs
}

func TestALookTakesOneOfEachLaneInTurn(t *testing.T) {
	of := func(lane string, runs ...string) (entries []record.Ready) {
		for _, id := range runs {
			entries = append(entries, record.Ready{Lane: lane, Run: id})
		}
		return entries
	}
	three := append(append(of("p", "p1", "p2", "p3"), of("q", "q1", "q2")...), of(".r", "r1")...)
	began := record.Ready{Driver: "d", Lane: "p", Run: "b1"}
	for _, c := range []struct {
		name    string
		n       int
		change  func(s *Search)
		entries []record.Ready
		want    []string
		urgent  []string
		left    bool
		next    record.Time
	}{
		{"nothing", 9, func(*Search) {}, nil, nil, nil, false, 0},
		{"all that there is", 9, func(*Search) {}, three, []string{"r1", "p1", "q1", "p2", "q2", "p3"}, nil, false, 0},
		{"one of each lane, though no worker is free", 0, func(*Search) {}, three, []string{"r1", "p1", "q1"}, nil, true, 0},
		{"no more than there are workers", 4, func(*Search) {}, three, []string{"r1", "p1", "q1", "p2"}, nil, true, 0},
		{"none of a lane of which one waits here", 0, func(s *Search) { s.Known = func(id string) (bool, bool) { return id == "p1", false } }, three, []string{"r1", "q1"}, nil, true, 0},
		{"the next of a lane of which one waits here", 9, func(s *Search) { s.Known = func(id string) (bool, bool) { return id == "p1", false } }, three,
			[]string{"r1", "q1", "p2", "q2", "p3"}, nil, false, 0},
		{"no lane that cannot be served", 9, func(s *Search) {
			s.Serves = func(_ context.Context, lane string) (int, error) { return map[string]int{"q": page}[lane], nil }
		}, three, []string{"q1", "q2"}, nil, false, 0},
		{"no more of a lane than there is room for", 9, func(s *Search) {
			s.Serves = func(_ context.Context, lane string) (int, error) { return map[string]int{"p": 2}[lane], nil }
		}, three, []string{"p1", "p2"}, nil, true, 0},
		{"what has begun and needs a driver that is here", 9, func(*Search) {},
			[]record.Ready{began, {Driver: "other", Lane: "p", Run: "b2"}}, []string{"b1"}, nil, false, 0},
		{"what is due, and not what is due later", 9, func(*Search) {}, []record.Ready{
			{Driver: "d", Lane: "p", Due: 100, Run: "now"}, {Driver: "d", Lane: "p", Due: 101, Run: "later"},
			{Driver: "d", Lane: "q", Due: 300, Run: "much"}, {Driver: "d", Lane: "q", Due: record.Never, Run: "never"},
		}, []string{"now"}, nil, false, 101},
		{"what needs no worker", 0, func(*Search) {}, []record.Ready{{Lane: record.Urgent, Run: "u1"}, {Lane: record.Urgent, Due: 200, Run: "u2"}},
			nil, []string{"u1"}, false, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			var elsewhere []record.Ready // so many that not all are read at once
			for i := range 2 * fewEntries {
				elsewhere = append(elsewhere, record.Ready{Driver: "elsewhere", Lane: "p", Run: fmt.Sprint("e", i)})
			}
			for _, entries := range [][]record.Ready{c.entries, slices.Concat(c.entries, elsewhere)} {
				r := lookIn(t, c.n, c.change, entries...)
				require.Equal(t, c.want, runsOf(r.Entries))
				require.Equal(t, c.urgent, runsOf(r.Urgent))
				require.Equal(t, c.left, r.Left)
				require.Equal(t, c.next, r.Next)
			}
		})
	}
}

func TestEnginesThatLookAtTheSameTimeSeldomTakeTheSame(t *testing.T) {
	var entries []record.Ready
	for i := range 100 {
		entries = append(entries, record.Ready{Lane: "p", Run: fmt.Sprintf("run%03d", i)})
	}
	first := map[string]bool{}
	for range 200 {
		r := lookIn(t, 1, func(s *Search) { s.Others = 3 }, entries...)
		first[r.Entries[0].Run] = true
	}
	require.Len(t, first, 4, "one of the first runs, and of no more than there are engines")
}

func TestADamagedEntryIsPassedOver(t *testing.T) {
	l := ledger.New(memory.New())
	write(t, l, store.Put("rdy/any/p/nonsense", nil), store.Put(record.ReadyKey(record.Ready{Lane: "p", Run: "r"}), nil))
	damaged := 0
	s := Search{
		Ledger: l, Serves: func(context.Context, string) (int, error) { return 1, nil }, Known: func(string) (bool, bool) { return false, false },
		Damaged: func(error) { damaged++ },
	}
	r, err := s.Look(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, []string{"r"}, runsOf(r.Entries))
	require.Positive(t, damaged)
}

func TestAnEntryIsDiscardedUnlessItWasPutAgain(t *testing.T) {
	l := ledger.New(memory.New())
	key := record.ReadyKey(record.Ready{Lane: "p", Run: "r"})
	rev := write(t, l, store.Put(key, nil))
	again := write(t, l, store.Put(key, nil))
	require.NoError(t, Discard(t.Context(), l, Entry{Key: key, Rev: rev}))
	_, err := l.Store.Get(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, Discard(t.Context(), l, Entry{Key: key, Rev: again}))
	_, err = l.Store.Get(t.Context(), key)
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestRunsFallToTheEnginesEvenly(t *testing.T) {
	count := map[string]int{}
	for i := range 3000 {
		id := fmt.Sprintf("run%04d", i)
		engine := FallsTo(id, []string{"a", "b", "c"})
		require.Equal(t, engine, FallsTo(id, []string{"c", "a", "b"}))
		if engine != "c" {
			require.Equal(t, engine, FallsTo(id, []string{"a", "b"}), "who has a run keeps it when another engine goes")
		}
		count[engine]++
	}
	for _, engine := range []string{"a", "b", "c"} {
		require.InDelta(t, 1000, count[engine], 150)
	}
}

func TestRunsAreTakenOverOnce(t *testing.T) {
	l := ledger.New(memory.New())
	owned := func(id, owner string) {
		rec := record.Run{
			Type: "r", Name: id, ResourceID: "x", Cause: record.Created, State: plan.Queued, Generation: 1, Created: 1, Number: 1,
			Ownership: record.Ownership{Owner: owner, Claims: 1, Turn: 1},
		}
		write(t, l, store.Put(record.RunKey(id), record.Encode(&rec)), store.Put(record.OwnedKey("dead", id), nil))
	}
	engine := func(id string) *run.Member {
		rev := write(t, l, store.Put(record.EngineKey(id), record.Encode(&record.Engine{Started: 1, Format: record.SharedVersion, Lease: 1})))
		return &run.Member{ID: id, Live: store.Check(record.EngineKey(id), rev)}
	}
	a, b := engine("a"), engine("b")
	for i := range 3 * Together {
		owned(fmt.Sprintf("run%03d", i), "dead")
	}
	owned("run998", "other") // its entry is for nothing
	write(t, l, store.Put(record.OwnedKey("dead", "run999"), nil))
	runs, err := Owned(t.Context(), l, "dead")
	require.NoError(t, err)
	require.Len(t, runs, 3*Together+2)
	none := func(string, error) { require.Fail(t, "no run is damaged") }

	taken, err := TakeOver(t.Context(), l, "dead", runs[:Together/2], a, none)
	require.NoError(t, err)
	require.Len(t, taken, Together/2)
	taken, err = TakeOver(t.Context(), l, "dead", runs, b, none)
	require.NoError(t, err)
	require.Len(t, taken, 3*Together-Together/2, "not those that the other engine has")
	left, err := Owned(t.Context(), l, "dead")
	require.NoError(t, err)
	require.Empty(t, left)
	rec, _, err := ledger.Load[record.Run](t.Context(), l, record.RunKey("run095"))
	require.NoError(t, err)
	require.Equal(t, record.Ownership{Owner: "b", Claims: 2, Turn: 2}, rec.Ownership)

	owned("run500", "dead")
	write(t, l, store.Put(record.EngineKey("a"), record.Encode(&record.Engine{Started: 1, Format: 4, Lease: 1, Dead: 2, By: "b"})))
	taken, err = TakeOver(t.Context(), l, "dead", []string{"run500"}, a, none)
	require.NoError(t, err)
	require.Empty(t, taken, "an engine that is marked dead takes nothing over")
}
