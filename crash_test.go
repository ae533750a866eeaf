package conveyor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
	"github.com/conveyor-go/conveyor/store/memory"
)

// TestEngineSurvivesAStopAtEveryCommit runs each workload again and again, and has the store go wrong at its first
// commit, at its second, and so on until a run completes without getting there. What it ends with must always be what
// it ends with undisturbed, and the drivers must have been called as rule 8 says.
func TestEngineSurvivesAStopAtEveryCommit(t *testing.T) {
	for _, d := range disks {
		for _, load := range workloads {
			t.Run(d.name+"/"+load.name, func(t *testing.T) {
				t.Parallel()
				want := undisturbed(t, load)
				for _, kind := range d.faults {
					n := 1
					for ; endure(t, d, load, want, mishap{kind, n}); n++ {
						require.Less(t, n, 200, "the workload does not come to an end")
					}
					t.Logf("%s: %d commits", kind, n-1)
				}
			})
		}
	}
}

// TestEngineSurvivesAStopAtEveryCommitOfARecovery stops the engine at commit n and its successor at commit m, for
// every n and every m.
func TestEngineSurvivesAStopAtEveryCommitOfARecovery(t *testing.T) {
	for _, d := range disks {
		for _, load := range workloads[:2] {
			t.Run(d.name+"/"+load.name, func(t *testing.T) {
				t.Parallel()
				want := undisturbed(t, load)
				pairs := 0
				for _, kind := range d.deaths {
					for n := 1; ; n++ {
						m := 1
						for ; endure(t, d, load, want, mishap{kind, n}, mishap{kind, m}); m++ {
							pairs++
						}
						if m == 1 {
							break // the first stop was not reached
						}
					}
				}
				t.Logf("%d pairs of commits", pairs)
			})
		}
	}
}

// TestRegisterWhileAResourceIsPassedOver registers a driver when it is settled that nobody listens to a resource, and
// not on record yet.
func TestRegisterWhileAResourceIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, conveyor.Options{}).start()
		var late recorder
		var once sync.Once
		e.store.refusing(func(keys []string) error {
			if slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, "unh/") }) {
				once.Do(func() {
					e.driver("late", &late, conveyor.Listen("loose"))
					time.Sleep(time.Second) // it has looked for what nobody listened to
				})
			}
			return nil
		})
		run := e.finish(loose("loose", "x", 1))
		require.Equal(t, conveyor.StateSkipped, run.State)
		time.Sleep(time.Second)
		require.Equal(t, []string{"late"}, late.steps())
		require.Equal(t, conveyor.StateSucceeded, e.resource(loose("loose", "x", nil)).Status.Phase)
	})
}

// workload is a program, and drivers for it.
type workload struct {
	name      string
	pipelines []conveyor.Pipeline
	drivers   []string            // registered in every life
	listeners map[string][]string // types by driver
	late      map[string][]string // the same, registered when the program has done everything else
	workers   int
	steps     map[string]driverFunc // by id; a step that is not here is done at once, with an output
	early     int                   // operations before Start
	program   []operation
	ordered   bool // the steps of a run come one after the other
	// vague is the step whose reason and attempts depend on when the process died.
	vague string
}

