package processes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/invariant"
	"github.com/conveyor-go/conveyor/store"
)

// account is what the processes were acknowledged.
type account struct {
	mu          sync.Mutex // guards all that follows
	open        map[who]said
	specs       map[conveyor.Key][]int64 // what a resource may be now; 0 for nothing
	generations map[conveyor.Key]int64
	runs        map[string]*acked
	signals     map[string][]int64 // by run
	doubted     map[string][]int64 // those that may have been sent
	windows     []window
	ends        map[int]time.Time // of lives
	counts      map[string]int
	faults      []string
}

// who is a client of a process.
type who struct {
	process string
	client  int
}

// acked is a run that was acknowledged.
type acked struct {
	key      conveyor.Key
	ended    conveyor.State
	canceled time.Time // when that was acknowledged; zero if it was not
}

func newAccount() *account {
	return &account{
		open: map[who]said{}, specs: map[conveyor.Key][]int64{}, generations: map[conveyor.Key]int64{}, runs: map[string]*acked{},
		signals: map[string][]int64{}, doubted: map[string][]int64{}, ends: map[int]time.Time{}, counts: map[string]int{},
	}
}

// blame notes a fault. The lock is not held.
func (a *account) blame(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, fmt.Sprintf(format, args...))
}

func (a *account) count(what string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[what] += n
}

// note notes that something was wrong with a life of a process.
func (a *account) note(life int, kind string, from, to time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.windows = append(a.windows, window{life, kind, from, to})
}

// dead notes that a life is over.
func (a *account) dead(life int, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends[life] = at
}

// left doubts what the clients of a process were about to do when it ended.
func (a *account) left(process string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w, s := range a.open {
		if w.process == process {
			delete(a.open, w)
			a.doubt(s)
		}
	}
}

// enter enters what a client of a process has said.
func (a *account) enter(process string, s said) {
	w := who{process, s.Client}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.What == "try" {
		a.open[w] = s
		return
	}
	delete(a.open, w)
	a.counts[s.What+": "+s.Op]++
	switch s.What {
	case "acked":
		a.acknowledge(s)
	case "doubtful":
		a.doubt(s)
	case "refused":
		if may := a.specs[s.Key]; s.Op == "delete" && len(may) > 0 && !slices.Contains(may, 0) {
			a.faults = append(a.faults, fmt.Sprintf("%s cannot be deleted, though its spec %v was acknowledged: %s", s.Key, may, s.Err))
		}
	}
}

func (a *account) acknowledge(s said) {
	switch s.Op {
	case "apply":
		if before := a.generations[s.Key]; s.Generation <= before {
			a.faults = append(a.faults, fmt.Sprintf("%s has generation %d after %d was acknowledged", s.Key, s.Generation, before))
		}
		a.generations[s.Key], a.specs[s.Key] = s.Generation, []int64{s.N}
	case "delete":
		a.specs[s.Key] = []int64{0}
	case "signal":
		a.signals[s.Run] = append(a.signals[s.Run], s.N)
	}
	run := a.runs[s.Run]
	if run == nil {
		run = &acked{key: s.Key}
		a.runs[s.Run] = run
	}
	if s.Op == "cancel" && run.canceled.IsZero() {
		run.canceled = time.Now()
	}
	if s.Op == "wait" {
		run.ended = s.State
	}
}

// doubt enters what may have happened, and may not.
func (a *account) doubt(s said) {
	switch s.Op {
	case "apply", "delete":
		spec := s.N
		if s.Op == "delete" {
			spec = 0
		}
		if a.specs[s.Key] == nil {
			a.specs[s.Key] = []int64{0}
		}
		a.specs[s.Key] = append(a.specs[s.Key], spec)
	case "signal":
		a.doubted[s.Run] = append(a.doubted[s.Run], s.N)
	}
}

// compare holds what is on record against what was acknowledged, and against the journals.
func (w *World) compare(e *conveyor.Engine) {
	t, a := w.t, w.account
	ctx := t.Context()
	require.Empty(t, a.faults)
	for key, may := range a.specs {
		now := int64(0)
		o, err := e.Get(ctx, key)
		if !errors.Is(err, conveyor.ErrNotFound) {
			require.NoError(t, err)
			require.Nil(t, o.DeletedAt, "%s is still being deleted", key)
			require.NoError(t, json.Unmarshal(o.Spec, &now))
			require.GreaterOrEqual(t, o.Generation, a.generations[key], "%s", key)
			require.Equal(t, o.Generation, o.Status.ObservedGeneration, "the newest generation of %s was not reconciled", key)
		}
		require.Contains(t, may, now, "what was acknowledged of %s is lost", key)
	}
	runs := map[string]*conveyor.Run{}
	for run, err := range e.Runs(ctx, conveyor.RunFilter{}) {
		require.NoError(t, err)
		require.True(t, run.State.Final(), "run %s is %s", run.ID, run.State)
		require.NotContains(t, run.Reason, errNoOutput, "run %s", run.ID)
		runs[run.ID] = run
	}
	for id, was := range a.runs {
		run := runs[id]
		require.NotNil(t, run, "run %s of %s was acknowledged, and is lost", id, was.key)
		require.Equal(t, was.key, run.Resource)
		require.True(t, was.ended == 0 || was.ended == run.State, "run %s was %s, and is %s", id, was.ended, run.State)
		if !was.canceled.IsZero() && run.EndedAt.After(was.canceled) {
			a.counts["canceled"]++
			require.Contains(t, []conveyor.State{conveyor.StateCanceled, conveyor.StateFailed}, run.State, "run %s was canceled before it ended", id)
		}
	}
	a.counts["runs"] = len(runs)
	w.compareSignals(runs)
	w.compareJournals(ctx, e, runs)
}

// compareSignals finds each signal that was acknowledged: taken by the step, in order, or sent after those that were.
func (w *World) compareSignals(runs map[string]*conveyor.Run) {
	t, a := w.t, w.account
	for id, run := range runs {
		step := run.Step("ask")
		if step == nil || len(step.Output) == 0 {
			continue
		}
		var got taken
		require.NoError(t, json.Unmarshal(step.Output, &got))
		require.Len(t, got.Signals, 2)
		a.counts["signals taken"] += len(got.Signals)
		require.Less(t, got.Signals[0], got.Signals[1], "signals of run %s came twice or out of order", id)
		for _, n := range got.Signals {
			require.True(t, slices.Contains(a.signals[id], n) || slices.Contains(a.doubted[id], n), "run %s got signal %d, which nobody has sent", id, n)
		}
		for _, n := range a.signals[id] {
			require.True(t, slices.Contains(got.Signals, n) || n > got.Signals[1], "run %s has passed over signal %d", id, n)
		}
	}
}

// requireNothingLeft looks at the records when everything has ended.
func (w *World) requireNothingLeft() {
	t := w.t
	all := map[string]store.Record{}
	for r, err := range w.Store.List(context.Background(), store.Query{}) {
		require.NoError(t, err)
		all[r.Key] = r
	}
	require.Empty(t, invariant.Broken(all))
	require.Empty(t, invariant.Unrest(all))
	for _, prefix := range []string{"~act/", "~rdy/", "~own/", "~ask/", "~que/", "~slt/", "~sig/", "ckp/"} {
		for r, err := range w.Store.List(context.Background(), store.Query{Prefix: prefix}) {
			require.NoError(t, err)
			require.Fail(t, "something is left over", r.Key)
		}
	}
}
