package run_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/invariant"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/run"
	"github.com/conveyor-go/conveyor/store"
)

// engines are the engines on the store of a world.
type engines struct {
	w    *world
	live map[string]*run.Member
	next int
}

// share makes the store of a world a shared one, with some engines.
func (w *world) share(n int) *engines {
	e := &engines{w: w, live: map[string]*run.Member{}}
	for range n {
		e.join()
	}
	w.host.lacks = map[string]bool{}
	w.memberOf = func(k *heldRun) *run.Member {
		if k.state.Run != nil && k.state.Run.Rec.Owner != "" {
			return e.live[k.state.Run.Rec.Owner]
		}
		if r, err := w.ledger.Run(ctx, k.id); err == nil && r.Rec.Owner != "" {
			return e.live[r.Rec.Owner]
		}
		return e.live[slices.Sorted(maps.Keys(e.live))[0]]
	}
	return e
}

func (e *engines) join() *run.Member {
	e.next++
	id := fmt.Sprintf("e%03d", e.next)
	rev := e.w.put(record.EngineKey(id), &record.Engine{Started: 1, Format: record.Version, Lease: time.Second})
	e.live[id] = &run.Member{ID: id, Live: store.Check(record.EngineKey(id), rev)}
	return e.live[id]
}

// die marks an engine dead, has another one take its runs over, and removes it.
func (e *engines) die(id string) {
	w := e.w
	w.put(record.EngineKey(id), &record.Engine{Started: 1, Format: record.Version, Lease: time.Second, Dead: 2, By: "x"})
	delete(e.live, id)
	if len(e.live) == 0 {
		e.join()
	}
	by := e.live[slices.Sorted(maps.Keys(e.live))[0]]
	for _, k := range w.runs {
		if r := w.recOf(k); r.Rec.Owner == id {
			w.write(append(run.TakeOver(r, by), by.Live)...)
			k.state = run.State{}
			for _, c := range k.calls {
				w.host.returned(c.driver)
			}
			clear(k.calls)
			k.leftovers, k.lines.pending = true, 0
		}
	}
	w.write(store.Delete(record.EngineKey(id)))
	require.Empty(w, invariant.Broken(w.records()))
}

// TestEngines01RunsOfSeveralEnginesKeepTheInvariant is TestRunsKeepTheRules on a shared store: engines come and die, each has other
// drivers, and after each commit every unfinished run has an owner, is in the index of ready runs, or stands in line.
func TestEngines01RunsOfSeveralEnginesKeepTheInvariant(t *testing.T) {
	claims, releases, takeovers, asked := 0, 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		c := newSharedChaos(t, func(c *chaos, m *change) {
			if left := invariant.Broken(m.after); len(left) > 0 {
				require.Fail(c, "the invariant is broken", "%v after %v", left, keys(m.ops))
			}
			var was, is record.Run
			if before, ok := m.before[record.RunKey(m.run.id)]; ok {
				require.NoError(c, record.Decode(before, &was))
			}
			require.NoError(c, record.Decode(m.after[record.RunKey(m.run.id)], &is))
			switch {
			case is.Owner != "" && was.Owner == "":
				claims++
				require.Equal(c, was.Claims+1, is.Claims, "a claim raises the token")
				require.Contains(c, keys(m.ops), "?"+record.EngineKey(is.Owner), "a claim depends on the life of the engine")
			case is.Owner == "" && was.Owner != "" && !m.over:
				releases++
				require.Equal(c, was.Claims, is.Claims)
			case is.Owner != was.Owner && !m.over:
				require.Fail(c, "a run has changed its owner without a release")
			}
		})
		e := c.engines
		for range rapid.IntRange(0, 60).Draw(t, "inputs") {
			switch rapid.SampledFrom([]string{"act", "act", "act", "act", "act", "act", "join", "die", "drivers", "turn", "ask"}).Draw(t, "what") {
			case "ask":
				asked += c.ask(c.anyRun())
			case "join":
				if len(e.live) < 3 {
					e.join()
				}
			case "die":
				takeovers++
				e.die(rapid.SampledFrom(slices.Sorted(maps.Keys(e.live))).Draw(t, "engine"))
			case "drivers":
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(e.live))).Draw(t, "engine")
				key := id + " " + rapid.SampledFrom(drivers).Draw(t, "driver")
				c.host.lacks[key] = !c.host.lacks[key]
			case "turn":
				c.look(c.anyRun())
			default:
				c.act()
			}
		}
		clear(c.host.lacks)
		c.settle()
		require.Empty(c, invariant.Broken(c.records()))
		for key := range c.records() {
			for _, prefix := range []string{record.OwnedPrefix, record.ReadyPrefix, record.AskPrefix, record.SlotPrefix} {
				require.False(c, strings.HasPrefix(key, prefix), "%s is left", key)
			}
		}
	})
	require.Positive(t, claims)
	require.Positive(t, releases)
	require.Positive(t, takeovers)
	require.Positive(t, asked)
}