var workloads = []workload{
	{
		name: "five steps", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "c", "d", "e")}, drivers: []string{"a", "b", "c", "d", "e"},
		steps: map[string]driverFunc{"5": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			for _, step := range []string{"1", "2", "3", "4"} {
				var output string
				if err := req.Output(step, &output); err != nil || output != "of step "+step {
					return conveyor.Done(), conveyor.Permanent(fmt.Errorf("output %q of step %s: %w", output, step, err))
				}
			}
			return conveyor.DoneWith([]int{5}), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name: "retries, then success", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(pipelineOf("a", "b", "c"), 3)}, drivers: []string{"a", "b", "c"},
		steps: map[string]driverFunc{"2": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt < 3 {
				return conveyor.Done(), fmt.Errorf("attempt %d is not enough", req.Attempt)
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name: "requeues", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps: map[string]driverFunc{"1": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if time.Since(req.Resource.CreatedAt) < 1900*time.Millisecond {
				return conveyor.RequeueAfter(time.Second), nil
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a skip and a halt", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "c", "d")}, drivers: []string{"a", "b", "c", "d"},
		steps: map[string]driverFunc{
			"2": always(conveyor.Skip("not needed"), nil),
			"3": always(conveyor.Halt("that is enough"), nil),
		},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a run that fails", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(pipelineOf("a", "b", "c"), 2)}, drivers: []string{"a", "b", "c"},
		steps:   map[string]driverFunc{"2": always(conveyor.Done(), errBoom)},
		program: []operation{apply("x", 1), settle, apply("x", 2)},
	},
	{
		name: "a driver that panics", ordered: true,
		pipelines: []conveyor.Pipeline{retrying(pipelineOf("a", "b"), 2)}, drivers: []string{"a", "b"},
		steps: map[string]driverFunc{"1": func(_ context.Context, req *conveyor.Request) (conveyor.Result, error) {
			if req.Attempt == 1 {
				panic("at the disco")
			}
			return conveyor.Done(), nil
		}},
		program: []operation{apply("x", 1)},
	},
	{
		name:      "listeners without a pipeline",
		listeners: map[string][]string{"l1": {"loose"}, "l2": {"loose"}, "l3": {"loose", "other"}},
		steps: map[string]driverFunc{
			"l1": taking(time.Second),
			"l2": always(conveyor.Done(), conveyor.Permanent(errBoom)),
		},
		program: []operation{applyLoose("loose", "x", 1), applyLoose("other", "y", 1), applyLoose("nobody", "z", 1)},
	},
	{
		name:    "listeners that come late",
		late:    map[string][]string{"l1": {"loose"}, "l2": {"other"}},
		program: []operation{applyLoose("loose", "x", 1), applyLoose("loose", "y", 1), applyLoose("other", "z", 1)},
	},
	{
		name: "changes during a run", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c"},
		steps:   map[string]driverFunc{"2": taking(2 * time.Second)},
		program: []operation{apply("x", 1), pause(time.Second), apply("x", 2), apply("x", 3)},
	},
	{
		name: "a queue of generations", ordered: true,
		pipelines: []conveyor.Pipeline{queueing(pipelineOf("a", "b"))}, drivers: []string{"a", "b"},
		steps:   map[string]driverFunc{"2": taking(time.Second)},
		early:   2,
		program: []operation{apply("x", 1), apply("x", 2), apply("x", 3), pause(500 * time.Millisecond), apply("x", 4)},
	},
	{
		name: "steps that are planned", ordered: true,
		pipelines: []conveyor.Pipeline{newFanOut()}, drivers: []string{"d"},
		program: []operation{applying(object("x", []string{"a", "b", "c"}))},
	},
	{
		name: "one driver at two steps", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "a", "a")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1)},
	},
	{
		name: "a triggered run", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1), settle, trigger("x")},
	},
	{
		name: "a cancel during a step", ordered: true, vague: "2",
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b", "c")}, drivers: []string{"a", "b", "c"},
		steps:   map[string]driverFunc{"2": taking(time.Minute)},
		program: []operation{apply("x", 1), pause(time.Second), cancelRun("x")},
	},
	{
		name: "runs queued before the start and for a worker", ordered: true, workers: 1, early: 3,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b")}, drivers: []string{"a", "b"},
		program: []operation{apply("x", 1), apply("y", 1), apply("x", 2), apply("z", 1)},
	},
	{
		name: "a step that logs for a while", ordered: true,
		pipelines: []conveyor.Pipeline{pipelineOf("a", "b")}, drivers: []string{"a", "b"},
		steps: map[string]driverFunc{"1": func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
			req.Log.Info("begun")
			result, err := taking(1500*time.Millisecond)(ctx, req)
			req.Log.Info("ended", "error", err)
			return result, err
		}},
		program: []operation{apply("x", 1)},
	},
}

