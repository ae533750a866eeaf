package histories_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/testenv"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

const (
	operations = 100 // of a history
	forever    = math.MaxInt64
	// patience is how long the judge may think about one history. It takes a few milliseconds.
	patience = time.Minute
)

// verdict is what is wrong with a history.
type verdict struct {
	illegal   []string // registers for which there is no order of the calls
	undecided int
	faults    []string // of streams, and of the state in which all came to rest
}

func (v *verdict) sound() bool { return len(v.illegal)+v.undecided+len(v.faults) == 0 }

// history makes the calls of each register, and of each run, out of what the clients saw.
func (w *world) history() (ofResources, ofRuns []porcupine.Operation) {
	add := func(to *[]porcupine.Operation, c *call) {
		if c.To >= c.From { // or else it came to nothing, for the process was dead
			*to = append(*to, porcupine.Operation{ClientId: c.Client, Input: c, Call: c.From, Return: c.To})
		}
	}
	for _, c := range w.calls {
		if c.Answer == nothing {
			continue
		}
		if c.Key == "" {
			continue
		}
		if c.Run == "" && (c.Answer != unknown || c.What != get && c.What != list) {
			add(&ofResources, c)
		}
		switch {
		case c.What == cancel && c.Answer != notFound:
			add(&ofRuns, c)
		case c.Ran != nil:
			shown := *c
			shown.Run, shown.Aside = c.Ran.ID, true
			add(&ofRuns, &shown)
		}
	}
	for id, r := range w.final {
		c := &call{Client: clients + 1, What: end, Run: id, Key: w.resourceOf(id), Ran: r, Answer: done, Exact: w.exact, From: w.mayEndFrom(id), To: w.ends[id]}
		add(&ofResources, c)
		add(&ofRuns, c)
	}
	for _, c := range w.removed() {
		add(&ofResources, c)
	}
	return ofResources, ofRuns
}

// removed are the ends of deletions whose runs are no longer on record, as far as they were seen. The ends of other runs
// that are not change nothing that a reader cannot be the first to say.
func (w *world) removed() (ends []*call) {
	if w.exact {
		return nil
	}
	known := map[string]bool{}
	for _, c := range w.calls {
		if c.What != remove || c.Answer != done && c.Answer != unknown {
			continue
		}
		r := &ran{Cause: conveyor.CauseDeleted, State: conveyor.StateSucceeded}
		e := &call{Client: clients + 1, What: end, Key: c.Key, Ran: r, Answer: unknown, From: c.From, To: forever}
		if c.Answer == done {
			if w.final[c.Ran.ID] != nil || known[c.Ran.ID] {
				continue
			}
			known[c.Ran.ID] = true
			r.ID, r.Resource, e.From = c.Ran.ID, c.Ran.Resource, w.mayEndFrom(c.Ran.ID)
			switch state := w.endings[c.Ran.ID]; {
			case state == conveyor.StateSucceeded:
				e.Answer, e.To = done, w.ends[c.Ran.ID]
			case state.Final():
				continue
			}
		}
		ends = append(ends, e)
	}
	return ends
}

// resourceOf is the name of the resource that a run is of.
func (w *world) resourceOf(run string) string {
	for key, ids := range w.runs {
		if slices.Contains(ids, run) {
			return key
		}
	}
	return ""
}

// mayEndFrom is a moment before the end of a run: it was made by one of the calls that were answered with it, or that
// were not answered; its last step has come back; it was seen at work; and what it ended for was asked for.
func (w *world) mayEndFrom(run string) int64 {
	made, asked, from := int64(forever), int64(forever), w.idle[run]
	key, r := w.resourceOf(run), w.final[run]
	for _, c := range w.calls {
		if c.Key != key {
			continue
		}
		named := c.Ran != nil && c.Ran.ID == run
		if c.What != wait && c.What != getRun && (c.Answer == unknown || named) {
			made = min(made, c.From)
		}
		if c.What == remove && (c.Answer == unknown || c.Answer == done) {
			asked = min(asked, c.From)
		}
		if named && !c.Ran.State.Final() || c.Got != nil && c.Got.Run == run && !c.Got.Phase.Final() {
			from = max(from, c.From)
		}
	}
	if made != forever {
		from = max(from, made)
	}
	if asked != forever && r != nil && r.Reason == toBeDeleted {
		from = max(from, asked)
	}
	return from
}