// ask lets another than the owner of a run ask something of it. It returns 1 if there was something to ask.
func (c *chaos) ask(k *heldRun) int {
	if k == nil {
		return 0
	}
	r := c.recOf(k)
	var ops []store.Op
	if rapid.Bool().Draw(c.rt, "signal") {
		c.signals++
		put := store.Put(record.SignalKey(k.id, "go", fmt.Sprintf("%04d", c.signals)), record.Encode(&record.Signal{Payload: []byte("1")})).IfAbsent()
		ops = run.Send(k.id, r.Rec, r.Rev, put)
		k.leftovers = true
	} else {
		stop := &run.StopRequest{Kind: plan.StopCancel, Reason: "asked", Cause: fault.Canceled}
		ops = run.Ask(r, stop, c.limits)
	}
	if len(ops) == 0 {
		return 0
	}
	c.write(ops...)
	require.Empty(c, invariant.Broken(c.records()))
	if k.state.Run != nil {
		is := c.recOf(k)
		k.state.Run.Rec, k.state.Run.Rev = is.Rec, is.Rev
	}
	c.look(k)
	for _, op := range ops {
		if strings.HasPrefix(op.Key(), record.AskPrefix) && c.has(op.Key()) {
			c.write(store.Delete(op.Key())) // as the owner does when it has read the run
		}
	}
	return 1
}

// sharedChaos is a chaos with several engines.
func newSharedChaos(rt *rapid.T, check func(c *chaos, m *change)) *chaos {
	return newChaosOn(rt, func(c *chaos) {
		c.engines = c.share(2)
		rules := c.world.check
		c.world.check = func(m *change) {
			rules(m)
			check(c, m)
		}
		owned := c.memberOf
		c.memberOf = func(k *heldRun) *run.Member {
			m := owned(k)
			if k.state.Run != nil && k.state.Run.Rec.Owner != "" || len(k.calls) > 0 {
				return m
			}
			if r, err := c.ledger.Run(ctx, k.id); err == nil && r.Rec.Owner != "" {
				return m
			}
			return c.engines.live[rapid.SampledFrom(slices.Sorted(maps.Keys(c.engines.live))).Draw(rt, "engine")]
		}
	})
}

func TestEngines10RunsTakePlacesThatHoldOverAllEngines(t *testing.T) {
	w := newWorld(t)
	w.share(1)
	w.savePipeline("p", listOf("a"), func(rec *record.Pipeline) { rec.MaxRuns = 2 })
	w.host.register("a")
	k := w.queuedRun("p", record.Created)
	first := w.put(record.SlotKey("p", 1), "another")
	second := w.put(record.SlotKey("p", 2), "a third one")
	in := w.input(k, run.Input{})
	tr := w.next(k, in)
	require.Empty(t, tr.Ops(), "there is no place, and the run stays as it is")
	w.host.Release()
	tr.Recycle()
	k.state.Head, k.state.Rev = nil, 0

	w.write(store.Delete(record.SlotKey("p", 2)).If(second))
	tr = w.next(k, in)
	taken := slices.IndexFunc(tr.Ops(), func(op store.Op) bool { return op.Key() == record.SlotKey("p", 2) })
	require.True(t, tr.Ops()[taken].Conditional() && tr.Ops()[taken].Holds(0), "another engine can have taken it meanwhile")
	w.commit(k, in, tr)
	require.Equal(t, int64(2), w.recOf(k).Rec.Slot)
	slots, err := w.ledger.View(ctx).Slots("p")
	require.NoError(t, err)
	require.Equal(t, map[int64]bool{1: true, 2: true}, slots)

	given := run.Input{Outcomes: []*run.Outcome{w.outcome(k, 0, done)}}
	in = w.input(k, given)
	w.commit(k, in, w.next(k, in))
	require.Zero(t, w.recOf(k).Rec.Slot)
	slots, err = w.ledger.View(ctx).Slots("p")
	require.NoError(t, err)
	require.Equal(t, map[int64]bool{1: true}, slots)
	w.write(store.Delete(record.SlotKey("p", 1)).If(first))
}