func retrying(p conveyor.PipelineSpec, attempts int) conveyor.PipelineSpec {
	p.Retry = &conveyor.RetryPolicy{MaxAttempts: attempts, Jitter: -1}
	return p
}

// operation is one call of the program's. Until it was acknowledged, the program makes it again in its next life.
type operation func(ctx context.Context, w *world, e *conveyor.Engine) error

func apply(name string, spec int) operation { return applying(object(name, spec)) }

func applyLoose(kind, name string, spec int) operation { return applying(loose(kind, name, spec)) }

func applying(wanted *conveyor.Object) operation {
	return func(ctx context.Context, w *world, e *conveyor.Engine) error {
		o := wanted.Clone()
		if _, err := e.Apply(ctx, o); err != nil {
			return err
		}
		w.applied[o.Key()] = o
		return nil
	}
}

func pause(d time.Duration) operation {
	return func(ctx context.Context, _ *world, _ *conveyor.Engine) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// trigger makes sure that there is a triggered run.
func trigger(name string) operation {
	return func(ctx context.Context, _ *world, e *conveyor.Engine) error {
		k := conveyor.Key{Type: "r", Name: name}
		for run, err := range e.Runs(ctx, conveyor.RunFilter{Resource: k, Newest: true, Limit: 1}) {
			if err != nil || run.Cause == conveyor.CauseTriggered {
				return err
			}
		}
		_, err := e.Trigger(ctx, k)
		return err
	}
}

// cancelRun makes sure that the newest run is canceled.
func cancelRun(name string) operation {
	return func(ctx context.Context, _ *world, e *conveyor.Engine) error {
		for run, err := range e.Runs(ctx, conveyor.RunFilter{Resource: conveyor.Key{Type: "r", Name: name}, Newest: true, Limit: 1}) {
			if err != nil || run.State == conveyor.StateCanceled {
				return err
			}
			return e.Cancel(ctx, run.ID, "changed my mind")
		}
		return errors.New("there is no run")
	}
}

// settle waits until every run has ended.
func settle(ctx context.Context, _ *world, e *conveyor.Engine) error {
	for run, err := range e.Runs(ctx, conveyor.RunFilter{Unfinished: true}) {
		if err == nil {
			_, err = e.Wait(ctx, run.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// faultKind is what happens to the store at a commit.
type faultKind string

const (
	diesBefore    faultKind = "dies before the commit"
	diesAfter     faultKind = "dies after the commit"
	refuses       faultKind = "refuses the commit"
	unknownUndone faultKind = "does not know, and has not committed"
	unknownDone   faultKind = "does not know, and has committed"
)

type mishap struct {
	kind faultKind
	at   int // which commit; 0 for none
}

var errDied = errors.New("the process is dead")

// mortal is a store that goes wrong at one commit. When it has died it answers nothing but errors: the engine on it
// is a process that is no more.
type mortal struct {
	store.Store
	fault mishap
	die   func() // called when it dies, with mu held, so that whoever gets an errDied finds all else dead too

	mu      sync.Mutex // guards what follows
	commits int
	struck  bool
	dead    bool
}

func (m *mortal) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

func (m *mortal) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	m.die()
}

func (m *mortal) strikes() (faultKind, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return "", errDied
	}
	if m.commits++; m.commits != m.fault.at {
		return "", nil
	}
	m.struck = true
	return m.fault.kind, nil
}

func (m *mortal) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	kind, err := m.strikes()
	if err != nil {
		return 0, err
	}
	switch kind {
	case diesBefore:
		m.kill()
		return 0, errDied
	case refuses:
		return 0, errors.New("the disk is having a bad day")
	case unknownUndone:
		return 0, fmt.Errorf("%w: no", store.ErrUnknown)
	}
	rev, err := m.Store.Commit(ctx, ops...)
	switch {
	case kind == diesAfter:
		m.kill()
		return 0, errDied
	case m.isDead(): // it happened, and nobody is there to hear of it
		return 0, errDied
	case kind == unknownDone && err == nil:
		return 0, fmt.Errorf("%w: yes", store.ErrUnknown)
	}
	return rev, err
}

func (m *mortal) Get(ctx context.Context, key string) (store.Record, error) {
	if m.isDead() {
		return store.Record{}, errDied
	}
	return m.Store.Get(ctx, key)
}

func (m *mortal) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		if m.isDead() {
			yield(store.Record{}, errDied)
			return
		}
		m.Store.List(ctx, q)(yield)
	}
}