// part is what one model judges of a history.
type part struct {
	name  string
	model porcupine.Model
	calls []porcupine.Operation
}

func (w *world) parts() []part {
	ofResources, ofRuns := w.history()
	return []part{{"resources", resources, ofResources}, {"runs", journeys, ofRuns}}
}

// judge says what is wrong with the history.
func (w *world) judge() (v verdict) {
	for _, l := range w.lives {
		if w.mates == 0 {
			w.compareStreams(l)
		}
	}
	v.faults = w.faults
	for _, p := range w.parts() {
		switch porcupine.CheckOperationsTimeout(p.model, p.calls, patience) {
		case porcupine.Illegal:
			v.illegal = append(v.illegal, p.name)
		case porcupine.Unknown:
			v.undecided++
		}
	}
	return v
}

// record writes an unsound history to where it can be looked at, and says where.
func (w *world) record(t *testing.T, v *verdict) string {
	dir := t.ArtifactDir()
	if kept := flag.Lookup("test.artifacts"); kept == nil || kept.Value.String() != "true" {
		var err error
		dir, err = os.MkdirTemp("", "history-") // that of the test goes with it
		require.NoError(t, err)
	}
	base := filepath.Join(dir, fmt.Sprintf("history-%d", w.seed))
	raw, err := json.MarshalIndent(map[string]any{
		"seed": w.seed, "faults": v.faults, "illegal": v.illegal, "calls": w.calls, "final": w.final, "ends": w.ends,
	}, "", " ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(base+".json", raw, 0o600))
	require.NoError(t, os.WriteFile(base+".log", w.log.Bytes(), 0o600))
	var explained strings.Builder
	for _, p := range w.parts() {
		if !slices.Contains(v.illegal, p.name) {
			continue
		}
		_, info := porcupine.CheckOperationsVerbose(p.model, p.calls, patience)
		require.NoError(t, porcupine.VisualizePath(p.model, info, base+"-"+p.name+".html"))
		for _, register := range p.model.Partition(p.calls) {
			explain(&explained, p.model, register)
		}
	}
	require.NoError(t, os.WriteFile(base+".txt", []byte(explained.String()), 0o600))
	return base
}

// explain writes down how far the calls of an illegal register can be put in order, and what is left.
func explain(to *strings.Builder, model porcupine.Model, calls []porcupine.Operation) {
	model.Partition = nil
	result, info := porcupine.CheckOperationsVerbose(model, calls, patience)
	if result == porcupine.Ok {
		return
	}
	var longest []porcupine.Operation
	for _, partial := range info.PartialLinearizationsOperations()[0] {
		if len(partial) > len(longest) {
			longest = partial
		}
	}
	placed := map[*call]bool{}
	state := model.Init()
	fmt.Fprintf(to, "the longest order, of %d calls of %d:\n", len(longest), len(calls))
	for _, op := range longest {
		c := op.Input.(*call)
		placed[c] = true
		_, state = model.Step(state, c, nil)
		fmt.Fprintf(to, "%d-%d client %d life %d: %s %s\n    %s\n", op.Call, op.Return, c.Client, c.Life, c, c.Error, model.DescribeState(state))
	}
	fmt.Fprintf(to, "what is left:\n")
	for _, op := range calls {
		if c := op.Input.(*call); !placed[c] {
			fmt.Fprintf(to, "%d-%d client %d life %d: %s %s\n", op.Call, op.Return, c.Client, c.Life, c, c.Error)
		}
	}
	fmt.Fprintln(to)
}

// happen plays a history in a bubble, where time is cheap, or on the machine.
func happen(t *testing.T, w *world, disk func() (store.Store, error)) verdict {
	w.disk = disk
	if w.real {
		w.play()
	} else {
		synctest.Test(t, func(*testing.T) { w.play() })
	}
	return w.judge()
}

func inMemory() func() (store.Store, error) {
	st := memory.New()
	return func() (store.Store, error) { return st, nil }
}

func shared() func() (store.Store, error) {
	st := memory.NewShared()
	return func() (store.Store, error) { return st.Join(), nil }
}

func onDisk(t *testing.T) func() (store.Store, error) {
	path := filepath.Join(t.TempDir(), "records")
	var st *file.Store
	shut := func() error {
		if st == nil {
			return nil
		}
		return st.Close()
	}
	t.Cleanup(func() { require.NoError(t, shut()) })
	return func() (_ store.Store, err error) {
		if err := shut(); err != nil {
			return nil, err
		}
		st, err = file.Open(context.Background(), path, file.Options{})
		return st, err
	}
}

// TestHistoriesAreLinearizable has clients apply, create, read, list, trigger and delete resources, and cancel, read and
// wait for runs, while others watch. The store fails now and then, and the process dies or is shut down under them and
// is started again. Of each history, Porcupine finds an order of the calls in which each has the answer that it would
// have had alone; and the streams of the watchers are gap-free and in order, or have ended with ErrGap.
//
// Most of the histories happen in bubbles, where the store and the drivers take time that costs nothing, some on the
// clock of the machine, and a few on a file. Each has a seed, with which -history=SEED plays it again; what is under way
// at once may then come in another order.
func TestHistoriesAreLinearizable(t *testing.T) {
	n := testenv.Bound(t, "CONVEYOR_HISTORIES", testenv.Some(t, 1000, 10000), 300)
	var tally tally
	var next atomic.Int64
	t.Run("all", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("by ", i), func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1); seed <= int64(n) && !t.Failed(); seed = next.Add(1) {
					requireSound(t, uint64(seed), &tally)
				}
			})
		}
	})
	tally.log(t)
	testenv.Figure(t, "%s", tally.summary())
	if t.Failed() {
		return
	}
	require.Equal(t, n, tally.n["history"])
	for _, what := range everything {
		if n >= enough {
			require.Positive(t, tally.n[what], "there was no %s", what)
		}
	}
}