func TestEngines09ASignalThatComesDuringAClaimIsNotLost(t *testing.T) {
	w := newWorld(t)
	w.share(1)
	w.host.register("a")
	k := w.activeRun(listOf("a"), []record.Step{{State: plan.Waiting, Attempt: 1, Again: true, Await: "go", Due: w.now}})
	in := w.input(k, run.Input{})
	tr := w.next(k, in) // the time to wait is over, and the step starts again
	require.NotEmpty(t, tr.Starts())
	r := w.recOf(k)
	put := store.Put(record.SignalKey(k.id, "go", "0001"), record.Encode(&record.Signal{Payload: []byte("1")})).IfAbsent()
	w.write(run.Send(k.id, r.Rec, r.Rev, put)...)
	_, err := w.store.Commit(ctx, tr.Ops()...)
	require.ErrorIs(t, err, store.ErrConflict, "it was decided without the signal")
}

// TestEngines17TwoClaimsOfARunAreToldApart has two engines claim a run at the same moment. What shows whether a claim has happened must
// not be the same in both.
func TestEngines17TwoClaimsOfARunAreToldApart(t *testing.T) {
	w := newWorld(t)
	e := w.share(2)
	w.savePipeline("p", listOf("a"))
	w.host.register("a")
	k := w.queuedRun("p", record.Created)
	var first []string
	for _, id := range slices.Sorted(maps.Keys(e.live)) {
		w.memberOf = func(*heldRun) *run.Member { return e.live[id] }
		tr := w.next(k, w.input(k, run.Input{}))
		i := slices.IndexFunc(tr.Ops(), func(op store.Op) bool { return op.Writes() && op.Conditional() })
		first = append(first, string(tr.Ops()[i].Value()))
		w.host.Release()
		tr.Recycle()
		k.state = run.State{}
	}
	require.NotEqual(t, first[0], first[1])
}

// TestEngines04AReleaseWritesTheEntryByWhichTheRunWasFoundBefore has an engine find a run that another engine has in between, and release
// it again when it has taken it over: the entry by which it was found is gone meanwhile.
func TestEngines04AReleaseWritesTheEntryByWhichTheRunWasFoundBefore(t *testing.T) {
	w := newWorld(t)
	e := w.share(2)
	w.host.register("a")
	k := w.activeRun(listOf("a"), []record.Step{{State: plan.Queued}})
	owner := slices.Sorted(maps.Keys(e.live))[0]
	w.write(run.TakeOver(w.recOf(k), e.live[owner])...)
	k.state = run.State{}
	w.memberOf = func(*heldRun) *run.Member { return e.live[owner] }
	w.host.lacks = map[string]bool{owner + " a": true}
	entry := record.ReadyKey(record.Ready{Driver: "a", Lane: record.Lane(w.recOf(k).Rec.Pipeline, w.recOf(k).Rec.Key()), Run: k.id})
	tr := w.next(k, w.input(k, run.Input{Found: entry}))
	require.Empty(t, tr.Rec().Owner)
	require.True(t, slices.ContainsFunc(tr.Ops(), func(op store.Op) bool { return op.Key() == entry && op.Writes() && !op.Removes() }), "%v", tr.Ops())
}