// disk keeps records between the lives of a process.
type disk struct {
	name string
	// insert returns a function that closes the store, if it is open, and opens it again.
	insert func(t testing.TB) (reopen func() store.Store)
	faults []faultKind // tried at each commit
	deaths []faultKind // tried at each pair of commits
}

var disks = []disk{
	{"memory", func(testing.TB) func() store.Store {
		st := memory.New()
		return func() store.Store { return st }
	}, []faultKind{diesBefore, diesAfter, refuses, unknownUndone, unknownDone}, []faultKind{diesBefore, diesAfter}},
	// Where a commit does not happen, a file is left as by a death after the commit before it. It takes the time of a
	// disk to find that out twice.
	{"file", func(t testing.TB) func() store.Store {
		path := filepath.Join(t.TempDir(), "records")
		var st *file.Store
		shut := func() {
			if st != nil {
				require.NoError(t, st.Close())
			}
		}
		t.Cleanup(shut)
		return func() store.Store {
			shut()
			var err error
			st, err = file.Open(context.Background(), path, file.Options{})
			require.NoError(t, err)
			return st
		}
	}, []faultKind{diesBefore, diesAfter, unknownDone}, []faultKind{diesAfter}},
}

// downtime passes between two lives.
const downtime = 400 * time.Millisecond

// world is what outlives the process: its records, its program, and those who saw what the drivers did.
type world struct {
	load    workload
	reopen  func() store.Store
	witness *witness
	next    int // of the operations: the first that was not acknowledged
	applied map[conveyor.Key]*conveyor.Object
}

func newWorld(t *testing.T, d disk, load workload) *world {
	return &world{
		load: load, reopen: d.insert(t), applied: map[conveyor.Key]*conveyor.Object{},
		witness: &witness{ordered: load.ordered, steps: map[place]*stepSeen{}, keys: map[string]place{}},
	}
}

// undisturbed returns the state in which a workload ends when nothing goes wrong.
func undisturbed(t *testing.T, load workload) (state string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, disks[0], load)
		require.False(t, w.live(t, mishap{}))
		state = w.state(t)
	})
	return state
}

// endure lets a workload run into faults, one in each life, and then to its end. It reports whether the last fault was
// reached.
func endure(t *testing.T, d disk, load workload, want string, faults ...mishap) (reached bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Logf("with %v", faults)
			}
		}()
		w := newWorld(t, d, load)
		for i, f := range faults {
			struck := w.live(t, f)
			if i == len(faults)-1 {
				reached = struck
			}
			if !struck {
				break
			}
			time.Sleep(downtime)
		}
		w.live(t, mishap{})
		require.Equal(t, want, w.state(t))
	})
	return reached
}