// enough histories are so many that everything has surely happened in some of them.
const enough = 2000

var (
	again = flag.Uint64("history", 0, "the seed of the history that TestOneHistory plays")
	times = flag.Int("history.times", 100, "how often it does so")
	mates = flag.Bool("history.engines", false, "play the history of this seed with several engines")
)

// TestOneHistory plays one history many times, since what is under way at once comes in one order or another.
func TestOneHistory(t *testing.T) {
	require := requireSound
	if *mates {
		require = requireSharedSound
	}
	var tally tally
	defer func() { t.Log(tally.summary()) }()
	for range *times {
		require(t, *again, &tally)
	}
}

// requireSound plays a history and judges it.
func requireSound(t *testing.T, seed uint64, tally *tally) {
	t.Helper()
	w := newWorld(seed, operations, tally)
	disk := inMemory()
	if seed%200 == 100 || seed%200 == 101 {
		disk = onDisk(t)
		tally.count("history: on a file")
	}
	if w.real = seed%20 == 0; w.real {
		tally.count("history: on the clock of the machine")
	}
	v := happen(t, w, disk)
	tally.judged(&v)
	if !v.sound() {
		t.Fatalf("history %d: illegal: %v, undecided: %d, faults:\n%s\nsee %s.*",
			seed, v.illegal, v.undecided, strings.Join(v.faults, "\n"), w.record(t, &v))
	}
}

// TestHistoriesOfSeveralEnginesAreLinearizable has two or three engines on one store. Half of the calls are made in those that do not
// die, and the runs of one that has died are taken over.
func TestHistoriesOfSeveralEnginesAreLinearizable(t *testing.T) {
	n := testenv.Bound(t, "CONVEYOR_SHARED_HISTORIES", testenv.Some(t, 300, 2000), 40)
	var tally tally
	var next atomic.Int64
	t.Run("all", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("by ", i), func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1); seed <= int64(n) && !t.Failed(); seed = next.Add(1) {
					requireSharedSound(t, uint64(seed), &tally)
				}
			})
		}
	})
	testenv.Figure(t, "%s", tally.summary())
}