// live is one life of the process. It reports whether the fault was reached.
func (w *world) live(t *testing.T, f mishap) (struck bool) {
	t.Helper()
	disk := w.reopen()
	w.compare(t, disk)
	life, die := context.WithCancelCause(context.Background())
	defer die(nil)
	st := &mortal{Store: disk, fault: f, die: func() { w.witness.close(); die(errDied) }}
	e, err := conveyor.New(st, conveyor.Options{Workers: w.load.workers})
	require.NoError(t, err)

	var watching sync.WaitGroup
	events := e.Watch(context.Background(), conveyor.WatchOptions{})
	watching.Go(func() {
		for event, err := range events {
			if err == nil {
				w.witness.acknowledged(event)
			}
		}
	})
	err = w.run(life, e)
	if life.Err() == nil {
		require.NoError(t, err)
		// The store may go wrong now, too; a shutdown without an end would then wait for it for ever.
		if err := e.Shutdown(life); life.Err() == nil {
			require.NoError(t, err)
		}
	} else {
		// Nothing of what the dead engine still does reaches the store. This only has its goroutines end.
		expired, cancel := context.WithDeadline(context.Background(), time.Now())
		_ = e.Shutdown(expired)
		cancel()
	}
	watching.Wait()
	synctest.Wait()
	require.Empty(t, w.witness.faults(), "what the drivers saw")
	return st.struck
}

// run is the program.
func (w *world) run(ctx context.Context, e *conveyor.Engine) error {
	register := func(name string, opts ...conveyor.DriverOption) error {
		return e.Register(name, driverOf(w.witness.around(w.load.steps)), opts...)
	}
	for _, name := range w.load.drivers {
		if err := register(name); err != nil {
			return err
		}
	}
	for name, types := range w.load.listeners {
		if err := register(name, conveyor.Listen(types...)); err != nil {
			return err
		}
	}
	save := func(ctx context.Context, _ *world, e *conveyor.Engine) error {
		for _, p := range w.load.pipelines {
			if err := e.SavePipeline(ctx, p); err != nil {
				return err
			}
		}
		return nil
	}
	start := func(ctx context.Context, _ *world, e *conveyor.Engine) error { return e.Start(ctx) }
	if err := w.insist(ctx, e, save); err != nil {
		return err
	}
	for i := 0; i <= len(w.load.program); i++ {
		if i == w.load.early {
			if err := w.insist(ctx, e, start); err != nil {
				return err
			}
		}
		if i < w.next || i == len(w.load.program) {
			continue
		}
		if err := w.insist(ctx, e, w.load.program[i]); err != nil {
			return err
		}
		w.next = i + 1
	}
	for _, name := range slices.Sorted(maps.Keys(w.load.late)) {
		if err := register(name, conveyor.Listen(w.load.late[name]...)); err != nil {
			return err
		}
		if err := w.insist(ctx, e, pause(time.Second)); err != nil { // runs are made, after a failure too
			return err
		}
	}
	return w.insist(ctx, e, settle)
}

// insist makes a call until it succeeds or the process is dead; a store goes wrong once.
func (w *world) insist(ctx context.Context, e *conveyor.Engine, op operation) error {
	err := op(ctx, w, e)
	if err != nil && ctx.Err() == nil {
		err = op(ctx, w, e)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) // who is dead has heard no answer
	}
	return err
}

// compare holds what is on record against what was acknowledged and what the drivers saw, and has the witness expect
// what follows from the records.
func (w *world) compare(t *testing.T, disk store.Store) {
	t.Helper()
	e, err := conveyor.New(disk, conveyor.Options{}) // never started
	require.NoError(t, err)
	for k, want := range w.applied {
		got, err := e.Get(t.Context(), k)
		require.NoError(t, err, "an acknowledged resource is lost")
		require.GreaterOrEqual(t, got.Generation, want.Generation, "an acknowledged change of %s is lost", k)
		if got.Generation == want.Generation {
			require.Equal(t, string(want.Spec), string(got.Spec))
		}
	}
	w.witness.expect(drain(t, e.Runs(t.Context(), conveyor.RunFilter{})))
	require.Empty(t, w.witness.faults(), "what is on record")
}

// state renders what is recorded when all is done, without what differs from time to time. It fails if something is
// left over.
func (w *world) state(t *testing.T) string {
	t.Helper()
	disk := w.reopen()
	w.compare(t, disk)
	requireAtRest(t, disk)
	e, err := conveyor.New(disk, conveyor.Options{})
	require.NoError(t, err)
	var lines []string
	for _, o := range drain(t, e.List(t.Context(), conveyor.ResourceFilter{})) {
		require.Equal(t, o.Generation, o.Status.ObservedGeneration, "the last generation of %s was not reconciled", o.Key())
		lines = append(lines, fmt.Sprintf("resource %s: version %d, generation %d, pipeline %q, spec %s, %s %q",
			o.Key(), o.Version, o.Generation, o.Pipeline, o.Spec, o.Status.Phase, o.Status.Message))
		for _, run := range drain(t, e.Runs(t.Context(), conveyor.RunFilter{Resource: o.Key()})) {
			lines = append(lines, fmt.Sprintf("  run of generation %d, %s: %s %q", run.Generation, run.Cause, run.State, run.Reason))
			for _, s := range run.Steps {
				if s.ID == w.load.vague {
					s.Reason, s.Attempts = "", nil
				}
				lines = append(lines, fmt.Sprintf("    step %s: %s %q, attempt %d, requeues %d, output %s",
					s.ID, s.State, s.Reason, s.Attempt, s.Requeues, s.Output))
				for _, a := range s.Attempts {
					lines = append(lines, fmt.Sprintf("      attempt %d: %q", a.Number, a.Error))
				}
			}
		}
	}
	return strings.Join(lines, "\n")
}

// requireAtRest fails if the records say that something is under way or waits.
func requireAtRest(t require.TestingT, disk store.Store) {
	for r, err := range disk.List(context.Background(), store.Query{Prefix: "act/"}) {
		require.NoError(t, err)
		require.Fail(t, "a run that has ended is still listed as unfinished", r.Key)
	}
	for r, err := range disk.List(context.Background(), store.Query{Prefix: "res/"}) {
		require.NoError(t, err)
		var head struct{ Active, Pending string }
		require.NoError(t, json.Unmarshal(r.Value, &head))
		require.Empty(t, head.Active, r.Key)
		require.Empty(t, head.Pending, r.Key)
	}
}

// place is one step of one run.
type place struct{ run, step string }

// witness sees the calls of the drivers, from outside of the process and its store, and knows what must come next.
type witness struct {
	ordered bool

	mu       sync.Mutex // guards what follows
	closed   bool       // the process is dead: what its goroutines still do has not happened
	steps    map[place]*stepSeen
	order    []place // of first calls
	keys     map[string]place
	problems []string
}

// stepSeen is what is known of a step, and what may happen to it next.
type stepSeen struct {
	key      string // of every call
	calls    int
	underWay bool
	over     bool // may not be called again
	attempt  int  // number of the next call
	resumed  bool // of the next call
	due      time.Time
	told     conveyor.Event // the last one about it in this life
}

func (w *witness) at(p place) *stepSeen {
	if w.steps[p] == nil {
		w.steps[p] = &stepSeen{attempt: 1}
	}
	return w.steps[p]
}

func (w *witness) blame(p place, format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf("step %s of run %s: ", p.step, p.run)+fmt.Sprintf(format, args...))
}

func (w *witness) faults() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.problems)
}

func (w *witness) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// around is a driver that is seen.
func (w *witness) around(steps map[string]driverFunc) driverFunc {
	return func(ctx context.Context, req *conveyor.Request) (result conveyor.Result, err error) {
		w.began(req)
		returned := false
		defer func() {
			if !returned {
				err = errBoom // it panics
			}
			w.ended(req, result, err)
		}()
		step := steps[req.Step.ID]
		if step == nil {
			step = always(conveyor.DoneWith("of step "+req.Step.ID), nil)
		}
		result, err = step(ctx, req)
		returned = true
		return result, err
	}
}