// requireSharedSound plays a history with several engines and judges it.
func requireSharedSound(t *testing.T, seed uint64, tally *tally) {
	t.Helper()
	w := newWorld(seed, operations, tally)
	w.mates, w.opts.Lease = 1+int(seed%2), time.Second
	v := happen(t, w, shared())
	tally.judged(&v)
	if !v.sound() {
		t.Fatalf("history %d: illegal: %v, undecided: %d, faults:\n%s\nsee %s.*",
			seed, v.illegal, v.undecided, strings.Join(v.faults, "\n"), w.record(t, &v))
	}
}

// everything must have happened in some history, or else the test says less than it seems to.
var everything = []string{
	"Apply: done", "Apply: ErrConflict", "Apply: ErrTooLarge", "Apply: another error", "Apply: no answer",
	"Create: done", "Create: ErrExists", "Create: ErrConflict", "Create: no answer",
	"Get: done", "Get: ErrNotFound", "Get: another error", "List: done", "List: ErrNotFound",
	"Trigger: done", "Trigger: ErrNotFound", "Trigger: ErrConflict", "Trigger: no answer",
	"Delete: done", "Delete: ErrNotFound", "Delete: no answer",
	"Cancel: done", "Cancel: ErrConflict", "Cancel: no answer", "Wait: done", "Wait: another error", "GetRun: done",
	"client: context ended", "fault: a read fails", "fault: a commit is refused",
	"fault: a commit is unknown, and has happened", "fault: a commit is unknown, and has not happened",
	"process: died before a commit", "process: died after a commit", "process: shut down",
	"watch: an event", "watch: gone and come back", "watch: since an earlier event",
	"watch: ErrGap after falling behind", "watch: ErrGap for a cursor of another life",
	"history: on a file", "history: on the clock of the machine",
}

// judged counts a history of which there is a verdict. One that is unsound in several ways counts as the first of them.
func (t *tally) judged(v *verdict) {
	t.count("history")
	t.add("operations", operations)
	switch {
	case len(v.illegal) > 0:
		t.count("verdict: illegal")
	case v.undecided > 0:
		t.count("verdict: undecided")
	case len(v.faults) > 0:
		t.count("verdict: faulty otherwise")
	}
}

// summary says what became of the histories that were judged.
func (t *tally) summary() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("%d histories, %d operations, %d deaths of the process, %d events watched, %d illegal, %d undecided, %d faulty otherwise",
		t.n["history"], t.n["operations"], t.n["process: died"], t.n["watch: an event"],
		t.n["verdict: illegal"], t.n["verdict: undecided"], t.n["verdict: faulty otherwise"])
}

func (t *tally) log(tb testing.TB) {
	for _, what := range slices.Sorted(maps.Keys(t.n)) {
		tb.Logf("%8d %s", t.n[what], what)
	}
}

// TestPlantedFaultsAreFound plays histories on a store, or with watchers, that do what must not be, until the verdict
// says so.
func TestPlantedFaultsAreFound(t *testing.T) {
	illegal := func(v *verdict) bool { return slices.Contains(v.illegal, "resources") }
	misled := func(what string) func(v *verdict) bool {
		return func(v *verdict) bool {
			return slices.ContainsFunc(v.faults, func(f string) bool { return strings.Contains(f, what) })
		}
	}
	for _, tt := range []struct {
		plant plant
		found func(*verdict) bool
	}{
		{staleReads, illegal},
		{lostWrites, illegal},
		{blindWrites, illegal},
		{droppedEvent, misled("stands where")},
		{swappedEvents, misled("stands where")},
		{repeatedEvent, misled("comes twice")},
		{silence, misled("events tell of changes")},
	} {
		t.Run(string(tt.plant), func(t *testing.T) {
			t.Parallel()
			var tally tally
			for seed := uint64(1); seed <= 200; seed++ {
				w := newWorld(seed, operations, &tally)
				w.plant = tt.plant
				if v := happen(t, w, inMemory()); tt.found(&v) {
					t.Logf("found in history %d", seed)
					return
				}
			}
			require.Fail(t, "not found")
		})
	}
}