func (w *witness) began(req *conveyor.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	p := place{req.Run, req.Step.ID}
	s := w.at(p)
	now := time.Now()
	switch {
	case s.over:
		w.blame(p, "called though it is finished")
	case s.underWay:
		w.blame(p, "called while it is under way")
	case req.Attempt != s.attempt, req.Resumed != s.resumed:
		w.blame(p, "attempt %d, resumed %t; want %d, %t", req.Attempt, req.Resumed, s.attempt, s.resumed)
	case now.Before(s.due):
		w.blame(p, "called at %s, due at %s", now, s.due)
	case s.calls > 0 && s.key != req.IdempotencyKey():
		w.blame(p, "key %s; was %s", req.IdempotencyKey(), s.key)
	}
	if s.calls == 0 {
		if other, taken := w.keys[req.IdempotencyKey()]; taken {
			w.blame(p, "has the key of step %s of run %s", other.step, other.run)
		}
		w.keys[req.IdempotencyKey()] = p
		w.order = append(w.order, p)
	}
	for _, earlier := range w.order {
		if w.ordered && earlier.run == p.run && earlier.step < p.step && !w.steps[earlier].over {
			w.blame(p, "called though step %s is not finished", earlier.step)
		}
		if w.ordered && earlier.run == p.run && earlier.step > p.step {
			w.blame(p, "called after step %s", earlier.step)
		}
	}
	s.key, s.underWay = req.IdempotencyKey(), true
	s.calls++
}

func (w *witness) ended(req *conveyor.Request, result conveyor.Result, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	s := w.at(place{req.Run, req.Step.ID})
	s.underWay, s.resumed, s.due = false, false, time.Time{}
	switch {
	case err != nil:
		s.attempt = req.Attempt + 1 // if there is a next one
	case result == conveyor.RequeueAfter(time.Second):
		s.due = time.Now().Add(time.Second)
	default:
		s.over = true
	}
}

// acknowledged hears of what the engine knows to be on record.
func (w *witness) acknowledged(event conveyor.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if event.Kind == conveyor.EventStep || event.Kind == conveyor.EventRun {
		s := w.at(place{event.Run, event.Step})
		s.told = event
		if event.Kind == conveyor.EventStep && event.State.Final() {
			s.over = true
		}
	}
}

// expect begins a new life of the process with what is on record.
func (w *witness) expect(runs []*conveyor.Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = false
	found := map[place]bool{}
	for _, run := range runs {
		p := place{run.ID, ""}
		found[p] = true
		if told := w.at(p).told; told.State.Final() && run.State != told.State {
			w.blame(p, "was %s, is %s on record", told.State, run.State)
		}
		for _, step := range run.Steps {
			p := place{run.ID, step.ID}
			found[p] = true
			w.expectStep(p, step)
		}
	}
	for p, s := range w.steps {
		if !found[p] && (s.calls > 0 || s.told.Run != "") {
			w.blame(p, "is not on record")
		}
		s.told = conveyor.Event{}
	}
}

// expectStep derives from the record of a step how it must be called next.
func (w *witness) expectStep(p place, rec conveyor.StepRun) {
	s := w.at(p)
	if s.told.State.Final() && rec.State != s.told.State {
		w.blame(p, "was %s, is %s on record", s.told.State, rec.State)
	}
	if s.told.State == conveyor.StateRetrying && rec.State == conveyor.StateRunning && rec.Attempt == s.told.Attempt {
		w.blame(p, "the outcome of attempt %d is lost", rec.Attempt)
	}
	next := stepSeen{key: s.key, calls: s.calls, attempt: rec.Attempt, due: rec.Due, over: rec.State.Final()}
	switch rec.State {
	case conveyor.StateUnset:
		if s.calls > 0 {
			w.blame(p, "called, and its start is not on record")
		}
		next.attempt = 1
	case conveyor.StateRunning:
		next.resumed = true
	case conveyor.StateRetrying:
		next.attempt++
	}
	*s = next
}
